"""Two models on the same documents: weighted mean difference with an interval and a verdict.

For tasks t with weights w_t (summing to 1) and paired differences of n_t documents,

    D = sum w_t mean_t,    SE^2 = sum w_t^2 V_t,    D +- t_df SE,

where V_t is the variance of the mean (s_t^2 / n_t for single documents; the bias-reduced cluster
estimate CR2 of Bell & McCaffrey 2002 where documents share a passage) and df follows Welch (1947)
and Satterthwaite (1946).

Near a ceiling nearly all differences are equal and s_t says too little. A task with fewer than ten
documents that differ from its most common difference therefore gets pseudo-documents, a share of a
won and a lost one, as in Bonett & Price (2012) for one task and Price & Bonett (2004) for K. With
fewer than ten discordant documents in all, a difference is moreover called significant only if an
exact sign-flip test (McNemar's, generalised to weights and graded scores) agrees.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

FEW = 10
"""Below this many informative documents the normal theory needs help."""


@dataclass(frozen=True)
class Comparison:
    """One model minus another on the same documents.

    Attributes:
        difference: Weighted mean paired difference in scaled score (0.02 = two points).
        low: Lower end of the interval.
        high: Upper end of the interval.
        verdict: ``"better"`` if the interval lies above zero, ``"worse"`` if below.
    """

    difference: float
    low: float
    high: float
    verdict: Literal["better", "worse", "not distinguishable"]


@dataclass(frozen=True)
class PairedTask:
    """Paired differences of one task.

    Attributes:
        weight: Weight of the task; >= 0, at least one task has weight > 0.
        differences: Scaled score of the first model minus that of the second, shape ``[n]`` with
            n >= 1, in [-1, 1].
        clusters: Label per document, shape ``[n]``; documents with equal labels share a passage.
            ``None``: documents are independent.
    """

    weight: float
    differences: npt.ArrayLike
    clusters: npt.ArrayLike | None = None


@dataclass(frozen=True)
class _Units:
    """Independent units (documents or clusters) of a task: summed difference and size of each."""

    weight: float
    sums: Floats
    sizes: Floats

    @property
    def contributions(self) -> Floats:
        """What each unit adds to the weighted mean difference."""
        return self.sums * (self.weight / float(self.sizes.sum()))


def paired_comparison(tasks: Sequence[PairedTask], confidence: float = 0.95) -> Comparison:
    """Compares two models on the documents that both were scored on.

    Args:
        tasks: Paired differences per task; weights need not sum to one.
        confidence: Coverage of the two-sided interval, in (0, 1).

    Raises:
        ValueError: No task with positive weight, an empty task, a difference that is not finite or
            outside [-1, 1], a negative weight, or clusters of another length.
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    units = _normalised(tasks)
    difference = math.fsum(float(unit.contributions.sum()) for unit in units)
    low, high = _interval(units, confidence)
    low, high = max(min(low, difference), -1.0), min(max(high, difference), 1.0)
    if _exact_p_value(units) > 1.0 - confidence:
        low, high = min(low, 0.0), max(high, 0.0)
    if low > 0.0:
        return Comparison(difference, low, high, "better")
    if high < 0.0:
        return Comparison(difference, low, high, "worse")
    return Comparison(difference, low, high, "not distinguishable")


def simultaneous_comparisons(
    models: Sequence[Sequence[PairedTask]], confidence: float = 0.95
) -> tuple[Comparison, ...]:
    """Compares several models with intervals that hold all at once.

    Each interval has level ``confidence ** (1 / k)``: Šidák's inequality (1967) covers two-sided
    intervals under any correlation, so it is valid for models scored on the same documents.

    Args:
        models: Paired differences of each of the k comparisons.
        confidence: Probability that all intervals hold.
    """
    return tuple(paired_comparison(tasks, confidence ** (1 / len(models))) for tasks in models)


def _normalised(tasks: Sequence[PairedTask]) -> list[_Units]:
    if any(not (math.isfinite(task.weight) and task.weight >= 0) for task in tasks):
        raise ValueError(f"weights must be >= 0, got {[task.weight for task in tasks]}")
    total = math.fsum(task.weight for task in tasks)
    if total <= 0:
        raise ValueError("at least one task must have a weight above 0")
    return [_units(task, task.weight / total) for task in tasks if task.weight > 0]


def _units(task: PairedTask, weight: float) -> _Units:
    import numpy as np

    differences = np.asarray(task.differences, dtype=np.float64)
    if differences.ndim != 1 or differences.size == 0:
        raise ValueError(f"differences must have shape [n], n >= 1, got {differences.shape}")
    # The slack admits rounding in scaled scores; NaN fails the comparison too.
    if not bool(np.all(np.abs(differences) <= 1.0 + 1e-9)):
        raise ValueError("differences must be finite and lie in [-1, 1]")
    if task.clusters is None:
        return _Units(weight, differences, np.ones_like(differences))
    labels = np.asarray(task.clusters)
    if labels.shape != differences.shape:
        raise ValueError(f"clusters have shape {labels.shape}, differences {differences.shape}")
    _, unit = np.unique(labels, return_inverse=True)
    sums = np.bincount(unit, weights=differences).astype(np.float64)
    return _Units(weight, sums, np.bincount(unit).astype(np.float64))


def _interval(units: Sequence[_Units], confidence: float) -> tuple[float, float]:
    from scipy.special import stdtrit

    moments = [_moments(unit, 1.0 / len(units)) for unit in units]
    centre = math.fsum(
        unit.weight * mean for unit, (mean, _, _) in zip(units, moments, strict=True)
    )
    parts = [
        (unit.weight**2 * variance, freedom)
        for unit, (_, variance, freedom) in zip(units, moments, strict=True)
    ]
    variance = math.fsum(part for part, _ in parts)
    freedom = variance**2 / math.fsum(part**2 / freedom for part, freedom in parts)
    half = float(stdtrit(freedom, 0.5 + confidence / 2)) * math.sqrt(variance)
    return centre - half, centre + half


def _moments(unit: _Units, share: float) -> tuple[float, float, float]:
    """Mean, variance of the mean and degrees of freedom of one task.

    Args:
        unit: The task.
        share: Pseudo-documents of each sign that a task with few informative documents gets.
    """
    pseudo = share if _num_informative(unit) < FEW else 0.0
    documents = float(unit.sizes.sum())
    size = documents / len(unit.sizes)
    total = documents + 2 * pseudo * size
    mean = float(unit.sums.sum()) / total
    # CR2: a unit's residual is divided by sqrt(1 - its leverage); for single documents this is
    # the n / (n - 1) of the sample variance.
    squares = float(((unit.sums - unit.sizes * mean) ** 2 / (1 - unit.sizes / total)).sum())
    if pseudo:
        step = _pseudo_difference(unit)
        squares += 2 * pseudo * (step**2 + (size * mean) ** 2) / (1 - size / total)
    # Unequal clusters count as fewer: Kish's effective number, the plain number if all are equal.
    effective = documents**2 / float((unit.sizes**2).sum())
    return mean, squares / total**2, max(effective - 1, 1.0)


def _pseudo_difference(unit: _Units) -> float:
    """Summed difference of a pseudo-unit: one document, or a typical discordant cluster."""
    discordant = unit.sums[unit.sums != 0]
    if not len(discordant):
        return float(unit.sizes.mean())
    return max(1.0, math.sqrt(float((discordant**2).mean())))


def _num_informative(unit: _Units) -> int:
    """Number of units whose mean difference is not the most common one."""
    import numpy as np

    _, counts = np.unique(unit.sums / unit.sizes, return_counts=True)
    return len(unit.sums) - int(counts.max())


def _exact_p_value(units: Sequence[_Units]) -> float:
    """Two-sided sign-flip p-value; 0.0 (no objection) from ten discordant units on.

    Under the hypothesis that the models are exchangeable every discordant unit could as well have
    the other sign. For one task of 0/1 scores this is the exact test of McNemar.
    """
    import numpy as np

    parts: list[Any] = [unit.contributions[unit.sums != 0] for unit in units]
    discordant = np.concatenate(parts)
    if len(discordant) >= FEW:
        return 0.0
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(discordant))))
    flipped = np.abs(signs @ np.abs(discordant))
    observed = abs(float(discordant.sum()))
    return float(np.mean(flipped >= observed - 1e-12))
