"""Runs one trial: merge, evaluate, and say what went wrong if something did."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace

from auto_merge.errors import (
    AutoMergeError,
    CheckpointError,
    Interrupted,
    InvalidWeightsError,
    RecipeError,
    RunError,
    SandboxError,
    TrialTimeoutError,
)
from auto_merge.evaluation.evaluator import HarnessEvaluator
from auto_merge.recipe.model import Recipe
from auto_merge.search.candidates import PlannedCandidate, Workbench
from auto_merge.trial import Objective, Outcome, Status, TaskScore, Trial, scalar_cost

NOT_THE_TRIALS_FAULT = (Interrupted, RunError, CheckpointError, SandboxError)
"""A stop, a full disk, a damaged ledger, a source that went away, a sandbox that does not start:
they say nothing about the model, so a trial stays untold and is evaluated again when the run goes
on."""

_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


class LocalWorker:
    """Runs trials in this process.

    Args:
        workbench: Where candidates are merged.
        evaluator: Scores them.
        objectives: The run's objectives.
        trial_seconds: Time limit of one trial; ``None`` for none. Checked between chunks.
        max_layers: Deeper recipes are infeasible; ``None`` for any depth.
        should_stop: Polled between chunks.
        on_progress: Called with (documents done, documents in all) of the trial.
    """

    def __init__(
        self,
        workbench: Workbench,
        evaluator: HarnessEvaluator,
        objectives: Sequence[Objective],
        *,
        trial_seconds: float | None = None,
        max_layers: int | None = None,
        should_stop: Callable[[], bool] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._workbench = workbench
        self._evaluator = evaluator
        self._objectives = tuple(objectives)
        self._trial_seconds = trial_seconds
        self._max_layers = max_layers
        self._should_stop = should_stop
        self._on_progress = on_progress
        self._scored = 0

    def run(self, trial: Trial, recipe: Recipe) -> Outcome:
        """Merges and evaluates; a failure is a status with a traceback.

        Running out of memory is tried once more with the resident model freed.

        Raises:
            Interrupted: Somebody asked to stop; what was scored so far is in the ledger.
            RunError: The ledger cannot be read or written.
            CheckpointError: A source cannot be read any more.
        """
        outcome = self._attempt(trial, recipe)
        if outcome.status is Status.OUT_OF_MEMORY:
            self._workbench.free()
            outcome = self._attempt(trial, recipe)
        return outcome

    def _attempt(self, trial: Trial, recipe: Recipe) -> Outcome:
        started = time.monotonic()
        merged_before = self._workbench.merge_seconds
        made = Outcome(Status.SUCCESS)
        self._scored = 0
        try:
            self._check_depth(recipe)
            candidate = self._workbench.candidate(recipe)
            made = replace(made, digest=candidate.digest)
            scores = self._evaluate(candidate, trial.fidelity, started)
            made = replace(made, scores=scores, cost=scalar_cost(self._objectives, scores))
        except NOT_THE_TRIALS_FAULT:
            raise
        except Exception as error:  # noqa: BLE001 - the one boundary where failures become statuses
            made = replace(
                made, status=status_of(error), error=one_line(error), traceback=_format(error)
            )
        seconds = time.monotonic() - started
        merging = self._workbench.merge_seconds - merged_before
        return replace(
            made,
            seconds=seconds,
            num_new_documents=self._scored,
            timings={"merge": merging, "evaluate": seconds - merging},
        )

    def _check_depth(self, recipe: Recipe) -> None:
        if self._max_layers is not None and recipe.num_layers > self._max_layers:
            raise RecipeError(
                f"{recipe.num_layers} layers are more than the {self._max_layers} that are allowed"
            )

    def _evaluate(
        self, candidate: PlannedCandidate, fidelity: int, started: float
    ) -> tuple[TaskScore, ...]:
        limit = self._trial_seconds
        try:
            return self._evaluator.evaluate(
                candidate,
                fidelity,
                should_stop=self._should_stop,
                deadline=None if limit is None else started + limit,
                on_progress=self._on_progress,
            )
        finally:
            self._scored = self._evaluator.last_counts.scored


def status_of(error: Exception) -> Status:
    """The status that an exception stands for."""
    if isinstance(error, InvalidWeightsError):
        return Status.INVALID_WEIGHTS
    if isinstance(error, TrialTimeoutError):
        return Status.TIMEOUT
    if isinstance(error, MemoryError) or any(word in str(error).lower() for word in _MEMORY_WORDS):
        return Status.OUT_OF_MEMORY
    if isinstance(error, RecipeError):
        return Status.INFEASIBLE
    return Status.CRASHED


def one_line(error: BaseException) -> str:
    """The error as one line, with its type unless it is one of ours."""
    text = " ".join(str(error).split())
    return text if isinstance(error, AutoMergeError) and text else f"{type(error).__name__}: {text}"


def _format(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
