"""Spherical linear interpolation between two sources (Shoemake, SIGGRAPH 1985)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from auto_merge.methods import canonical, kernels
from auto_merge.methods.base import METHODS, Arguments, Call, Memo, Method, Parameter

if TYPE_CHECKING:
    import torch

_PARALLEL = 0.9995  # beyond this |cosine| the tensors are interpolated linearly
_ZERO_NORM = 1e-10  # a tensor this small is not normalised


def cosine(first: torch.Tensor, second: torch.Tensor) -> float:
    """Returns the cosine between two tensors of one shape, flattened, in float64.

    A tensor whose norm is at most 1e-10 has no direction: it is not normalised, which gives a
    cosine of 0 or nearly so.
    """
    first_square, second_square, product = kernels.dot_products(first, second)
    for square in (first_square, second_square):
        norm = math.sqrt(square)
        product /= norm if norm > _ZERO_NORM else 1.0
    return product


def coefficients(dot: float, t: float) -> tuple[float, float]:
    """Returns the factors of the first and second tensor for their cosine ``dot`` and ``t``."""
    # NaN, from sources with NaN or infinity, takes the linear branch and reaches the result.
    if not abs(dot) <= _PARALLEL:
        return 1.0 - t, t
    angle = math.acos(dot)
    return math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def merge(
    tensors: Sequence[torch.Tensor],
    base: torch.Tensor | None,
    arguments: Arguments,
    out: torch.Tensor,
    memo: Memo,
) -> kernels.Work | None:
    """Writes ``(sin((1-t) a) W_0 + sin(t a) W_1) / sin a`` to ``out``, ``a`` being their angle.

    The whole tensor is one vector. t = 0 and t = 1 copy a source bit for bit.

    Degenerate cases: nearly parallel tensors (|cos a| > 0.9995) are interpolated linearly, as
    published. So are nearly opposite ones, where no shortest arc exists: the path runs through
    the neighbourhood of zero and stays finite. A zero tensor counts as orthogonal to the other.
    """
    t = canonical.number(arguments, "t")
    if t in (0.0, 1.0):
        kernels.copy(tensors[int(t)], out)
        return None
    dot: float = memo("slerp/cosine", lambda: cosine(tensors[0], tensors[1]))
    return kernels.weighted_sum(tensors, coefficients(dot, t), out)


def simplify(call: Call) -> Call:
    """Ends and equal sources become passthrough; sources are sorted with t turned around."""
    first, second = call.sources
    # Decimal places instead of significant digits: t and 1 - t must round alike.
    t = round(canonical.number(call.arguments, "t"), 12)
    if t == 0.0 or first == second:
        return canonical.passthrough(first)
    if t == 1.0:
        return canonical.passthrough(second)
    if second < first:
        first, second, t = second, first, round(1.0 - t, 12)
    return Call("slerp", (first, second), None, {"t": t})


SLERP = METHODS.add(
    "slerp",
    Method(
        name="slerp",
        merge=merge,
        simplify=simplify,
        parameters=(
            Parameter(
                "t",
                0.0,
                1.0,
                0.5,
                per_source=False,
                doc="Position on the arc: 0 is the first source, 1 the second.",
            ),
        ),
        needs_base=False,
        min_sources=2,
        max_sources=2,
        paper="https://doi.org/10.1145/325334.325242",
        doc="Spherical interpolation between two sources, per tensor.",
    ),
)
