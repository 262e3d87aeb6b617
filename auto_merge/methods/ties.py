"""TIES merging: trim, elect sign, disjoint mean (https://arxiv.org/abs/2306.01708), per tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

from auto_merge.methods import canonical, kernels
from auto_merge.methods.base import METHODS, Arguments, Call, Memo, Method, Parameter
from auto_merge.methods.task_arithmetic import TASK_ARITHMETIC

if TYPE_CHECKING:
    import torch


_DENOMINATOR = 10**6  # of the fractions that people mean by a mask rate
_KNOWN = 64  # thresholds kept per source: a search often changes the scale and not the density


@lru_cache(maxsize=1024)
def mask_rate(density: float) -> float:
    """Returns the published mask rate ``rho`` that a density of ``1 - rho`` came from.

    ``1 - (1 - rho)`` differs from ``rho`` by at most 2**-54, so a simple fraction within twice
    that distance is what was meant (0.3, not 0.30000000000000004, and 1/7); any other value is
    used as it is.
    """
    rho = 1.0 - density
    simple = float(Fraction(rho).limit_denominator(_DENOMINATOR))
    return simple if abs(rho - simple) <= 2.0**-53 else rho


def trim_rank(size: int, density: float) -> int:
    """Returns ``int(size * rho)``, the rank of the trimming threshold among ``size`` magnitudes.

    Going through the density does not move the result where ``size * rho`` is a whole number.
    """
    return int(size * mask_rate(density))


@dataclass(frozen=True)
class Magnitudes:
    """Sorted summary of the |delta| of one source, small enough to keep for every tensor.

    A thousand or two bins (14 bytes each) are used in practice, 2**15 at most.

    Attributes:
        bins: Used histogram bins, ascending, int16.
        ends: Number of elements up to and including each used bin, int64.
        low: Lower 16 bits of the one value in the bin, -1 if there are several, int32.
        known: Thresholds found lately, by rank.
    """

    bins: torch.Tensor
    ends: torch.Tensor
    low: torch.Tensor
    known: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, tensor: torch.Tensor, base: torch.Tensor) -> Magnitudes:
        """Reads both tensors once."""
        import torch

        counts, low = kernels.delta_histogram(tensor, base)
        used = counts.nonzero().view(-1)
        return cls(used.to(torch.int16), counts[used].cumsum(0), low[used])

    def threshold(self, tensor: torch.Tensor, base: torch.Tensor, rank: int) -> float:
        """Returns the ``rank``-th smallest (from 1) |delta|, exactly.

        Where the bin that holds the rank has several values, both tensors are read once more to
        order its elements.
        """
        import torch

        if rank in self.known:
            return self.known[rank]
        place = int(torch.searchsorted(self.ends, rank))
        chosen, low = int(self.bins[place]), int(self.low[place])
        if low >= 0:
            return kernels.magnitude(chosen, low)
        before = int(self.ends[place - 1]) if place else 0
        if len(self.known) >= _KNOWN:
            self.known.clear()
        self.known[rank] = kernels.select_delta(tensor, base, chosen, rank - before)
        return self.known[rank]


def merge(
    tensors: Sequence[torch.Tensor],
    base: torch.Tensor | None,
    arguments: Arguments,
    out: torch.Tensor,
    memo: Memo,
) -> kernels.Work | None:
    """Writes ``B + scale * mean`` to ``out``, where d_i = W_i - B has n elements.

    1. Trim every source: k = int(n (1 - density)), threshold = k-th smallest |d_i|; entries below
       it become 0. Equal magnitudes stay together, so k - 1 entries are dropped when all differ,
       none when k = 0, and the largest always stay.
    2. Elect a sign per element: sign(sum_i w_i d_i); where that is 0, the sign of the sum of all
       elected signs in the tensor.
    3. mean = sum w_i d_i / sum w_i over the entries with the elected sign, 0 if there are none.

    Equal weights give the published rule. A source of weight 0 takes no part; with none left, or
    scale 0, the base is copied bit for bit. ``memo`` keeps a histogram per source, so that a new
    density costs at most one more reading of the inputs.
    """
    assert base is not None, "ties needs a base"
    weights = _votes(canonical.numbers(arguments, "weight"))
    scale = canonical.number(arguments, "scale")
    density = canonical.number(arguments, "density")
    used = [index for index, weight in enumerate(weights) if weight != 0.0]
    if not used or scale == 0.0:
        kernels.copy(base, out)
        return None
    rank = trim_rank(out.numel(), density)
    thresholds = [_threshold(tensors[index], base, rank, memo, index) for index in used]
    largest = max(weights)
    return kernels.ties(
        [tensors[index] for index in used],
        base,
        [weights[index] / largest for index in used],
        thresholds,
        scale,
        out,
    )


def _votes(weights: Sequence[float]) -> tuple[float, ...]:
    """A weight that float32 could not tell from 0 beside the largest one is 0."""
    least = 1e-30 * max(weights)
    return tuple(weight if weight >= least else 0.0 for weight in weights)


def _threshold(
    tensor: torch.Tensor, base: torch.Tensor, rank: int, memo: Memo, index: int
) -> float:
    """Returns the trimming threshold of source ``index``."""
    if rank == 0:
        return 0.0  # nothing is trimmed: no histogram either
    magnitudes: Magnitudes = memo(f"ties/magnitudes/{index}", lambda: Magnitudes.of(tensor, base))
    return magnitudes.threshold(tensor, base, rank)


def simplify(call: Call) -> Call:
    """Drops what does not act, adds up equal sources, divides the weights by the largest.

    One source that is not trimmed is task arithmetic; scale 0 or no source left is the base.
    """
    scale = canonical.significant(canonical.number(call.arguments, "scale"))
    density = canonical.number(call.arguments, "density")
    weights = _votes(canonical.numbers(call.arguments, "weight"))
    used = canonical.without(canonical.combined(call.sources, weights), [call.base])
    if scale == 0.0 or not used:
        return canonical.passthrough(call.base)
    if len(used) == 1 and density == 1.0:
        arguments: Arguments = {"weight": (1.0,), "scale": scale}
        return TASK_ARITHMETIC.simplify(Call("task_arithmetic", tuple(used), call.base, arguments))
    largest = max(used.values())
    ratios = tuple(canonical.significant(weight / largest) for weight in used.values())
    kept: Arguments = {"weight": ratios, "density": density, "scale": scale}
    return Call("ties", tuple(used), call.base, kept)


TIES = METHODS.add(
    "ties",
    Method(
        name="ties",
        merge=merge,
        simplify=simplify,
        parameters=(
            Parameter(
                "weight",
                0.0,
                canonical.LIMIT,
                1.0,
                per_source=True,
                doc="Say of the source in election and mean; only ratios matter.",
            ),
            Parameter(
                "density",
                0.0,
                1.0,
                1.0,
                per_source=False,
                doc="Fraction of a task vector that is kept: 1 minus the published mask rate.",
            ),
            Parameter(
                "scale",
                -canonical.LIMIT,
                canonical.LIMIT,
                1.0,
                per_source=False,
                doc="Factor on the merged task vector.",
            ),
        ),
        needs_base=True,
        min_sources=1,
        max_sources=None,
        paper="https://arxiv.org/abs/2306.01708",
        doc="Base plus the scaled mean of trimmed task vectors that agree with an elected sign.",
    ),
)
