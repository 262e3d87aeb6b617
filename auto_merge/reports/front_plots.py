"""Plots of a multi-objective run: the front with what it has to beat, and its hypervolume."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from auto_merge.reports.plots import BUDGET_LABEL, HALF, WIDE, Budget, spent, thousands
from auto_merge.reports.svg import (
    AMBER,
    BLUE,
    GREEN,
    GREY,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    PURPLE,
    Drawing,
    drawing,
)
from auto_merge.reports.trade_off import SOURCE, current_front, hypervolume_steps
from auto_merge.reports.wording import clean, points, short, task_label, task_score
from auto_merge.runs.view import RunView
from auto_merge.statistics.pareto import front
from auto_merge.trial import Objective, TaskScore

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

Kind = Literal["best", "member", "source", "scale", "other"]
NORMAL_QUANTILE = 1.96
"""Half width of a 95 % interval in standard errors."""
_SMALL = 0.4
"""Share of the plot below which the front gets a panel of its own."""
_SOURCE_MARKERS = ("s", "^", "v", "P", "X", "<", "h", ">")
_SOURCE_COLOURS = (ORANGE, PURPLE, GREEN)


@dataclass(frozen=True)
class Mark:
    """A model in a plot of the front.

    Attributes:
        label: Its name.
        kind: What it is.
        scores: Score per objective in points, 100 is best.
        ends: 95 % interval per objective, in points.
        shown: Score per objective as the tables show it.
    """

    label: str
    kind: Kind
    scores: tuple[float, ...]
    ends: tuple[tuple[float, float], ...]
    shown: tuple[str, ...]


def marks(view: RunView) -> list[Mark]:
    """What a plot shows: held-out scores of a finished run, else the search front so far."""
    objectives = view.objectives
    if view.final is None:
        return [
            _mark(objectives, f"trial {row.trial.index}", "member", outcome.scores)
            for row, outcome in current_front(view)
        ]
    if view.final.front is None:
        return []
    best, *others = view.final.heldout
    members = [
        _mark(objectives, member.row.label, "member", member.row.scores)
        for member in view.final.front.members[1:]
    ]
    rivals = [_mark(objectives, row.label, _kind(row.label), row.scores) for row in others]
    name = f"best mean (trial {view.final.trial.index})"
    return [*rivals, *members, _mark(objectives, name, "best", best.scores)]


def front_plot(view: RunView) -> str:
    """The front: a scatter for two objectives, parallel axes for more, nothing for one."""
    shown = marks(view)
    if not shown or len(view.objectives) < 2:
        return ""
    return _scatter(view, shown) if len(view.objectives) == 2 else _parallel(view, shown)


def hypervolume_curve(view: RunView, against: Budget) -> str:
    """Hypervolume of the search front while the budget is spent."""
    steps = hypervolume_steps(view)
    if not steps:
        return ""
    with drawing(f"hypervolume-{against}", f"Hypervolume against {against}", HALF, 2.6) as picture:
        axes = picture.axes
        places = [spent(step.row, against) for step in steps]
        places.append(max(spent(row, against) for row in view.trials))
        shares = [100 * step.share for step in steps]
        axes.step(places, [*shares, shares[-1]], where="post", color=INK)
        group = f"hypervolume-{against}-steps"
        axes.scatter(places[:-1], shares, s=14, color=BLUE, edgecolor=PAPER, zorder=3, gid=group)
        picture.tooltips[group] = [
            f"trial {step.row.trial.index}: {points(step.share)} % "
            f"({step.row.trial.fidelity:,} documents per task)"
            for step in steps
        ]
        axes.set_xlabel(BUDGET_LABEL[against])
        axes.set_ylabel("search hypervolume, %")
        axes.set_xlim(left=-0.02 * places[-1])
        axes.grid(axis="y")
        thousands(axes)
    return picture.svg


def _kind(label: str) -> Kind:
    if label.startswith(SOURCE):
        return "source"
    return "scale" if "single scale" in label else "other"


def _mark(
    objectives: tuple[Objective, ...], label: str, kind: Kind, scores: Sequence[TaskScore]
) -> Mark:
    pairs = list(zip(objectives, scores, strict=True))
    ends = []
    for objective, score in pairs:
        half = NORMAL_QUANTILE * score.standard_error
        reach = (objective.goodness(score.mean - half), objective.goodness(score.mean + half))
        ends.append((100 * min(reach), 100 * max(reach)))
    return Mark(
        label=label,
        kind=kind,
        scores=tuple(100 * objective.goodness(score.mean) for objective, score in pairs),
        ends=tuple(ends),
        shown=tuple(task_score(objective, score) for objective, score in pairs),
    )


@dataclass(frozen=True)
class _Look:
    """How a mark is drawn."""

    colour: str
    marker: str
    size: float
    label: str
    order: float


def _looks(shown: Sequence[Mark]) -> list[_Look]:
    """One look per mark; marks that share a legend entry share its label."""
    looks = []
    num_sources = 0
    for mark in shown:
        label = short(mark.label, 30)
        if mark.kind == "best":
            looks.append(_Look(BLUE, "o", 95, label, 6))
        elif mark.kind == "member":
            looks.append(_Look(BLUE, "o", 34, "front", 5))
        elif mark.kind == "scale":
            looks.append(_Look(AMBER, "D", 22, "single scales", 3))
        elif mark.kind == "source":
            marker = _SOURCE_MARKERS[num_sources % len(_SOURCE_MARKERS)]
            colour = _SOURCE_COLOURS[num_sources % len(_SOURCE_COLOURS)]
            looks.append(_Look(colour, marker, 46, label, 4))
            num_sources += 1
        else:
            looks.append(_Look(GREY, "P" if mark.label == "base" else "X", 46, label, 4))
    return looks


def _scatter(view: RunView, shown: Sequence[Mark]) -> str:
    """One task against the other, with a second panel around the front where it looks small."""
    close = _close_ranges(shown)
    description = "Pareto front: score on one task against the other"
    with drawing("front", description, WIDE, 5.0 if close is None else 4.4) as picture:
        panels = [picture.axes]
        if close is not None:
            picture.axes.remove()
            panels = list(picture.figure.subplots(1, 2))
        for number, axes in enumerate(panels):
            inside = [mark for mark in shown if number == 0 or _inside(mark, close)]
            _draw_models(picture, axes, view, shown, f"front-{number}", inside)
            axes.grid(axis="both")
        documents = "search" if view.final is None else "held-out"
        labels = [short(task_label(item, view.objectives), 30) for item in view.objectives]
        for axes in panels:
            magnified = "" if axes is panels[0] else ", magnified"
            axes.set_xlabel(f"{labels[0]}: {documents} score{magnified}")
        panels[0].set_ylabel(f"{labels[1]}: {documents} score")
        if close is not None:
            panels[1].set_xlim(*close[0])
            panels[1].set_ylim(*close[1])
        _legend(picture, shown)
    return picture.svg


def _close_ranges(shown: Sequence[Mark]) -> tuple[tuple[float, float], ...] | None:
    """Ranges in points that hold the front; ``None`` where it is large enough as it is."""
    ours = [mark for mark in shown if mark.kind in ("best", "member")]
    ranges, shares = [], []
    for place in range(2):
        low, high = _reach(ours, place)
        everything = _reach(shown, place)
        margin = max(0.08 * (high - low), 0.2)
        ranges.append((low - margin, high + margin))
        shares.append((high - low) / max(everything[1] - everything[0], 1e-9))
    return tuple(ranges) if len(ours) > 1 and min(shares) < _SMALL else None


def _inside(mark: Mark, ranges: tuple[tuple[float, float], ...] | None) -> bool:
    return ranges is not None and all(
        low <= score <= high for score, (low, high) in zip(mark.scores, ranges, strict=True)
    )


def _reach(marks: Sequence[Mark], place: int) -> tuple[float, float]:
    """Range of all intervals of one objective."""
    return min(mark.ends[place][0] for mark in marks), max(mark.ends[place][1] for mark in marks)


def _draw_models(
    picture: Drawing,
    axes: Axes,
    view: RunView,
    shown: Sequence[Mark],
    prefix: str,
    inside: Sequence[Mark],
) -> None:
    """Draws the models ``inside``, which are all that are shown or those near the front."""
    for place, (mark, look) in enumerate(zip(shown, _looks(shown), strict=True)):
        if mark not in inside:
            continue
        x, y = mark.scores
        for xs, ys in ((mark.ends[0], (y, y)), ((x, x), mark.ends[1])):
            axes.plot(xs, ys, color=look.colour, linewidth=1.0, alpha=0.45, zorder=2)
        _dots(picture, axes, f"{prefix}-{place}", [x], [y], look, [_tooltip(view, mark)])
    _connect_scales(axes, shown)
    _fill_reached(axes, [mark for mark in shown if mark.kind in ("best", "member")])


def _fill_reached(axes: Axes, members: Sequence[Mark]) -> None:
    """Tints what is no better than some member on both tasks."""
    left, bottom = axes.get_xlim()[0], axes.get_ylim()[0]
    costs = [tuple(100 - score for score in mark.scores) for mark in members]
    xs, ys = zip(*sorted(members[place].scores for place in front(costs)), strict=True)
    axes.fill_between(
        (left, *xs), bottom, (ys[0], *ys), step="pre", color=BLUE, alpha=0.09, linewidth=0, zorder=0
    )
    axes.set_xlim(left=left)
    axes.set_ylim(bottom=bottom)


def _connect_scales(axes: Axes, shown: Sequence[Mark]) -> None:
    """Dashed line through the single scales in the order of their scales."""
    found = []
    for mark in shown:
        scale = re.search(r"\(([0-9.e+-]+)\)$", mark.label)
        if mark.kind == "scale" and scale is not None:
            found.append((float(scale[1]), mark.scores))
    if len(found) > 1:
        xs, ys = zip(*(scores for _, scores in sorted(found)), strict=True)
        axes.plot(xs, ys, linestyle=(0, (3, 2)), color=AMBER, linewidth=1.0, alpha=0.7, zorder=1)


def _parallel(view: RunView, shown: Sequence[Mark]) -> str:
    """One vertical axis per objective, each over the range of its own scores."""
    objectives = view.objectives
    width = max(WIDE, 1.5 * len(objectives))
    with drawing("front", "Pareto front: scores on all tasks", width, 4.6) as picture:
        axes = picture.axes
        ranges = [_range(shown, place) for place in range(len(objectives))]
        places = list(range(len(objectives)))
        for index, (mark, look) in enumerate(zip(shown, _looks(shown), strict=True)):
            heights = [_height(mark.scores[place], ranges[place]) for place in places]
            best, ours = mark.kind == "best", mark.kind in ("best", "member")
            axes.plot(
                places,
                heights,
                color=look.colour,
                linewidth=2.4 if best else 1.1,
                alpha=1.0 if best else 0.6 if ours else 0.45,
                linestyle="-" if ours else (0, (4, 2)),
                zorder=look.order - 1,
            )
            if best:
                for place in places:
                    reach = [_height(end, ranges[place]) for end in mark.ends[place]]
                    axes.plot([place, place], reach, color=BLUE, linewidth=4, alpha=0.35, zorder=4)
            texts = [_tooltip(view, mark)] * len(places)
            _dots(picture, axes, f"front-{index}", places, heights, look, texts)
        _label_axes(axes, view, ranges)
        _legend(picture, shown)
    return picture.svg


def _label_axes(axes: Axes, view: RunView, ranges: Sequence[tuple[float, float]]) -> None:
    labels = [short(task_label(item, view.objectives), 22) for item in view.objectives]
    axes.set_xticks(range(len(labels)), labels)
    axes.tick_params(axis="x", labelcolor=INK)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    for place, (low, high) in enumerate(ranges):
        axes.axvline(place, color=GREY, linewidth=0.9, alpha=0.6, zorder=0)
        for height, value in ((0.0, low), (1.0, high)):
            axes.annotate(
                f"{value:.1f}",
                (place, height),
                xytext=(0, 5 if height else -12),
                textcoords="offset points",
                ha="center",
                color=MUTED,
                annotation_clip=False,
            )
    axes.set_ylim(-0.09, 1.07)
    axes.set_xlim(-0.35, len(labels) - 0.65)


def _range(shown: Sequence[Mark], place: int) -> tuple[float, float]:
    """Range of an axis: of all scores there and of the interval of the best mean."""
    values = [mark.scores[place] for mark in shown]
    for mark in shown:
        if mark.kind == "best":
            values += mark.ends[place]
    return min(values), max(values)


def _height(value: float, ends: tuple[float, float]) -> float:
    low, high = ends
    return (value - low) / (high - low) if high > low else 0.5


def _dots(
    picture: Drawing,
    axes: Axes,
    group: str,
    xs: Sequence[float],
    ys: Sequence[float],
    look: _Look,
    texts: Sequence[str],
) -> None:
    axes.scatter(
        xs,
        ys,
        s=look.size,
        marker=look.marker,
        color=look.colour,
        edgecolor=PAPER,
        linewidth=0.8,
        zorder=look.order,
        gid=group,
    )
    picture.tooltips[group] = texts


def _legend(picture: Drawing, shown: Sequence[Mark]) -> None:
    handles = {look.label: _handle(look) for look in sorted(_looks(shown), key=lambda x: -x.order)}
    picture.figure.legend(
        handles=list(handles.values()),
        loc="outside upper left",
        ncols=4,
        handletextpad=0.3,
        columnspacing=1.4,
    )


def _handle(look: _Look) -> Line2D:
    from matplotlib.lines import Line2D

    return Line2D(
        [],
        [],
        linestyle="",
        marker=look.marker,
        color=look.colour,
        markersize=look.size**0.5,
        label=look.label,
    )


def _tooltip(view: RunView, mark: Mark) -> str:
    named = zip(view.objectives, mark.shown, strict=True)
    scores = ", ".join(f"{task_label(item, view.objectives)} {text}" for item, text in named)
    return f"{clean(mark.label)}: {scores}"
