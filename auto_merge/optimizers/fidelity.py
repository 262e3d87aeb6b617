"""Hyperband arithmetic: which rungs exist, and how many configurations each of them holds.

Source: Li et al., "Hyperband" (2018), in the form that SMAC3 publishes. With ``R = max / min``,
``s_max = floor(log_eta R)``; bracket ``i`` opens with ``n0 = ceil(eta^s (s_max + 1) / (s + 1))``
configurations, ``s = s_max - i``, and its stage ``k`` holds ``floor(n0 eta^-k)`` of them at a
budget of ``max eta^-(s - k)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from auto_merge.errors import ConfigError


@dataclass(frozen=True)
class Stage:
    """One rung of one bracket.

    Attributes:
        size: Number of configurations evaluated here; >= 1.
        fidelity: Documents per task: ``budget`` rounded half up.
        budget: The unrounded budget of the published table.
    """

    size: int
    fidelity: int
    budget: float


@dataclass(frozen=True)
class Bracket:
    """Stages of one successive halving, from the lowest rung to the highest."""

    stages: tuple[Stage, ...]


def hyperband_round(min_budget: float, max_budget: float, eta: float = 3) -> tuple[Bracket, ...]:
    """Computes the brackets of one Hyperband round, the most aggressive one first.

    Args:
        min_budget: Smallest useful number of documents; >= 1.
        max_budget: Number of documents at the top rung; >= ``min_budget``.
        eta: One in ``eta`` configurations is promoted; >= 2, so that rounded rungs stay distinct.

    Returns:
        ``s_max + 1`` brackets; a single bracket with one stage of one when the budgets are equal.

    Raises:
        ConfigError: An argument is out of range.
    """
    if not 1 <= min_budget <= max_budget:
        raise ConfigError(
            f"budgets must satisfy 1 <= min_budget <= max_budget, got min_budget = {min_budget} "
            f"and max_budget = {max_budget}; lower min_budget or raise max_budget"
        )
    if not eta >= 2:
        raise ConfigError(f"eta must be at least 2, got {eta}; the published value is 3")
    deepest = _floor_log(max_budget / min_budget, eta)
    return tuple(_bracket(deepest, s, max_budget, eta) for s in range(deepest, -1, -1))


def _floor_log(ratio: float, eta: float) -> int:
    """Returns ``floor(log_eta ratio)``.

    ``log(243) / log(3)`` is 4.999..., so a plain floor loses a rung exactly when the budgets are a
    power of ``eta`` apart; values that near to an integer count as that integer.
    """
    exponent = math.log(ratio) / math.log(eta)
    nearest = round(exponent)
    return nearest if math.isclose(exponent, nearest, abs_tol=1e-9) else math.floor(exponent)


def _bracket(deepest: int, s: int, max_budget: float, eta: float) -> Bracket:
    first = math.ceil(eta**s * (deepest + 1) / (s + 1))
    budgets = [max_budget * eta ** -(s - k) for k in range(s + 1)]
    return Bracket(
        tuple(
            Stage(math.floor(first * eta**-k + 1e-9), math.floor(budget + 0.5), budget)
            for k, budget in enumerate(budgets)
        )
    )


def rungs(brackets: Sequence[Bracket]) -> tuple[int, ...]:
    """Lists the distinct fidelities of a round, ascending."""
    return tuple(sorted({stage.fidelity for bracket in brackets for stage in bracket.stages}))


def num_trials_for_total_budget(
    total_budget: float, min_budget: float, max_budget: float, eta: float = 3
) -> int:
    """Counts the trials that a total budget pays for (the ``n_trials: 0`` rule).

    ``floor(total / B)`` whole rounds of budget ``B``; for the rest, stage by stage in the order of
    the round, ``min(size, floor(rest / budget))`` trials.

    Args:
        total_budget: Documents per task to be spent over all trials; >= 0. A promoted trial counts
            with its whole budget, as published, although only its new documents are scored.
        min_budget: As in :func:`hyperband_round`.
        max_budget: As in :func:`hyperband_round`.
        eta: As in :func:`hyperband_round`.

    Raises:
        ConfigError: An argument is out of range.
    """
    if not total_budget >= 0:
        raise ConfigError(f"total_budget must not be negative, got {total_budget}")
    stages = [s for b in hyperband_round(min_budget, max_budget, eta) for s in b.stages]
    per_round = math.fsum(stage.size * stage.budget for stage in stages)
    rounds = math.floor(total_budget / per_round + 1e-9)
    rest = max(0.0, total_budget - rounds * per_round)
    trials = rounds * sum(stage.size for stage in stages)
    for stage in stages:
        trials += min(stage.size, math.floor(rest / stage.budget + 1e-9))
        rest = max(0.0, rest - stage.size * stage.budget)
    return trials
