"""Linear merging: the weighted mean of the sources (model soups, https://arxiv.org/abs/2203.05482)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from auto_merge.errors import RecipeError
from auto_merge.methods import canonical, kernels
from auto_merge.methods.base import METHODS, Arguments, Call, Memo, Method, Parameter

if TYPE_CHECKING:
    import torch

# Weights that cancel to less than this part of their magnitudes leave nothing but rounding.
_CANCELLED = 1e-9


def normalised(weights: Sequence[float]) -> tuple[float, ...]:
    """Divides ``weights`` by their sum.

    Raises:
        RecipeError: The sum is zero, up to rounding.
    """
    total = math.fsum(weights)
    size = math.fsum(abs(weight) for weight in weights)
    if abs(total) <= _CANCELLED * size:
        shown = ", ".join(f"{weight:g}" for weight in weights)
        raise RecipeError(
            f"linear: weights sum to zero ({shown}); the mean is undefined, "
            "give the sources weights with a sum other than 0"
        )
    if abs(total - 1.0) <= 1e-11 * size:
        return tuple(weights)  # already normalised and rounded: normalising again changes nothing
    return tuple(weight / total for weight in weights)


def merge(
    tensors: Sequence[torch.Tensor],
    base: torch.Tensor | None,
    arguments: Arguments,
    out: torch.Tensor,
    memo: Memo,
) -> kernels.Work | None:
    """Writes ``sum_i w_i W_i / sum_i w_i`` to ``out``.

    Sources of weight 0 are not read. A single source that is left is copied bit for bit.

    Raises:
        RecipeError: The weights sum to zero.
    """
    weights = normalised(canonical.numbers(arguments, "weight"))
    used = [index for index, weight in enumerate(weights) if weight != 0.0]
    if len(used) == 1:
        kernels.copy(tensors[used[0]], out)
        return None
    return kernels.weighted_sum(
        [tensors[index] for index in used], [weights[index] for index in used], out
    )


def simplify(call: Call) -> Call:
    """Normalises the weights, adds up those of equal sources, drops zeros and sorts by key.

    Raises:
        RecipeError: The weights sum to zero.
    """
    weights = normalised(canonical.numbers(call.arguments, "weight"))
    used = canonical.combined(call.sources, weights)
    if len(used) == 1:
        return canonical.passthrough(next(iter(used)))
    return Call("linear", tuple(used), None, {"weight": tuple(used.values())})


LINEAR = METHODS.add(
    "linear",
    Method(
        name="linear",
        merge=merge,
        simplify=simplify,
        parameters=(
            Parameter(
                "weight",
                -canonical.LIMIT,
                canonical.LIMIT,
                1.0,
                per_source=True,
                doc="Share of the source; only ratios matter, negative is legal.",
            ),
        ),
        needs_base=False,
        min_sources=1,
        max_sources=None,
        paper="https://arxiv.org/abs/2203.05482",
        doc="Weighted mean of the sources.",
    ),
)
