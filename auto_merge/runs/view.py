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
            ``"best single scale (0.4)"``.
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
class Final:
    """What is known when a search is complete.

    Attributes:
        trial: The winning trial (chosen on search documents alone).
        recipe: Its recipe.
        heldout: Winner first, then sources and baselines.
        num_openings: How often held-out documents were scored in this run.
        left_out: What could not be scored, as ``what: reason``.
    """

    trial: Trial
    recipe: Recipe
    heldout: tuple[HeldoutRow, ...]
    num_openings: int
    left_out: tuple[str, ...]


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
