"""The plots of a report as inline SVG. Each returns an empty string if there is nothing to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from auto_merge.reports import summary
from auto_merge.reports.heatmap import REST
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
from auto_merge.reports.wording import (
    clean,
    count,
    interval,
    points,
    short,
    signed_points,
    task_label,
    task_score,
)
from auto_merge.runs.view import HeldoutRow, RunView, TrialRow
from auto_merge.statistics import Comparison, Importance
from auto_merge.strategies.lfs_names import OTHER, parse_selection, parse_value
from auto_merge.trial import Objective, Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Budget = Literal["documents", "seconds"]
WIDE = 8.8
HALF = 5.2
_VERDICT_COLOUR = {"better": BLUE, "worse": ORANGE, "not distinguishable": GREY}
_VERDICT_MARKER = {"better": "o", "worse": "s", "not distinguishable": "D"}
_RUNG_COLOURS = (GREY, AMBER, GREEN, PURPLE)
MARKERS = ("s", "D", "^", "v", "P", "X", "<", "h")
COLOURS = (ORANGE, GREEN, PURPLE, AMBER, GREY, INK)
BUDGET_LABEL: Mapping[Budget, str] = {
    "documents": "newly scored documents, all tasks together",
    "seconds": "active seconds",
}
MAX_PARAMETERS = 15
FEW_CONFIGURATIONS = 50


def best_so_far(view: RunView, against: Budget) -> str:
    """Search score of the incumbent while the budget is spent, and of every successful trial."""
    rows = summary.successes(view)
    if not rows:
        return ""
    description = f"Search score against {against}"
    with drawing(f"history-{against}", description, HALF, 3.3) as picture:
        axes = picture.axes
        rungs = sorted({row.trial.fidelity for row, _ in rows})
        for place, rung in enumerate(rungs):
            of_rung = [pair for pair in rows if pair[0].trial.fidelity == rung]
            _trial_points(
                picture, of_rung, against, _rung_colour(place, len(rungs)), f"rung-{rung}"
            )
        steps = summary.best_so_far(view)
        places = [spent(step.row, against) for step in steps]
        places.append(max(spent(row, against) for row, _ in rows))
        scores = [100 * step.score for step in steps]
        axes.step(places, [*scores, scores[-1]], where="post", color=INK, label="best so far")
        axes.set_xlabel(BUDGET_LABEL[against])
        axes.set_ylabel("search score")
        axes.set_xlim(left=-0.02 * places[-1])
        axes.grid(axis="y")
        thousands(axes)
        _history_legend(picture, rungs)
    return picture.svg


def forest(rows: Sequence[HeldoutRow]) -> str:
    """Held-out difference of the winner to every other model, with 95 % intervals.

    Where some rivals are far closer than others, a second panel magnifies the close ones.
    """
    compared = [(row, row.comparison) for row in rows if row.comparison is not None]
    if not compared:
        return ""
    results = [result for _, result in compared]
    close = _close_range(results)
    height = 0.8 + 0.34 * len(compared)
    with drawing("forest", "Held-out differences with intervals", WIDE, height) as picture:
        panels = [picture.axes]
        if close is not None:
            picture.axes.remove()
            panels = list(picture.figure.subplots(1, 2, sharey=True, width_ratios=(3, 2)))
            panels[1].set_xlim(*close)
            panels[1].set_xlabel("close ones, magnified")
        for axes in panels:
            _draw_intervals(axes, results)
        for place, result in enumerate(results):
            text = f"{signed_points(result.difference)} ({interval(result)})"
            where = ("axes fraction", "data")
            panels[-1].annotate(text, (1.03, place), xycoords=where, va="center", color=INK)
        labels = [f"vs {short(row.label, 36)}" for row, _ in compared]
        panels[0].set_yticks(range(len(labels)), labels)
        panels[0].set_ylim(len(labels) - 0.5, -0.5)
        panels[0].set_xlabel("points by which the merged model is better")
    return picture.svg


def _close_range(results: Sequence[Comparison]) -> tuple[float, float] | None:
    """Range in points for the magnified panel; ``None`` if all are of one size."""
    largest = max(max(abs(result.low), abs(result.high)) for result in results)
    close = [result for result in results if max(abs(result.low), abs(result.high)) < largest / 6]
    if all(result.low == result.high for result in close):
        return None  # none, or only the winner itself under another name
    low = min(0.0, *(100 * result.low for result in close))
    high = max(0.0, *(100 * result.high for result in close))
    margin = 0.12 * (high - low)
    return low - margin, high + margin


def _draw_intervals(axes: Axes, results: Sequence[Comparison]) -> None:
    for place, result in enumerate(results):
        colour = _VERDICT_COLOUR[result.verdict]
        axes.plot([100 * result.low, 100 * result.high], [place] * 2, color=colour, linewidth=2)
        marker = _VERDICT_MARKER[result.verdict]
        axes.plot(100 * result.difference, place, marker, color=colour, markersize=5.5)
    axes.axvline(0, color=MUTED, linewidth=1.2)
    axes.grid(axis="x")


def task_scores(objectives: Sequence[Objective], rows: Sequence[HeldoutRow]) -> str:
    """Held-out score per task of the winner and every other model, scaled to [0, 100]."""
    if not rows:
        return ""
    height = 1.15 + 0.42 * len(objectives) + 0.18 * (len(rows) // 4)
    with drawing("tasks", "Held-out score per task and model", WIDE, height) as picture:
        axes = picture.axes
        winner, *others = rows
        for place, row in enumerate(others):
            marker, colour = MARKERS[place % len(MARKERS)], COLOURS[place % len(COLOURS)]
            _task_points(picture, objectives, row, f"tasks-{place}", marker, colour, 42)
        _task_points(picture, objectives, winner, "tasks-best", "o", BLUE, 90)
        labels = [short(task_label(item, tuple(objectives)), 36) for item in objectives]
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlabel("held-out score (100 = best possible)")
        axes.grid(axis="both")
        axes.margins(x=0.04)
        handles, names = axes.get_legend_handles_labels()
        picture.figure.legend(
            [handles[-1], *handles[:-1]],
            [names[-1], *names[:-1]],
            loc="outside upper left",
            ncols=4,
            handletextpad=0.2,
            columnspacing=1.4,
        )
    return picture.svg


def importance_bars(importance: Importance | None) -> str:
    """The most important hyperparameters with the spread over folds."""
    if importance is None:
        return ""
    shown = [share for share in importance.shares if share.share > 0.005][:MAX_PARAMETERS]
    if not shown:
        return ""
    height = 0.7 + 0.27 * len(shown)
    with drawing("importance", "Importance of hyperparameters", WIDE, height) as picture:
        axes = picture.axes
        places = range(len(shown))
        axes.barh(places, [100 * share.share for share in shown], color=BLUE, height=0.62)
        for place, share in enumerate(shown):
            ends = [100 * max(0.0, share.share - share.deviation)]
            ends.append(100 * (share.share + share.deviation))
            axes.plot(ends, [place] * 2, color=INK, linewidth=1)
        axes.set_yticks(places, [parameter_label(share.name) for share in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlabel("share of the cost variance lost when the values are shuffled, %")
        axes.grid(axis="x")
    return picture.svg


def parameter_label(name: str) -> str:
    """A hyperparameter in words where its name is one of layer-wise fusion, at most 60 long."""
    group, value = parse_selection(name), parse_value(name)
    if group is not None:
        text = f"group {group}: method"
    elif value is not None:
        part = REST if value.paramset == OTHER else value.paramset
        model = "" if value.model is None else f" of {value.model}"
        parameter = value.parameter.replace("_", " ")
        text = f"group {value.group} {part}: {value.method.replace('_', ' ')} {parameter}{model}"
    else:
        text = name
    return short(text, 60)


def _rung_colour(place: int, num_rungs: int) -> str:
    return BLUE if place == num_rungs - 1 else _RUNG_COLOURS[place % len(_RUNG_COLOURS)]


def _trial_points(
    picture: Drawing,
    rows: Sequence[tuple[TrialRow, Outcome]],
    against: Budget,
    colour: str,
    name: str,
) -> None:
    """Trials of one rung: diamonds for the initial design, dots for the rest."""
    for start, marker in ((True, "D"), (False, "o")):
        of_kind = [pair for pair in rows if summary.is_start_point(pair[0]) is start]
        if not of_kind:
            continue
        group = f"{name}-start" if start else name
        picture.axes.scatter(
            [spent(row, against) for row, _ in of_kind],
            [100 * (1 - outcome.cost) for _, outcome in of_kind],
            s=20,
            marker=marker,
            facecolor=PAPER if start else colour,
            edgecolor=colour,
            linewidth=1,
            alpha=0.7,
            gid=group,
        )
        picture.tooltips[group] = [_tooltip(row, outcome) for row, outcome in of_kind]


def _history_legend(picture: Drawing, rungs: Sequence[int]) -> None:
    from matplotlib.lines import Line2D

    def dot(marker: str, face: str, edge: str, label: str) -> Line2D:
        return Line2D(
            [], [], linestyle="", marker=marker, color=face, markeredgecolor=edge, label=label
        )

    handles = [Line2D([], [], color=INK, label="best so far")]
    for place, rung in enumerate(rungs):
        colour = _rung_colour(place, len(rungs))
        handles.append(dot("o", colour, colour, f"{rung:,}"))
    handles.append(dot("D", PAPER, MUTED, "start points"))
    picture.figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=len(handles),
        handletextpad=0.5,
        columnspacing=1.2,
        handlelength=1.2,
        markerscale=0.8,
    )


def _tooltip(row: TrialRow, outcome: Outcome) -> str:
    origin = f", {clean(row.trial.origin)}" if row.trial.origin else ""
    documents = count(row.trial.fidelity, "document")
    return f"trial {row.trial.index}: {points(1 - outcome.cost)} on {documents}{origin}"


def spent(row: TrialRow, against: Budget) -> float:
    """What the run had spent when the trial was told."""
    return row.documents if against == "documents" else row.active_seconds


def _task_points(
    picture: Drawing,
    objectives: Sequence[Objective],
    row: HeldoutRow,
    group: str,
    marker: str,
    colour: str,
    size: float,
) -> None:
    scaled = [
        100 * objective.goodness(score.mean)
        for objective, score in zip(objectives, row.scores, strict=True)
    ]
    picture.axes.scatter(
        scaled,
        range(len(scaled)),
        s=size,
        marker=marker,
        color=colour,
        edgecolor=PAPER,
        linewidth=0.8,
        gid=group,
        label=short(row.label, 36),
        zorder=3 if group == "tasks-best" else 2,
    )
    picture.tooltips[group] = [
        f"{clean(row.label)}, {clean(objective.task)}: {task_score(objective, score)}"
        for objective, score in zip(objectives, row.scores, strict=True)
    ]


def thousands(axes: Axes) -> None:
    """Few round numbers with separators on the axis of what was spent."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
