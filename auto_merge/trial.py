"""The values that travel around the search loop: objective, trial, status, score, outcome.

All of them are frozen, hold only JSON-able content and know nothing of torch, SMAC or lm-eval.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Value = float | int | str
"""A hyperparameter value as it is stored and shown."""

FAILURE_COST = 2.0
"""Cost of a failed trial; feasible costs lie in [0, 1], so failures rank behind all of them."""


class Status(str, enum.Enum):
    """How a trial ended. Only ``SUCCESS`` carries scores."""

    SUCCESS = "success"
    CRASHED = "crashed"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    INVALID_WEIGHTS = "invalid_weights"
    INFEASIBLE = "infeasible"


@dataclass(frozen=True)
class Floor:
    """A constraint: not worse than a given model by more than a margin.

    Attributes:
        model: Role name of a source or of the base.
        margin: How much worse is allowed, in the metric's own unit; >= 0.
    """

    model: str
    margin: float


@dataclass(frozen=True)
class Objective:
    """One task metric that the search improves.

    Attributes:
        task: lm-eval task or group name.
        metric: Metric key as lm-eval prints it, ``"acc,none"``.
        direction: Whether larger or smaller values are better.
        bounds: Worst possible to best possible range of the metric as ``(low, high)``; scores are
            scaled to [0, 1] with it.
        weight: Share in the weighted mean of a single-objective run, factor on the normalised cost
            in a multi-objective one; > 0.
        floor: Constraint on this metric, if there is one. It is judged, never searched for.
    """

    task: str
    metric: str
    direction: Literal["maximize", "minimize"] = "maximize"
    bounds: tuple[float, float] = (0.0, 1.0)
    weight: float = 1.0
    floor: Floor | None = None

    def goodness(self, value: float) -> float:
        """Scales a value to [0, 1] where 1 is best; values outside the bounds are clipped."""
        low, high = self.bounds
        scaled = min(max((value - low) / (high - low), 0.0), 1.0)
        return scaled if self.direction == "maximize" else 1.0 - scaled

    def scaled_margin(self) -> float:
        """Margin of the floor as a difference of scaled scores; 0.0 without a floor."""
        low, high = self.bounds
        return 0.0 if self.floor is None else self.floor.margin / (high - low)


@dataclass(frozen=True)
class TaskScore:
    """Mean of one metric over the documents scored so far.

    Attributes:
        task: Task or group name.
        metric: Metric key, ``"acc,none"``.
        mean: Weighted mean over documents, in the metric's own unit.
        num_documents: Number of documents behind ``mean``.
        standard_error: Standard error of ``mean``; 0.0 when fewer than two documents.
    """

    task: str
    metric: str
    mean: float
    num_documents: int
    standard_error: float


@dataclass(frozen=True)
class Trial:
    """One configuration to be evaluated at one fidelity.

    Attributes:
        index: Position in the order of asks, from 0.
        config_id: Number of the configuration, from 0, shared by its trials at several rungs.
        configuration: Active hyperparameters only, name -> value.
        fidelity: Number of documents per configured task.
        bracket: Hyperband bracket counter, from 0.
        stage: Stage inside the bracket, 0 is its lowest rung.
        origin: Where the configuration came from: ``"initial design: uniform average"``,
            ``"smac"``, ``"random"``.
    """

    index: int
    config_id: int
    configuration: Mapping[str, Value]
    fidelity: int
    bracket: int = 0
    stage: int = 0
    origin: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON-able dictionary; ``Trial(**d)`` restores it."""
        return {**asdict(self), "configuration": dict(self.configuration)}


@dataclass(frozen=True)
class Outcome:
    """What came of a trial.

    Attributes:
        status: How it ended.
        scores: One per objective, in objective order; empty unless ``status`` is success.
        cost: The minimised number, see :func:`scalar_cost`; :data:`FAILURE_COST` for failures.
        seconds: Wall seconds of merging plus evaluation.
        num_new_documents: Documents really scored now (not found in the ledger).
        error: One line for people; empty on success.
        traceback: Full traceback for logs; empty on success.
        timings: Wall seconds by phase (``"merge"``, ``"evaluate"``, ...).
        digest: Digest of the merged model that the scores belong to; empty if it was never known.
    """

    status: Status
    scores: tuple[TaskScore, ...] = ()
    cost: float = FAILURE_COST
    seconds: float = 0.0
    num_new_documents: int = 0
    error: str = ""
    traceback: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)
    digest: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON-able dictionary, restored by :meth:`from_json`."""
        return {**asdict(self), "status": self.status.value, "timings": dict(self.timings)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """Restores what :meth:`to_json` wrote."""
        fields = dict(data)
        fields["status"] = Status(fields["status"])
        fields["scores"] = tuple(TaskScore(**score) for score in fields["scores"])
        return cls(**fields)


def objective_costs(
    objectives: Sequence[Objective], scores: Sequence[TaskScore]
) -> tuple[float, ...]:
    """Shortfall ``1 - y`` of every objective in [0, 1], y being the scaled score.

    Args:
        objectives: The run's objectives.
        scores: Their scores, same order and length.
    """
    return tuple(
        1.0 - objective.goodness(score.mean)
        for objective, score in zip(objectives, scores, strict=True)
    )


def scalar_cost(objectives: Sequence[Objective], scores: Sequence[TaskScore]) -> float:
    """Weighted mean shortfall ``sum w (1 - y) / sum w`` in [0, 1], y being the scaled score.

    Args:
        objectives: The run's objectives.
        scores: Their scores, same order and length.
    """
    total = math.fsum(objective.weight for objective in objectives)
    lost = math.fsum(
        objective.weight * (1.0 - objective.goodness(score.mean))
        for objective, score in zip(objectives, scores, strict=True)
    )
    return lost / total
