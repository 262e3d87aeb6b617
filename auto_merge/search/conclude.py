"""The end of a search: choose on search documents, then open the held-out documents once.

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
from auto_merge.runs.view import Final, HeldoutRow, RunView
from auto_merge.search.baselines import SINGLE_SCALES, Cast
from auto_merge.search.candidates import Workbench
from auto_merge.statistics import Comparison, PairedTask, paired_comparison
from auto_merge.trial import Objective, TaskScore, Trial, scalar_cost


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
    """The trials whose configurations have the lowest cost at the highest rung that each reached.

    Low rungs are noisy but unbiased, and a search that time ended has good configurations there; so
    the few best are scored on all search documents before the winner is chosen.

    Args:
        view: The run.
        count: Number of finalists; fewer if fewer configurations succeeded.

    Raises:
        AutoMergeError: No trial succeeded.
    """
    latest: dict[int, tuple[float, int, Trial]] = {}
    for row in view.trials:
        if row.outcome is not None and row.outcome.scores:
            latest[row.trial.config_id] = (row.outcome.cost, row.trial.index, row.trial)
    if not latest:
        raise AutoMergeError(f"run {view.name!r}: no trial succeeded, so there is no best model")
    return [trial for _, _, trial in sorted(latest.values(), key=lambda item: item[:2])[:count]]


class Conclusion:
    """Scores the winner and what it has to beat.

    Args:
        workbench: Where candidates are merged.
        evaluator: Scores them.
        objectives: The run's objectives.
        cast: Models of the run.
        search_fidelity: Search documents per task for choosing, the top rung.
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
        search_fidelity: int,
        heldout_fidelity: int,
        should_stop: Callable[[], bool],
        announce: Callable[[str], None],
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._workbench = workbench
        self._evaluator = evaluator
        self._objectives = tuple(objectives)
        self._cast = cast
        self._search_fidelity = search_fidelity
        self._heldout_fidelity = heldout_fidelity
        self._should_stop = should_stop
        self._announce = announce
        self._on_progress = on_progress

    def conclude(self, finalists: Sequence[Finalist], num_openings: int) -> Final:
        """Chooses the winner and compares it with sources and averages on held-out documents.

        Args:
            finalists: Trials that may win, at least one; a tie goes to the earlier one.
            num_openings: How often this run opened the held-out documents before.

        Raises:
            Interrupted: Asked to stop; what was scored so far is in the ledger.
        """
        winner = self.choose(finalists)
        contenders = [Contender("best", winner.recipe), *self._references()]
        searched = [self._mean(self._score(item, "search")) for item in contenders]
        self._announce("opening the held-out documents")
        scores, opened = [], False
        for item in contenders:
            scores.append(self._score(item, "heldout"))
            opened = opened or self._evaluator.last_counts.scored > 0
        rows = tuple(
            HeldoutRow(
                label=item.label,
                scores=tuple(score),
                mean=self._mean(score),
                search_mean=mean,
                comparison=None if index == 0 else self._compare(contenders[0], item),
            )
            for index, (item, score, mean) in enumerate(
                zip(contenders, scores, searched, strict=True)
            )
        )
        return Final(winner.trial, winner.recipe, rows, num_openings + opened)

    def choose(self, finalists: Sequence[Finalist]) -> Finalist:
        """Scores every finalist on all search documents; the best mean wins."""
        means = [
            self._mean(self._score(Contender(f"trial {one.trial.index}", one.recipe), "search"))
            for one in finalists
        ]
        return finalists[means.index(max(means))]

    def _references(self) -> list[Contender]:
        cast = self._cast
        singles = [(f"source: {model}", model) for model in cast.models]
        if cast.base is not None:
            singles.append(("base", cast.base))
        contenders = [Contender(label, cast.single_model(model)) for label, model in singles]
        contenders.append(Contender("uniform average", cast.uniform_average()))
        if cast.base is not None:
            contenders.append(self._best_single_scale())
        return contenders

    def _best_single_scale(self) -> Contender:
        """The scale with the best search score: on a grid, then between its neighbours."""
        means = {scale: self._mean_at_scale(scale) for scale in SINGLE_SCALES}
        best = max(means, key=lambda scale: means[scale])
        for scale in (round(best - 0.05, 2), round(best + 0.05, 2)):
            means[scale] = self._mean_at_scale(scale)
        best = max(means, key=lambda scale: means[scale])
        return self._single_scale(best)

    def _mean_at_scale(self, scale: float) -> float:
        return self._mean(self._score(self._single_scale(scale), "search"))

    def _single_scale(self, scale: float) -> Contender:
        return Contender(f"best single scale ({scale:g})", self._cast.single_scale(scale))

    def _score(
        self, contender: Contender, split: Literal["search", "heldout"]
    ) -> Sequence[TaskScore]:
        label = contender.label.removeprefix("best single ")
        self._announce(f"{label} on {_DOCUMENTS[split]} documents")
        return self._evaluator.evaluate(
            self._workbench.candidate(contender.recipe),
            self._fidelity(split),
            split=split,
            should_stop=self._should_stop,
            on_progress=self._on_progress,
        )

    def _fidelity(self, split: Literal["search", "heldout"]) -> int:
        return self._search_fidelity if split == "search" else self._heldout_fidelity

    def _mean(self, scores: Sequence[TaskScore]) -> float:
        return 1.0 - scalar_cost(self._objectives, scores)

    def _compare(self, winner: Contender, other: Contender) -> Comparison:
        first, second = (
            self._evaluator.document_scores(
                self._workbench.candidate(item.recipe), self._heldout_fidelity, "heldout"
            )
            for item in (winner, other)
        )
        return compare(self._objectives, first, second)


_DOCUMENTS = {"search": "search", "heldout": "held-out"}


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
