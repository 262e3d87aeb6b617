"""Optimizers: Hyperband over any source of configurations, SMAC and random sampling as sources.

Only ``smac_*.py`` import SMAC, and only inside the child process that :mod:`.smac_proposer` starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from auto_merge.optimizers.fidelity import Bracket
from auto_merge.optimizers.hyperband import HyperbandOptimizer
from auto_merge.optimizers.parego import ParegoProposer
from auto_merge.optimizers.proposer import Observation, Proposer, RandomProposer
from auto_merge.optimizers.smac_proposer import SmacProposer
from auto_merge.registry import Registry
from auto_merge.trial import Objective, Value

if TYPE_CHECKING:
    from ConfigSpace import ConfigurationSpace

PROPOSERS: Registry[Callable[[ConfigurationSpace, int], Proposer]] = Registry("optimizer")
"""Optimizer name in a configuration -> factory of its proposer from (space, root seed)."""

PROPOSERS.add("smac", SmacProposer)
PROPOSERS.add("random", RandomProposer)


def build_optimizer(
    name: str,
    space: ConfigurationSpace,
    seed: int,
    brackets: Sequence[Bracket],
    initial_design: Sequence[tuple[str, Mapping[str, Value]]],
    objectives: Sequence[Objective] = (),
    warm_start: Sequence[Observation] = (),
) -> HyperbandOptimizer:
    """Puts an optimizer together.

    Args:
        name: Name in :data:`PROPOSERS`.
        space: Search space.
        seed: Root seed.
        brackets: One Hyperband round.
        initial_design: Start points as ``(label, configuration)``.
        objectives: Objectives of a multi-objective run; empty for a single-objective one.
        warm_start: What an earlier search found out; it counts for proposals only.

    Raises:
        UserError: There is no such proposer.
    """
    proposer = PROPOSERS.get(name)(space, seed)
    if objectives:
        weights = [objective.weight for objective in objectives]
        proposer = ParegoProposer(proposer, weights, seed)
    return HyperbandOptimizer(brackets, initial_design, proposer, objectives, warm_start)
