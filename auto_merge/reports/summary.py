"""What a run amounts to: counts, incumbent, speed, time left, headline; functions of a view."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from auto_merge.reports.trade_off import (
    SOURCE,
    floor_sentences,
    front_sentence,
    told,
)
from auto_merge.reports.wording import clean, count, interval, points, signed_points
from auto_merge.runs.view import HeldoutRow, RunView, TrialRow
from auto_merge.trial import Outcome, Status, Trial

_INITIAL = "initial design"


@dataclass(frozen=True)
class Step:
    """A change of the best score known so far.

    Attributes:
        row: The trial that became the incumbent.
        score: Its score on search documents, scaled, in [0, 1].
    """

    row: TrialRow
    score: float


@dataclass(frozen=True)
class FailureGroup:
    """Trials that failed in the same way.

    Attributes:
        status: How they ended.
        error: Their common error line.
        trials: Indices of the trials, ascending.
    """

    status: Status
    error: str
    trials: tuple[int, ...]


def finished(view: RunView) -> list[tuple[TrialRow, Outcome]]:
    """Rows with their outcomes in the order of tells."""
    told = [(row, row.outcome) for row in view.trials if row.outcome is not None]
    return sorted(told, key=lambda pair: (pair[0].active_seconds, pair[0].trial.index))


def successes(view: RunView) -> list[tuple[TrialRow, Outcome]]:
    """The successful part of :func:`finished`."""
    return told(view)


def successes_as_trials(view: RunView) -> list[tuple[Trial, Outcome]]:
    """:func:`successes` without what the run adds to a trial."""
    return [(row.trial, outcome) for row, outcome in successes(view)]


def is_start_point(row: TrialRow) -> bool:
    """Whether the trial belongs to the initial design."""
    return row.trial.origin.startswith(_INITIAL)


def best_so_far(view: RunView) -> list[Step]:
    """Incumbents in the order of tells.

    The incumbent is the cheapest trial among those of the highest fidelity seen so far. Its score
    may fall when a higher rung is reached: more documents are a stricter judge.
    """
    steps: list[Step] = []
    best: tuple[int, float] | None = None
    for row, outcome in successes(view):
        rank = (-row.trial.fidelity, outcome.cost)
        if best is None or rank < best:
            best = rank
            steps.append(Step(row, 1.0 - outcome.cost))
    return steps


def num_failed(view: RunView) -> int:
    """Number of trials that ended without scores."""
    return len(finished(view)) - len(successes(view))


def rung_text(view: RunView, fidelity: int) -> str:
    """``"2 of 3 (300 documents per task)"``; without position if the rung is not a planned one."""
    rungs = [int(rung) for rung in view.manifest.get("rungs", ())]
    documents = f"{count(fidelity, 'document')} per task"
    if fidelity in rungs:
        return f"{rungs.index(fidelity) + 1} of {len(rungs)} ({documents})"
    return documents


def num_documents(view: RunView) -> int:
    """Documents newly scored by this run so far."""
    return max((row.documents for row in view.trials), default=0)


def documents_per_second(view: RunView) -> float | None:
    """Newly scored documents per active second; ``None`` before the first."""
    documents = num_documents(view)
    return documents / view.active_seconds if documents and view.active_seconds > 0 else None


def seconds_left(view: RunView) -> float | None:
    """Estimate from the limits and the mean time of a trial; ``None`` if nothing is known."""
    if view.state == "complete":
        return None
    return time_left(len(finished(view)), view.max_trials, view.active_seconds, view.max_seconds)


def time_left(
    done: int, max_trials: int | None, active_seconds: float, max_seconds: float | None
) -> float | None:
    """Seconds until the first limit is reached, every trial taking the mean time so far."""
    limits = []
    if max_seconds is not None:
        limits.append(max(0.0, max_seconds - active_seconds))
    if max_trials is not None and done > 0:
        limits.append(max(0, max_trials - done) * active_seconds / done)
    return min(limits, default=None)


def failure_groups(view: RunView) -> list[FailureGroup]:
    """Failures with equal status and error together, the most common first."""
    groups: dict[tuple[Status, str], list[int]] = {}
    for row, outcome in finished(view):
        if outcome.status is not Status.SUCCESS:
            groups.setdefault((outcome.status, clean(outcome.error)), []).append(row.trial.index)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), min(item[1])))
    return [FailureGroup(*key, tuple(sorted(indices))) for key, indices in ordered]


def status_counts(view: RunView) -> dict[str, int]:
    """Number of finished trials by status name, the most common first."""
    return dict(Counter(outcome.status.value for _, outcome in finished(view)).most_common())


def best_source(rows: Sequence[HeldoutRow]) -> HeldoutRow | None:
    """The source that does best on the held-out documents, the hardest one to beat."""
    sources = [row for row in rows if row.label.startswith(SOURCE)]
    return max(sources, key=lambda row: row.mean, default=None)


def headline(view: RunView) -> str:
    """The result in a few sentences, no better than it is."""
    return " ".join(headline_sentences(view))


def headline_sentences(view: RunView) -> list[str]:
    """The sentences of :func:`headline`, the most important one first."""
    if view.final is not None:
        winner, *others = view.final.heldout
        subject = "The merged model"
        if view.final.front is not None:
            subject = "The member of the front with the best mean"
        sentences = [
            _against_best_source(subject, winner, others),
            _baselines(others),
            *floor_sentences(view),
            _start_point(view),
        ]
        # A front is the result of its search; the one model that is exported comes after it.
        return [sentence for sentence in (front_sentence(view), *sentences) if sentence]
    steps = best_so_far(view)
    doing = {"running": "The search is running", "stopped": "The search was stopped"}.get(
        view.state, "The search is complete without a result"
    )
    if steps:
        best = steps[-1]
        sentences = [
            f"{doing}: the best model so far scores {points(best.score)} on search documents "
            f"({best.row.trial.fidelity:,} per task).",
            front_sentence(view),
            "Held-out documents have not been opened.",
        ]
        return [sentence for sentence in sentences if sentence]
    groups = failure_groups(view)
    if not groups:
        return [f"{doing}: no trial has finished yet."]
    failed = sum(len(group.trials) for group in groups)
    trials = "the only finished trial" if failed == 1 else f"all {failed} finished trials"
    reason = f"{groups[0].status.value.replace('_', ' ')}, {groups[0].error}"
    return [f"{doing}: {trials} failed.", f"Most often: {reason}"]


def _against_best_source(subject: str, winner: HeldoutRow, others: Sequence[HeldoutRow]) -> str:
    text = f"{subject} scores {points(winner.mean)} on held-out documents"
    rival = best_source(others)
    if rival is None or rival.comparison is None:
        return f"{text}; it was compared with no source."
    name = clean(rival.label.removeprefix(SOURCE))
    comparison = rival.comparison
    if comparison.verdict == "not distinguishable":
        text += (
            f": not distinguishable from the best source, {name} (difference "
            f"{signed_points(comparison.difference)}, 95 % interval {interval(comparison)})."
        )
    else:
        above = comparison.verdict == "better"
        ends = sorted((abs(comparison.low), abs(comparison.high)))
        text += (
            f", {points(abs(comparison.difference))} points {'above' if above else 'below'} the "
            f"best source, {name} (95 % interval {points(ends[0])} to {points(ends[1])})."
        )
    return text


def _baselines(others: Sequence[HeldoutRow]) -> str:
    """How the winner stands against everything that is not a source.

    Of single scales only against the best one.
    """
    named: dict[str, list[str]] = {}
    for row in others:
        if row.comparison is not None and not row.label.startswith((SOURCE, "single scale")):
            name = re.sub(r" \((.*)\)$", r" \1", clean(row.label))
            part = f"the {name} ({signed_points(row.comparison.difference)})"
            named.setdefault(row.comparison.verdict, []).append(part)
    phrases = [
        f"{words} {_listed(named[verdict])}"
        for verdict, words in (
            ("better", "better than"),
            ("not distinguishable", "not distinguishable from"),
            ("worse", "worse than"),
        )
        if verdict in named
    ]
    return f"It is {', '.join(phrases)}." if phrases else ""


def _start_point(view: RunView) -> str:
    assert view.final is not None
    origin = view.final.trial.origin
    alone = len({row.trial.config_id for row in view.trials}) == 1  # nothing was searched
    if alone or not origin.startswith(_INITIAL):
        return ""
    label = clean(origin.removeprefix(_INITIAL).strip(": "))
    return f"It is a start point of the search ({label}): nothing better was found."


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
