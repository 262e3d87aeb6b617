"""Numbers as people read them; one place, so that every report says the same."""

from __future__ import annotations

import math
import re

from auto_merge.statistics import Comparison
from auto_merge.trial import Objective, TaskScore

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def clean(text: str) -> str:
    """Replaces characters that no terminal or XML file should get; text in, one line out."""
    return _CONTROL.sub("�", " ".join(text.split()))


def short(text: str, length: int) -> str:
    """Cleaned text of at most ``length`` characters, cut in its middle."""
    text = clean(text)
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"


def points(score: float) -> str:
    """Scaled score in points: ``0.9123`` is ``"91.2"``."""
    return f"{_rounded(100 * score):.1f}"


def signed_points(difference: float) -> str:
    """Difference of scaled scores in points with its sign: ``"+3.1"``, ``"-0.4"``, ``"0.0"``."""
    value = _rounded(100 * difference)
    return f"{value:+.1f}" if value else "0.0"


def interval(comparison: Comparison) -> str:
    """Interval of a difference in points, ``"+2.0 to +4.2"``."""
    return f"{signed_points(comparison.low)} to {signed_points(comparison.high)}"


def task_score(objective: Objective, score: TaskScore) -> str:
    """Mean of a metric: in points if it is a share of one, else in its own unit."""
    if objective.bounds == (0.0, 1.0):
        return points(score.mean)
    return f"{score.mean:.4g}" if math.isfinite(score.mean) else str(score.mean)


def task_label(objective: Objective, objectives: tuple[Objective, ...]) -> str:
    """Name of a task; with its metric where the task occurs twice, an arrow if less is better."""
    several = sum(other.task == objective.task for other in objectives) > 1
    name = f"{objective.task} {objective.metric}" if several else objective.task
    return clean(name) + (" ↓" if objective.direction == "minimize" else "")


def duration(seconds: float) -> str:
    """Length of time to two units: ``"12 s"``, ``"4 min 10 s"``, ``"3 h 05 min"``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def count(number: int, noun: str) -> str:
    """``count(1, "trial")`` is ``"1 trial"``, ``count(1200, "trial")`` is ``"1,200 trials"``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def percent(share: float) -> str:
    """``0.061`` is ``"6 %"``."""
    return f"{100 * share:.0f} %"


def percent_of_box(share: float) -> str:
    """A hypervolume: ``0.4312`` is ``"43.1 %"``."""
    return f"{points(share)} %"


def number(value: object) -> str:
    """A hyperparameter or recipe value in at most four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else clean(str(value))


def _rounded(value: float) -> float:
    # Adding zero turns -0.0 into 0.0.
    return round(value, 1) + 0.0
