"""Comparing optimizers over seeds: exact signed-rank test, Hodges-Lehmann interval, Holm.

All differences are paired by seed, with as many seeds as were fixed beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class SignedRank:
    """Outcome of :func:`signed_rank`.

    Attributes:
        p_value: One-sided exact p-value for "differences tend to be positive".
        estimate: Hodges-Lehmann estimate of the typical difference (median of Walsh averages).
        low: Lower end of the interval of the typical difference; minus infinity if there are too
            few pairs for the confidence asked for.
        high: Upper end.
        num_pairs: Number of pairs, those with difference zero included.
    """

    p_value: float
    estimate: float
    low: float
    high: float
    num_pairs: int


def signed_rank(differences: Sequence[float], confidence: float = 0.95) -> SignedRank:
    """Wilcoxon's signed-rank test, one-sided and exact, with the Hodges-Lehmann interval.

    Ties get mid-ranks and the null distribution is that of the mid-ranks themselves; zeros are left
    out of the test, as Wilcoxon did, and kept in the estimate. The interval (Hollander & Wolfe,
    section 3.3) is two-sided with coverage at least ``confidence``.

    Args:
        differences: One per pair, finite; at least one.
        confidence: In (0, 1).

    Raises:
        ValueError: No differences or one that is not finite.
    """
    values = [float(value) for value in differences]
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"differences must be finite and at least one, got {values}")
    walsh = sorted(
        (values[i] + values[j]) / 2 for i in range(len(values)) for j in range(i, len(values))
    )
    low, high = _walsh_interval(walsh, len(values), confidence)
    return SignedRank(_p_value(values), _median(walsh), low, high, len(values))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusts p-values of several hypotheses by Holm's step-down procedure (1979).

    Returns:
        Adjusted p-values in the order given; reject those that are at most the level.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for position, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - position) * p_values[index]))
        adjusted[index] = largest
    return tuple(adjusted)


def _p_value(values: Sequence[float]) -> float:
    nonzero = [value for value in values if value != 0]
    doubled = _doubled_ranks([abs(value) for value in nonzero])
    observed = sum(rank for rank, value in zip(doubled, nonzero, strict=True) if value > 0)
    counts = _null_counts(doubled)
    # Integers throughout: the ratio is exact before the one division.
    return sum(counts[observed:]) / sum(counts)


def _doubled_ranks(sizes: Sequence[float]) -> list[int]:
    """Twice the mid-ranks, which are whole numbers."""
    return [
        sum(other < size for other in sizes) + sum(other <= size for other in sizes) + 1
        for size in sizes
    ]


def _null_counts(ranks: Sequence[int]) -> list[int]:
    """Number of sign patterns for each value of the sum of positive ranks, from 0."""
    counts = [1]
    for rank in ranks:
        longer = counts + [0] * rank
        for total, count in enumerate(counts):
            longer[total + rank] += count
        counts = longer
    return counts


def _walsh_interval(walsh: Sequence[float], pairs: int, confidence: float) -> tuple[float, float]:
    counts = _null_counts(range(1, pairs + 1))
    allowed = (1.0 - confidence) / 2 * sum(counts)
    cut, below = 0, 0
    # ``cut`` Walsh averages may lie beyond each end; the last one tried was one too many.
    while below + counts[cut] <= allowed:
        below += counts[cut]
        cut += 1
    if cut == 0:
        return -math.inf, math.inf
    return walsh[cut - 1], walsh[-cut]


def _median(ordered: Sequence[float]) -> float:
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
