"""Optimizers: Hyperband over any source of configurations, SMAC and random sampling as sources.

Only ``smac_*.py`` import SMAC, and only inside the child process that :mod:`.smac_proposer` starts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from auto_merge.optimizers.proposer import Proposer, RandomProposer
from auto_merge.optimizers.smac_proposer import SmacProposer
from auto_merge.registry import Registry

if TYPE_CHECKING:
    from ConfigSpace import ConfigurationSpace

PROPOSERS: Registry[Callable[[ConfigurationSpace, int], Proposer]] = Registry("optimizer")
"""Optimizer name in a configuration -> factory of its proposer from (space, root seed)."""

PROPOSERS.add("smac", SmacProposer)
PROPOSERS.add("random", RandomProposer)
