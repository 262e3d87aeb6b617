"""Settings of the space of depth-wise integration and what must hold for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from auto_merge.errors import ConfigError
from auto_merge.strategies.flat import ScaleSearch

_NUM_STEPS = 200
_NUM_DEVIATIONS = 2.0


@dataclass(frozen=True)
class DisSettings:
    """What defines a space of depth-wise integration.

    Attributes:
        models: Role names of the K sources, in the order that block numbers refer to.
        base: Role name of the model whose layers stay where nothing is chosen.
        num_layers: Number of layers of every model.
        max_layers: Largest number of layers of a result.
        layer_granularity: Consecutive layers g that make one candidate layer; must divide the
            number of layers that are not fixed.
        repeat: How often every layer may be taken.
        fix_layers: First and last layers that are the first model's and not searched.
        remain_base: Whether the base's layers stay where nothing is chosen; else the candidate
            layer disappears.
        float_block_selection: Whether a choice is a number in [0, 1] above a threshold.
        block_selection_threshold: That threshold, in (0, 1).
        scale_mode: Meaning of the output scales; ``"off"``: none are searched.
        missing_permutation: What a configuration without a permutation means: number 0, the
            order of the blocks, or number 1, which reverses two blocks.
        dtype: Data type of the merged model.
    """

    models: tuple[str, ...]
    base: str | None
    num_layers: int
    max_layers: int
    layer_granularity: int = 1
    repeat: int = 1
    fix_layers: int = 0
    remain_base: bool = True
    float_block_selection: bool = False
    block_selection_threshold: float = 0.5
    scale_mode: ScaleSearch = "mlp"
    missing_permutation: Literal["identity", "reversed"] = "identity"
    dtype: str | None = None

    @property
    def num_candidates(self) -> int:
        """Number C of candidate layers."""
        return (self.num_layers - 2 * self.fix_layers) // self.layer_granularity

    @property
    def copies(self) -> int:
        """Blocks of a candidate layer that hold the same source depth: K times ``repeat``."""
        return len(self.models) * self.repeat

    @property
    def num_blocks(self) -> int:
        """Number B of blocks of a candidate layer."""
        return self.copies * self.layer_granularity


def check_settings(settings: DisSettings) -> None:
    """Refuses settings that make no space.

    Raises:
        ConfigError: One line with the key.
    """
    _check_models(settings)
    _check_layers(settings)
    threshold = settings.block_selection_threshold
    if settings.float_block_selection and not 0.0 < threshold < 1.0:
        _refuse(
            "block_selection_threshold",
            f"must lie between 0 and 1, so that a block can be chosen or not, got {threshold:g}",
        )
    groups = settings.num_candidates if settings.remain_base else 0
    shallowest = max(1, 2 * settings.fix_layers + groups)
    if settings.max_layers < shallowest:
        _refuse(
            "layers",
            f"must be at least {shallowest}, the depth of the shallowest result, "
            f"got {settings.max_layers}",
        )


def _check_models(settings: DisSettings) -> None:
    if not settings.models:
        _refuse("models", "at least one model is needed")
    names = [*settings.models, *([settings.base] if settings.base else [])]
    for name in names:
        if names.count(name) > 1:
            _refuse("models", f"names must differ, {name!r} occurs twice")
    if settings.remain_base and settings.base is None:
        _refuse(
            "remain_base",
            "needs a base model, got none; give base_model or set remain_base: false",
        )


def _check_layers(settings: DisSettings) -> None:
    layers, fixed = settings.num_layers, settings.fix_layers
    for key, value, lowest in (
        ("num_hidden_layers", layers, 1),
        ("layer_granularity", settings.layer_granularity, 1),
        ("repeat", settings.repeat, 1),
        ("fix_layers", fixed, 0),
    ):
        if value < lowest:
            _refuse(key, f"must be at least {lowest}, got {value}")
    searched = layers - 2 * fixed
    if searched < 1:
        _refuse(
            "fix_layers",
            f"must leave a layer to search: at most {(layers - 1) // 2} of the {layers} layers "
            f"at either end, got {fixed}",
        )
    if searched % settings.layer_granularity:
        divisors = ", ".join(str(n) for n in range(1, searched + 1) if searched % n == 0)
        _refuse(
            "layer_granularity",
            f"must divide the {searched} layers that are not fixed, "
            f"got {settings.layer_granularity}; possible: {divisors}",
        )


def choice_probability(settings: DisSettings) -> float:
    """Probability p in (0, 1/2] with which a sampled configuration takes a block.

    The largest one, up to one block for each source depth on average, with which the depth of the
    result exceeds ``max_layers`` by chance only: its mean plus two standard deviations does not.
    With X ~ Binomial(B, p) chosen blocks a candidate layer is X layers deep, or g if X = 0 and the
    base's layers remain.
    """
    blocks = settings.num_blocks
    kept = settings.layer_granularity if settings.remain_base else 0
    most = min(0.5, 1.0 / settings.copies)
    # A depth is a whole number, and the normal distribution that stands for it ends half-way.
    limit = settings.max_layers - 2 * settings.fix_layers + 0.5
    for step in range(_NUM_STEPS, 0, -1):
        share = most * step / _NUM_STEPS
        none = (1.0 - share) ** blocks
        mean = blocks * share + none * kept
        square = blocks * share * (1.0 - share) + (blocks * share) ** 2 + none * kept**2
        deviation = math.sqrt(settings.num_candidates * max(0.0, square - mean**2))
        if settings.num_candidates * mean + _NUM_DEVIATIONS * deviation <= limit:
            return share
    return most / _NUM_STEPS


def _refuse(key: str, reason: str) -> None:
    raise ConfigError(f"strategies.dis.{key}: {reason}")
