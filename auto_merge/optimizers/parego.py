"""Several costs as one: a proposer that optimises another direction of the front at every ask.

ParEGO (Knowles 2006): each proposal minimises the augmented Tchebycheff function

    max_i l_i v_i + rho sum_i l_i v_i

of the normalised costs v with weights l that are drawn anew, so that proposals spread over the
whole front, its non-convex parts included.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

from auto_merge.optimizers.proposer import Observation, Proposal, Proposer, child_seed

RHO = 0.05
"""Weight of the sum, which tells weakly dominated points from the ones that dominate them."""


class ParegoProposer:
    """Lets a single-objective proposer work on several objectives.

    Like every proposer a pure function of history and seed: the direction of a proposal depends on
    the root seed and on the number of known configurations.

    Args:
        proposer: Is shown one cost per configuration.
        weights: Factor on the normalised cost of each objective; > 0. Only their ratio matters.
        seed: Root seed.
    """

    def __init__(self, proposer: Proposer, weights: Sequence[float], seed: int) -> None:
        self._proposer = proposer
        self._weights = [weight / max(weights) for weight in weights]
        self._seed = seed

    def propose(self, history: Sequence[Observation]) -> Proposal | None:
        """Proposes in the direction whose turn it is; see :meth:`Proposer.propose`."""
        direction = simplex_point(
            len(self._weights), child_seed(self._seed, "parego", len(history))
        )
        rows = [place for place, entry in enumerate(history) if entry.costs]
        points = normalised([history[place].costs for place in rows])
        shown = list(history)
        for place, point in zip(rows, points, strict=True):
            weighted = [weight * cost for weight, cost in zip(self._weights, point, strict=True)]
            cost = augmented_tchebycheff(weighted, direction)
            shown[place] = replace(history[place], cost=cost)
        return self._proposer.propose(tuple(shown))

    def close(self) -> None:
        """Releases what the wrapped proposer holds."""
        self._proposer.close()


def augmented_tchebycheff(costs: Sequence[float], direction: Sequence[float]) -> float:
    """``max_i l_i v_i + rho sum_i l_i v_i``.

    Args:
        costs: Normalised costs v, shape ``[m]``.
        direction: Weights l, shape ``[m]``, >= 0, summing to 1.
    """
    parts = [share * cost for share, cost in zip(direction, costs, strict=True)]
    return max(parts) + RHO * math.fsum(parts)


def normalised(points: Sequence[Sequence[float]]) -> list[tuple[float, ...]]:
    """Scales the range of every objective to [0, 1]; 0.0 throughout where all points agree.

    Args:
        points: Costs, shape ``[n, m]``; n >= 0.
    """
    lows = [min(column) for column in zip(*points, strict=True)]
    highs = [max(column) for column in zip(*points, strict=True)]
    return [
        tuple(
            (cost - low) / (high - low) if high > low else 0.0
            for cost, low, high in zip(point, lows, highs, strict=True)
        )
        for point in points
    ]


def simplex_point(size: int, seed: int) -> tuple[float, ...]:
    """Draws weights uniformly from the simplex: shape ``[size]``, >= 0, summing to 1."""
    generator = random.Random(seed)
    # Normalised exponential variables are uniform on the simplex.
    drawn = [generator.expovariate(1.0) for _ in range(size)]
    total = math.fsum(drawn)
    return tuple(value / total for value in drawn)
