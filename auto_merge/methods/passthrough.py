"""Passthrough: one source, optionally scaled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from auto_merge.methods import canonical, kernels
from auto_merge.methods.base import METHODS, Arguments, Call, Memo, Method, Parameter

if TYPE_CHECKING:
    import torch


def merge(
    tensors: Sequence[torch.Tensor],
    base: torch.Tensor | None,
    arguments: Arguments,
    out: torch.Tensor,
    memo: Memo,
) -> kernels.Work | None:
    """Writes ``scale * W`` to ``out``; with scale 1 an exact copy.

    The scale multiplies the tensor itself, also where it is an embedding or a norm.
    """
    scale = canonical.number(arguments, "scale")
    if scale == 1.0:
        kernels.copy(tensors[0], out)
        return None
    return kernels.weighted_sum(tensors, [scale], out)


def simplify(call: Call) -> Call:
    """Forgets the base and rounds the scale."""
    scale = canonical.significant(canonical.number(call.arguments, "scale"))
    return canonical.passthrough(call.sources[0], scale)


PASSTHROUGH = METHODS.add(
    "passthrough",
    Method(
        name="passthrough",
        merge=merge,
        simplify=simplify,
        parameters=(
            Parameter(
                "scale",
                -canonical.LIMIT,
                canonical.LIMIT,
                1.0,
                per_source=False,
                doc="Factor on the tensor; 1 copies it bit for bit.",
            ),
        ),
        needs_base=False,
        min_sources=1,
        max_sources=1,
        paper="none",
        doc="Takes one source as it is, optionally scaled.",
    ),
)
