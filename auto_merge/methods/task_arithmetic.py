"""Task arithmetic: adds weighted task vectors to the base (https://arxiv.org/abs/2212.04089)."""

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
    """Writes ``B + sum_i (scale w_i) (W_i - B)`` to ``out``: a sum of task vectors, not their mean.

    Sources whose factor is 0 are not read; with none left the base is copied bit for bit. One
    source with factor 1 is copied bit for bit (float32 would return it up to rounding).
    """
    assert base is not None, "task_arithmetic needs a base"
    scale = canonical.number(arguments, "scale")
    factors = [scale * weight for weight in canonical.numbers(arguments, "weight")]
    used = [index for index, factor in enumerate(factors) if factor != 0.0]
    if not used:
        kernels.copy(base, out)
        return None
    if len(used) == 1 and canonical.significant(factors[used[0]]) == 1.0:
        kernels.copy(tensors[used[0]], out)
        return None
    return kernels.weighted_delta_sum(
        [tensors[index] for index in used], base, [factors[index] for index in used], out
    )


def simplify(call: Call) -> Call:
    """Folds the scale into the weights, adds up equal sources, drops zeros and the base itself."""
    scale = canonical.number(call.arguments, "scale")
    factors = [scale * weight for weight in canonical.numbers(call.arguments, "weight")]
    used = canonical.without(canonical.combined(call.sources, factors), [call.base])
    if not used:
        return canonical.passthrough(call.base)
    if list(used.values()) == [1.0]:
        return canonical.passthrough(next(iter(used)))
    arguments: Arguments = {"weight": tuple(used.values()), "scale": 1.0}
    return Call("task_arithmetic", tuple(used), call.base, arguments)


TASK_ARITHMETIC = METHODS.add(
    "task_arithmetic",
    Method(
        name="task_arithmetic",
        merge=merge,
        simplify=simplify,
        parameters=(
            Parameter(
                "weight",
                -canonical.LIMIT,
                canonical.LIMIT,
                1.0,
                per_source=True,
                doc="Factor on the task vector of the source; negative forgets.",
            ),
            Parameter(
                "scale",
                -canonical.LIMIT,
                canonical.LIMIT,
                1.0,
                per_source=False,
                doc="Factor on the sum of task vectors.",
            ),
        ),
        needs_base=True,
        min_sources=1,
        max_sources=None,
        paper="https://arxiv.org/abs/2212.04089",
        doc="Base plus the scaled sum of weighted task vectors.",
    ),
)
