"""Where new configurations come from: the seam, and the random proposer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from auto_merge.errors import AutoMergeError
from auto_merge.trial import Status, Value

if TYPE_CHECKING:
    from ConfigSpace import ConfigurationSpace

_MAX_TRIES = 1000
"""Random draws in a row that bring nothing new before a space counts as exhausted."""


class SpaceExhaustedError(AutoMergeError):
    """Every configuration of the search space has been proposed and no promotion is due."""


@dataclass(frozen=True)
class Observation:
    """What is known about one proposed configuration.

    Attributes:
        config_id: Number of the configuration.
        configuration: Active hyperparameters only.
        cost: Its latest estimate: the cost at the highest fidelity that was told;
            :data:`~auto_merge.trial.FAILURE_COST` after a failure, ``None`` while nothing was told.
        costs: The same estimate per objective of a multi-objective run; empty in other runs, after
            a failure and while nothing was told.
        fidelity: Documents per task behind ``cost``; 0 while nothing was told.
        status: How that trial ended; ``None`` while nothing was told.
    """

    config_id: int
    configuration: Mapping[str, Value]
    cost: float | None = None
    fidelity: int = 0
    status: Status | None = None
    costs: tuple[float, ...] = ()


@dataclass(frozen=True)
class Proposal:
    """A new configuration and the name of what produced it (``"random"``, ``"smac"``)."""

    configuration: dict[str, Value]
    origin: str


class Proposer(Protocol):
    """Proposes configurations that were never proposed before."""

    def propose(self, history: Sequence[Observation]) -> Proposal | None:
        """Returns a new configuration, or ``None`` if the space holds no other one.

        A pure function of the history and of the proposer's root seed: asked again, in another
        process too, it answers the same. The number of known configurations is part of the seed.

        Args:
            history: Every configuration so far, in the order of their numbers, untold ones too.
        """

    def close(self) -> None:
        """Releases what the proposer holds; it may be asked again afterwards."""


def child_seed(root_seed: int, *names: object) -> int:
    """Derives an independent seed in [0, 2^31) from a root seed and the names of its user."""
    text = repr((root_seed, *names)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") % 2**31


def plain_value(value: Any) -> Value:
    """Turns a numpy or Python scalar into a plain ``int``, ``float`` or ``str``."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, (bool, int, float)):
        return value
    return str(value)


def configuration_key(configuration: Mapping[str, Value]) -> tuple[tuple[str, Value], ...]:
    """Returns a hashable key; equal configurations have equal keys.

    Floats are rounded to 12 decimals: ConfigSpace itself keeps 13, and a value that went through
    the unit cube and back may differ in the last digit.
    """
    return tuple(
        (name, round(value, 12) if isinstance(value, float) else value)
        for name, value in sorted(configuration.items())
    )


class RandomProposer:
    """Samples the space uniformly (by the priors of its hyperparameters).

    Args:
        space: Space to sample; it is copied, so the caller's random state stays untouched.
        seed: Root seed.
    """

    def __init__(self, space: ConfigurationSpace, seed: int) -> None:
        from ConfigSpace import ConfigurationSpace

        self._space = ConfigurationSpace.from_serialized_dict(space.to_serialized_dict())
        self._seed = seed

    def propose(self, history: Sequence[Observation]) -> Proposal | None:
        """Draws one new configuration; see :meth:`Proposer.propose`."""
        known = {configuration_key(entry.configuration) for entry in history}
        self._space.seed(child_seed(self._seed, "random", len(history)))
        for _ in range(_MAX_TRIES):
            sampled = self._space.sample_configuration()
            configuration = {name: plain_value(value) for name, value in sampled.items()}
            if configuration_key(configuration) not in known:
                return Proposal(configuration, "random")
        return None

    def close(self) -> None:
        """Does nothing: a random proposer holds no resources."""
