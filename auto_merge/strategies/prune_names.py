"""Hyperparameter names of pruning, exactly as the published search writes them, and one more.

==================================== ======================================================
``layer_{l}_candidate_{k}``          whether model k takes part in layer l
``layer_{l}_merge_scale_factor``     scale of the summed task vectors of several models
``layer_{l}_output_scale``           output scale of the layer
``remove_idx_{r}``                   r-th layer that is removed; in published files only
``layer_{l}_removal``                score of the layer in [0, 1]; in this program's space only
==================================== ======================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["candidate", "merge_scale_factor", "output_scale", "remove_idx", "removal"]

_NUMBER = "(0|[1-9][0-9]{0,5})"
_CANDIDATE = re.compile(f"layer_{_NUMBER}_candidate_{_NUMBER}")
_REMOVED = re.compile(f"remove_idx_{_NUMBER}")
_VALUE = re.compile(f"layer_{_NUMBER}_(merge_scale_factor|output_scale|removal)")


@dataclass(frozen=True)
class PruneName:
    """A parsed hyperparameter name.

    Attributes:
        kind: What it is.
        layer: Layer, from 0; -1 for ``"remove_idx"``.
        number: k of a candidate, r of a removed layer, else -1.
    """

    kind: Kind
    layer: int = -1
    number: int = -1


def candidate_name(layer: int, model: int) -> str:
    """Name of the choice whether a model takes part in a layer."""
    return f"layer_{layer}_candidate_{model}"


def merge_scale_name(layer: int) -> str:
    """Name of the scale of a layer's task vectors."""
    return f"layer_{layer}_merge_scale_factor"


def output_scale_name(layer: int) -> str:
    """Name of a layer's output scale."""
    return f"layer_{layer}_output_scale"


def removal_name(layer: int) -> str:
    """Name of a layer's removal score."""
    return f"layer_{layer}_removal"


def parse(key: str) -> PruneName | None:
    """Parses a hyperparameter name; ``None`` if it is not one of pruning."""
    if match := _CANDIDATE.fullmatch(key):
        return PruneName("candidate", int(match[1]), int(match[2]))
    if match := _REMOVED.fullmatch(key):
        return PruneName("remove_idx", number=int(match[1]))
    if match := _VALUE.fullmatch(key):
        kinds: tuple[Kind, ...] = ("merge_scale_factor", "output_scale", "removal")
        return PruneName(next(kind for kind in kinds if kind == match[2]), int(match[1]))
    return None


def recognises(key: str) -> bool:
    """Whether a key of a flat configuration is one of pruning."""
    return parse(key) is not None
