"""The end of a single-objective search: choose on search documents, then open the held-out ones.

The winner and the scale of the best single-scale merge are chosen on search documents alone. Only
then are winner, sources and averages scored on the held-out documents and compared in pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from auto_merge.errors import AutoMergeError
from auto_merge.evaluation.evaluator import HarnessEvaluator
from auto_merge.evaluation.scores import DocumentScores
from auto_merge.recipe.model import Recipe
from auto_merge.runs.view import Final, FloorResult, HeldoutRow, RunView
from auto_merge.search.baselines import SINGLE_SCALES, Cast
from auto_merge.search.candidates import Workbench
from auto_merge.search.worker import NOT_THE_TRIALS_FAULT, one_line
from auto_merge.statistics import Comparison, PairedTask, paired_comparison
from auto_merge.trial import Objective, Outcome, Status, TaskScore, Trial, scalar_cost


@dataclass(frozen=True)
class Contender:
    """A recipe with the name that it has in the result table."""

    label: str
    recipe: Recipe


@dataclass(frozen=True)
class Finalist:
    """A trial that may win, with its recipe."""

    trial: Trial
    recipe: Recipe


def finalists(view: RunView, count: int = 4) -> list[Trial]:
    """The trials that may win: the best at the highest rung, and the best below it.

    Low rungs are noisy but unbiased, and a search that time ended has good configurations there; so
    the few best of them are scored on all search documents as well before the winner is chosen. A
    configuration whose latest trial failed cannot win.

    Args:
        view: The run.
        count: Largest number at the highest rung, and of others; >= 1.

    Returns:
        Best at the highest rung first, by cost, then by number.

    Raises:
        AutoMergeError: No trial succeeded.
    """
    good = latest_successes(view)
    top = max(trial.fidelity for trial, _ in good)
    above = [trial for trial, _ in good if trial.fidelity == top]
    below = [trial for trial, _ in good if trial.fidelity < top]
    return above[:count] + below[:count]


def latest_successes(view: RunView) -> list[tuple[Trial, Outcome]]:
    """The latest trial of every configuration, if it succeeded; by cost, then by number.

    Raises:
        AutoMergeError: No trial succeeded.
    """
    latest = {row.trial.config_id: row for row in view.trials if row.outcome is not None}
    good = [
        (row.trial, row.outcome)
        for row in latest.values()
        if row.outcome is not None and row.outcome.status is Status.SUCCESS
    ]
    if not good:
        raise AutoMergeError(f"run {view.name!r}: no trial succeeded, so there is no best model")
    return sorted(good, key=lambda pair: (pair[1].cost, pair[0].index))


class Conclusion:
    """Scores the winner and what it has to beat.

    Args:
        workbench: Where candidates are merged.
        evaluator: Scores them.
        objectives: The run's objectives.
        cast: Models of the run.
        rungs: Search documents per task of every rung, ascending; choosing uses the top one.
        heldout_fidelity: Held-out documents per task.
        should_stop: Polled between chunks.
        announce: Told what is being done.
        on_progress: Called with (documents done, documents in all).
    """

    def __init__(
        self,
        workbench: Workbench,
        evaluator: HarnessEvaluator,
        objectives: Sequence[Objective],
        cast: Cast,
        *,
        rungs: Sequence[int],
        heldout_fidelity: int,
        should_stop: Callable[[], bool],
        announce: Callable[[str], None],
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._workbench = workbench
        self._evaluator = evaluator
        self._objectives = tuple(objectives)
        self._cast = cast
        self._rungs = tuple(rungs)
        self._heldout_fidelity = heldout_fidelity
        self._should_stop = should_stop
        self._announce = announce
        self._on_progress = on_progress
        self._left_out: list[str] = []
        self._floor_scores: dict[str, Sequence[TaskScore] | None] = {}

    def conclude(self, winner: Finalist, num_openings: int) -> Final:
        """Compares the winner with sources and averages on held-out documents.

        A source or average that cannot be scored is left out; the result says so.

        Args:
            winner: The chosen trial.
            num_openings: How many winners of this run saw the held-out documents, this one
                included.

        Raises:
            Interrupted: Asked to stop; what was scored so far is in the ledger.
            AutoMergeError: The winner itself cannot be scored.
        """
        searched = [
            (item, mean)
            for item in (Contender("best", winner.recipe), *self._references())
            if (mean := self._search_mean(item)) is not None
        ]
        self._announce("opening the held-out documents")
        scored = [
            (item, mean, found)
            for item, mean in searched
            if (found := self._attempt(item, "heldout")) is not None
        ]
        best = scored[0][0] if scored else None
        if best is None or best.recipe is not winner.recipe:
            raise AutoMergeError(f"trial {winner.trial.index} won but cannot be scored again")
        rows = tuple(
            HeldoutRow(
                label=item.label,
                scores=tuple(found),
                mean=self._mean(found),
                search_mean=mean,
                comparison=None if item is best else self._compare(best, item),
            )
            for item, mean, found in scored
        )
        return Final(
            winner.trial,
            winner.recipe,
            rows,
            num_openings,
            tuple(dict.fromkeys(self._left_out)),
            self._floors(best, [item for item, _, _ in scored]),
        )

    def choose(self, finalists: Sequence[Finalist]) -> Finalist:
        """Scores every finalist on all search documents; the best mean wins, a tie the first.

        One whose score there lies below a floor ranks behind those that keep more floors.

        Raises:
            Interrupted: Asked to stop.
            AutoMergeError: None of them can be scored.
        """
        best: tuple[tuple[int, float], Finalist] | None = None
        for one in finalists:
            found = self._attempt(Contender(f"trial {one.trial.index}", one.recipe), "search")
            if found is None:
                continue
            rank = -self._num_missed(found), self._mean(found)
            if best is None or rank > best[0]:
                best = rank, one
        if best is None:
            raise AutoMergeError("none of the best trials can be scored on all search documents")
        return best[1]

    def _num_missed(self, scores: Sequence[TaskScore]) -> int:
        """Number of floors that a model with these scores on all search documents falls below."""
        missed = 0
        for place, objective in enumerate(self._objectives):
            if objective.floor is None:
                continue
            model = objective.floor.model
            if model not in self._floor_scores:
                alone = Contender(f"source: {model}", self._cast.single_model(model))
                self._floor_scores[model] = self._attempt(alone, "search")
            limit = self._floor_scores[model]
            if limit is not None:
                lost = objective.goodness(limit[place].mean) - objective.goodness(
                    scores[place].mean
                )
                missed += lost > objective.scaled_margin() + _ROUNDING
        return missed

    def _floors(self, item: Contender, scored: Sequence[Contender]) -> tuple[FloorResult, ...]:
        """Judges a model on held-out documents; ``scored`` are the models that were scored."""
        results = []
        for place, objective in enumerate(self._objectives):
            if objective.floor is None:
                continue
            model = objective.floor.model
            alone = self._cast.single_model(model)
            comparison = None
            if any(other.recipe == alone for other in scored):
                source = Contender(model, alone)
                same = self._are_one(item, source)
                tasks = [] if same else self._paired_tasks(place, item, source)
                comparison = NO_DIFFERENCE if same else paired_comparison(tasks)
            results.append(FloorResult(place, model, objective.scaled_margin(), comparison))
        return tuple(results)

    def _references(self) -> list[Contender]:
        return self._unsearched() + ([self._best_single_scale()] if self._cast.base else [])

    def _unsearched(self) -> list[Contender]:
        """Sources, base and average: models without a parameter that could be chosen."""
        cast = self._cast
        singles = [(f"source: {model}", model) for model in cast.models]
        if cast.base is not None:
            singles.append(("base", cast.base))
        contenders = [Contender(label, cast.single_model(model)) for label, model in singles]
        return [*contenders, Contender("uniform average", cast.uniform_average())]

    def _best_single_scale(self) -> Contender:
        """The scale with the best search score.

        A grid at the lowest rung, the best few of it on all search documents, and then the
        neighbours of the best one.
        """
        rough = {scale: self._mean_at_scale(scale, self._rungs[0]) for scale in SINGLE_SCALES}
        promising = sorted(rough, key=lambda scale: -rough[scale])[:_PROMISING_SCALES]
        means = {scale: self._mean_at_scale(scale, self._rungs[-1]) for scale in promising}
        best = max(means, key=lambda scale: means[scale])
        for scale in (round(best - 0.05, 2), round(best + 0.05, 2)):
            means[scale] = self._mean_at_scale(scale, self._rungs[-1])
        best = max(means, key=lambda scale: means[scale])
        return self._single_scale(best)

    def _mean_at_scale(self, scale: float, fidelity: int) -> float:
        mean = self._search_mean(self._single_scale(scale), fidelity)
        return -math.inf if mean is None else mean

    def _single_scale(self, scale: float) -> Contender:
        return Contender(f"best single scale ({scale:g})", self._cast.single_scale(scale))

    def _search_mean(self, contender: Contender, fidelity: int | None = None) -> float | None:
        found = self._attempt(contender, "search", fidelity)
        return None if found is None else self._mean(found)

    def _attempt(
        self,
        contender: Contender,
        split: Literal["search", "heldout"],
        fidelity: int | None = None,
    ) -> Sequence[TaskScore] | None:
        """Scores a contender; ``None`` if it fails by itself, as a trial might."""
        label = contender.label.removeprefix("best single ")
        self._announce(f"{label} on {_DOCUMENTS[split]} documents")
        try:
            return self._evaluator.evaluate(
                self._workbench.candidate(contender.recipe),
                fidelity or self._fidelity(split),
                split=split,
                should_stop=self._should_stop,
                on_progress=self._on_progress,
            )
        except NOT_THE_TRIALS_FAULT:
            raise
        except Exception as error:  # noqa: BLE001 - as in a trial: one failure is not the run's
            self._left_out.append(f"{label}: {one_line(error)}")
            self._announce(f"left out: {self._left_out[-1]}")
            return None

    def _fidelity(self, split: Literal["search", "heldout"]) -> int:
        return self._rungs[-1] if split == "search" else self._heldout_fidelity

    def _mean(self, scores: Sequence[TaskScore]) -> float:
        return 1.0 - scalar_cost(self._objectives, scores)

    def _compare(self, winner: Contender, other: Contender) -> Comparison:
        if self._are_one(winner, other):
            return NO_DIFFERENCE
        return compare(self._objectives, self._documents(winner), self._documents(other))

    def _are_one(self, first: Contender, second: Contender) -> bool:
        """Whether two recipes give the same model, which no document can tell apart."""
        one, two = (self._workbench.candidate(item.recipe) for item in (first, second))
        return one.digest == two.digest

    def _paired_tasks(self, place: int, one: Contender, other: Contender) -> list[PairedTask]:
        """Held-out documents of one objective, one model minus the other."""
        mine, theirs = self._documents(one)[place], self._documents(other)[place]
        return list(_paired(self._objectives[place], mine, theirs))

    def _documents(self, item: Contender) -> Sequence[DocumentScores]:
        return self._evaluator.document_scores(
            self._workbench.candidate(item.recipe), self._heldout_fidelity, "heldout"
        )


NO_DIFFERENCE = Comparison(0.0, 0.0, 0.0, "not distinguishable")
"""Two recipes of one model."""
_PROMISING_SCALES = 4
MOST_SEARCHED = 8 + _PROMISING_SCALES + 2
"""Models at most that the conclusion scores on all search documents, beside the references."""
_DOCUMENTS = {"search": "search", "heldout": "held-out"}
_ROUNDING = 1e-9


def compare(
    objectives: Sequence[Objective],
    first: Sequence[DocumentScores],
    second: Sequence[DocumentScores],
) -> Comparison:
    """Compares two models over all objectives on the same documents.

    Args:
        objectives: The run's objectives.
        first: Scores of the first model, objective order.
        second: Scores of the other one on the same documents.

    Returns:
        First minus second: weighted mean paired difference with its 95 % interval.
    """
    tasks: list[PairedTask] = []
    for objective, one, other in zip(objectives, first, second, strict=True):
        tasks += _paired(objective, one, other)
    return paired_comparison(tasks)


def _paired(
    objective: Objective, one: DocumentScores, other: DocumentScores
) -> Iterator[PairedTask]:
    """One paired task per leaf, so that leaves count as the group weighs them."""
    assert one.documents == other.documents, "both models are scored on the same documents"
    scaled = [
        objective.goodness(mine) - objective.goodness(theirs)
        for mine, theirs in zip(one.values, other.values, strict=True)
    ]
    for leaf in dict.fromkeys(one.leaves):
        here = [index for index, name in enumerate(one.leaves) if name == leaf]
        yield PairedTask(
            weight=objective.weight * math.fsum(one.weights[index] for index in here),
            differences=[scaled[index] for index in here],
            clusters=None if one.clusters is None else one.clusters[here],
        )
