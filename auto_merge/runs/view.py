"""What a run looks like to a reader (status, report, export): one frozen picture of the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from auto_merge.recipe.model import Recipe
from auto_merge.statistics import Comparison
from auto_merge.trial import Objective, Outcome, TaskScore, Trial


@dataclass(frozen=True)
class TrialRow:
    """One asked trial.

    Attributes:
        trial: What was asked.
        outcome: What came of it; ``None`` while it is running or was interrupted.
        active_seconds: Active wall seconds of the run, summed over all its processes, at the tell.
        documents: Newly scored documents of the run, all tasks together, at the tell.
    """

    trial: Trial
    outcome: Outcome | None
    active_seconds: float
    documents: int


@dataclass(frozen=True)
class HeldoutRow:
    """One model on the held-out documents.

    Attributes:
        label: ``"best"``, ``"source: reverse"``, ``"base"``, ``"uniform average"``,
            ``"best single scale (0.4)"``; of a multi-objective run also ``"single scale (0.7)"``.
        scores: Held-out scores, objective order.
        mean: Weighted mean of the scaled scores, in [0, 1].
        search_mean: The same on the search documents; ``None`` if it was never scored on them.
        comparison: Winner against this model; ``None`` for the winner itself.
    """

    label: str
    scores: tuple[TaskScore, ...]
    mean: float
    search_mean: float | None
    comparison: Comparison | None


@dataclass(frozen=True)
class FloorResult:
    """A floor, judged on held-out documents.

    Attributes:
        place: Position of the objective that carries the floor.
        model: Role name of the model that sets it.
        margin: How much worse than that model is allowed, as a difference of scaled scores.
        comparison: Merged model minus that model on this objective, 95 % interval; ``None`` if
            that model could not be scored.
    """

    place: int
    model: str
    margin: float
    comparison: Comparison | None

    @property
    def verdict(self) -> Literal["kept", "violated", "undetermined"]:
        """Kept or violated if the whole interval lies on that side of the floor."""
        if self.comparison is not None:
            if self.comparison.low >= -self.margin:
                return "kept"
            if self.comparison.high < -self.margin:
                return "violated"
        return "undetermined"


@dataclass(frozen=True)
class FrontMember:
    """A member of the Pareto front.

    Attributes:
        trial: Its trial.
        recipe: Its recipe.
        row: Its held-out scores; the label is ``"trial 12"``.
        search_scores: Scores on all search documents, objective order.
        comparisons: Held-out difference to the best source of each objective, intervals that hold
            simultaneously for all members and objectives; ``None`` where there is no such source.
        floors: One per floor.
    """

    trial: Trial
    recipe: Recipe
    row: HeldoutRow
    search_scores: tuple[TaskScore, ...]
    comparisons: tuple[Comparison | None, ...]
    floors: tuple[FloorResult, ...] = ()


@dataclass(frozen=True)
class Front:
    """Result of a multi-objective search. Everything in it was chosen on search documents alone.

    Hypervolumes are shares of the box between the reference point and perfection, in [0, 1].

    Attributes:
        members: The exported winner first: those that keep their floors on search documents first,
            then by weighted mean there.
        rivals: Label of the best source of each objective, ``"source: sort"``; ``""`` if none could
            be scored.
        reference: Cost (one minus scaled score) of the worst source of each objective.
        size: Number of members and of baselines whose hypervolumes are compared.
        baselines: Labels of those baselines among the held-out rows.
        hypervolume: Held-out hypervolume of ``size`` members.
        baseline_hypervolume: Held-out hypervolume of ``baselines``.
        search_hypervolume: Hypervolume of the same members on search documents.
    """

    members: tuple[FrontMember, ...]
    rivals: tuple[str, ...]
    reference: tuple[float, ...]
    size: int
    baselines: tuple[str, ...]
    hypervolume: float
    baseline_hypervolume: float
    search_hypervolume: float


@dataclass(frozen=True)
class Final:
    """What is known when a search is complete.

    Attributes:
        trial: The winning trial (chosen on search documents alone).
        recipe: Its recipe.
        heldout: Winner first, then sources and baselines.
        num_openings: How often held-out documents were scored in this run.
        left_out: What could not be scored, as ``what: reason``.
        floors: One per floor, for the winner.
        front: The Pareto front; ``None`` for a single-objective run.
    """

    trial: Trial
    recipe: Recipe
    heldout: tuple[HeldoutRow, ...]
    num_openings: int
    left_out: tuple[str, ...]
    floors: tuple[FloorResult, ...] = ()
    front: Front | None = None


@dataclass(frozen=True)
class RunView:
    """A run as a reader sees it.

    Attributes:
        name: Run name.
        state: Whether a process is working on it, it was stopped, or it is done.
        manifest: Resolved config, versions, source fingerprints, seeds (see the manifest file);
            ``manifest["rungs"]`` lists the fidelities in ascending order.
        objectives: The run's objectives.
        trials: In order of asks.
        max_trials: Planned number of trials; ``None`` if only time limits the run.
        max_seconds: Planned active seconds; ``None`` if only trials limit the run.
        active_seconds: Active wall seconds so far, over all processes.
        waiting_seconds: Part of ``active_seconds`` in which nothing was merged or evaluated.
        final: Result; ``None`` until the search is complete.
        incumbent_recipe: Recipe of the current incumbent, for a heat map while running.
        reference: Reference point of hypervolumes of a multi-objective run, see :class:`Front`;
            empty until the sources have been scored on all search documents.
    """

    name: str
    state: Literal["running", "stopped", "complete"]
    manifest: Mapping[str, Any]
    objectives: tuple[Objective, ...]
    trials: tuple[TrialRow, ...]
    max_trials: int | None
    max_seconds: float | None
    active_seconds: float
    waiting_seconds: float
    final: Final | None
    incumbent_recipe: Recipe | None
    reference: tuple[float, ...] = ()

    @property
    def multi_objective(self) -> bool:
        """Whether the search looks for a Pareto front, as the manifest says."""
        return bool(self.manifest.get("multi_objective", False))
