"""Hyperparameter names of depth-wise integration, exactly as the published search writes them.

====================================== ========================================================
``scale_{i}``                          output scale of candidate layer i
``layer_{i}_permutation_selection``    number of the order of its blocks
``layer_{i}_block_{j}_selection``      whether block j, one layer of one model, is taken
====================================== ========================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NUMBER = "(0|[1-9][0-9]{0,5})"
_SCALE = re.compile(f"scale_{_NUMBER}")
_ORDER = re.compile(f"layer_{_NUMBER}_permutation_selection")
_BLOCK = re.compile(f"layer_{_NUMBER}_block_{_NUMBER}_selection")


@dataclass(frozen=True)
class BlockName:
    """A parsed name of a block choice.

    Attributes:
        layer: Candidate layer, from 0.
        block: Block in the layer, from 0.
    """

    layer: int
    block: int

    def __str__(self) -> str:
        return f"layer_{self.layer}_block_{self.block}_selection"


def scale_name(layer: int) -> str:
    """Name of the output scale of a candidate layer."""
    return f"scale_{layer}"


def order_name(layer: int) -> str:
    """Name of the permutation of a candidate layer."""
    return f"layer_{layer}_permutation_selection"


def parse_scale(key: str) -> int | None:
    """Returns the candidate layer if ``key`` is an output scale, else ``None``."""
    match = _SCALE.fullmatch(key)
    return int(match[1]) if match else None


def parse_order(key: str) -> int | None:
    """Returns the candidate layer if ``key`` is a permutation, else ``None``."""
    match = _ORDER.fullmatch(key)
    return int(match[1]) if match else None


def parse_block(key: str) -> BlockName | None:
    """Returns candidate layer and block if ``key`` is a block choice, else ``None``."""
    match = _BLOCK.fullmatch(key)
    return BlockName(int(match[1]), int(match[2])) if match else None


def recognises(key: str) -> bool:
    """Whether a key of a flat configuration is one of depth-wise integration."""
    return any(pattern.fullmatch(key) for pattern in (_SCALE, _ORDER, _BLOCK))
