"""Pareto front, hypervolume and floors in numbers and sentences; functions of a view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from auto_merge.reports.wording import clean, interval, percent_of_box, points, task_label
from auto_merge.runs.view import FloorResult, FrontMember, RunView, TrialRow
from auto_merge.statistics import contribution
from auto_merge.statistics.hypervolume import box_volume
from auto_merge.statistics.pareto import front
from auto_merge.trial import Objective, Outcome, Status, objective_costs

SOURCE = "source: "


@dataclass(frozen=True)
class VolumeStep:
    """A change of the hypervolume of the search front.

    Attributes:
        row: The trial that changed it.
        share: Hypervolume on search documents as a share of the box below the reference point.
    """

    row: TrialRow
    share: float


def told(view: RunView) -> list[tuple[TrialRow, Outcome]]:
    """Successful trials in the order of tells."""
    rows = [
        (row, row.outcome)
        for row in view.trials
        if row.outcome is not None and row.outcome.status is Status.SUCCESS
    ]
    return sorted(rows, key=lambda pair: (pair[0].active_seconds, pair[0].trial.index))


def current_front(view: RunView) -> list[tuple[TrialRow, Outcome]]:
    """The Pareto front of the highest rung so far on search documents, best mean first."""
    rows = told(view)
    top = max((row.trial.fidelity for row, _ in rows), default=0)
    rows = [pair for pair in rows if pair[0].trial.fidelity == top]
    rows.sort(key=lambda pair: (pair[1].cost, pair[0].trial.index))
    costs = [objective_costs(view.objectives, outcome.scores) for _, outcome in rows]
    return [rows[place] for place in front(costs)]


def hypervolume_steps(view: RunView) -> list[VolumeStep]:
    """Hypervolume of the front of the highest rung so far, in the order of tells.

    It may fall when a higher rung is reached, as the score of the incumbent may. Empty without a
    reference point.
    """
    box = box_volume(view.reference)
    if not view.reference or not box:
        return []
    steps: list[VolumeStep] = []
    rung, volume = 0, 0.0
    points: list[tuple[float, ...]] = []
    for row, outcome in told(view):
        if row.trial.fidelity < rung:
            continue
        if row.trial.fidelity > rung:
            rung, volume, points = row.trial.fidelity, 0.0, []
        point = objective_costs(view.objectives, outcome.scores)
        added = contribution(point, points, view.reference)
        if added > 0 or not points:
            volume += added
            points.append(point)
            points = [points[place] for place in front(points)]
            steps.append(VolumeStep(row, volume / box))
    return steps


def rival_names(view: RunView) -> tuple[str, ...]:
    """Role name of the best source per objective; ``""`` where there is none."""
    if view.final is None or view.final.front is None:
        return ()
    return tuple(clean(label.removeprefix(SOURCE)) for label in view.final.front.rivals)


def front_sentence(view: RunView) -> str:
    """What the search found apart from one winner; empty for a single-objective run."""
    if view.final is None:
        if not view.multi_objective:
            return ""
        members = len(current_front(view))
        return f"The front so far holds {_models(members)}." if members else ""
    found = view.final.front
    if found is None:
        return ""
    text = f"The Pareto front holds {_models(len(found.members))}"
    if not found.size:
        return f"{text}."
    return (
        f"{text}: {_cover(found.size)} {percent_of_box(found.hypervolume)} of the space between "
        f"the worst sources and perfection on held-out documents, {_as_many(found.size)} sources, "
        f"averages and single scales {percent_of_box(found.baseline_hypervolume)}."
    )


def member_sentence(view: RunView, member: FrontMember) -> str:
    """What to say about a member of the front that is not the winner."""
    assert view.final is not None, "a member is part of a result"
    assert view.final.front is not None, "a member is part of a front"
    size = len(view.final.front.members)
    text = f"One of {_models(size)} on the Pareto front of the run {clean(view.name)}."
    parts = [
        f"{task_label(objective, view.objectives)} {interval(compared)} (vs {rival})"
        for objective, compared, rival in zip(
            view.objectives, member.comparisons, rival_names(view), strict=True
        )
        if compared is not None
    ]
    if not parts:
        return text
    listed = ", ".join(parts)
    return (
        f"{text} Against the best source of each task, in points (intervals that hold at once with "
        f"95 % probability): {listed}."
    )


def floor_text(objectives: tuple[Objective, ...], result: FloorResult) -> str:
    """``"floor on sort (at most 2.0 points below source a)"``."""
    task = task_label(objectives[result.place], objectives)
    return f"floor on {task} (at most {points(result.margin)} points below {clean(result.model)})"


def floor_verdict(member: FrontMember) -> str:
    """The worst verdict on the floors of a member; empty without floors."""
    verdicts = [result.verdict for result in member.floors]
    order = ("violated", "undetermined", "kept")
    return next((verdict for verdict in order if verdict in verdicts), "")


def floor_sentences(view: RunView) -> list[str]:
    """What became of the floors of the exported model, one sentence each."""
    results: Sequence[FloorResult] = () if view.final is None else view.final.floors
    sentences = []
    for result in results:
        text = floor_text(view.objectives, result)
        if result.verdict == "undetermined":
            sentences.append(f"The documents cannot tell whether it keeps the {text}.")
        else:
            verb = "keeps" if result.verdict == "kept" else "violates"
            sentences.append(f"It {verb} the {text}.")
    return sentences


def _models(number: int) -> str:
    return "1 model" if number == 1 else f"{number} models"


def _as_many(size: int) -> str:
    return "the one chosen among" if size == 1 else f"the {size} chosen among"


def _cover(size: int) -> str:
    return "it covers" if size == 1 else f"{size} of them cover"
