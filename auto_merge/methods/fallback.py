"""The kernels in torch operations, for any device and dtype, chunk by chunk through float32.

Elementwise results equal those of ``native/kernels.cpp`` bit for bit: products and sums are
separate operations (``add_(x, alpha=w)`` may fuse them), in the same order. Inputs are copied into
float32 buffers first, because mixed-dtype arithmetic takes a slow path in torch. All tensors are
flat.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from auto_merge.methods.kernels import Work

_BINS = 1 << 15
_MAGNITUDE = 0x7FFFFFFF
_CPU_CHUNK = 1 << 17  # float32 buffers of 512 KB stay in the cache
_GPU_CHUNK = 1 << 24  # large enough to hide the launches
# Up to this size torch sums in one thread, so the sum does not depend on the number of threads.
_CPU_SUM_CHUNK = 1 << 14


def _chunks(tensor: torch.Tensor, cpu_chunk: int = _CPU_CHUNK) -> Iterator[slice]:
    size = cpu_chunk if tensor.device.type == "cpu" else _GPU_CHUNK
    for start in range(0, tensor.numel(), size):
        yield slice(start, min(start + size, tensor.numel()))


def _buffers(like: torch.Tensor, count: int) -> torch.Tensor:
    """``count`` float32 rows, each as long as the longest chunk of ``like``."""
    import torch

    longest = next(_chunks(like), slice(0, 0)).stop
    return torch.empty((count, longest), dtype=torch.float32, device=like.device)


def run(works: Sequence[Work]) -> list[torch.Tensor]:
    """See :func:`auto_merge.methods.kernels.run`."""
    return [_run(work) for work in works]


def _run(work: Work) -> torch.Tensor:
    if work.kernel == "weighted_sum":
        _weighted_sum(work)
    elif work.kernel == "weighted_delta_sum":
        _weighted_delta_sum(work)
    else:
        _ties(work)
    return count_invalid(work.out)


def count_invalid(tensor: torch.Tensor) -> torch.Tensor:
    """See :func:`auto_merge.methods.kernels.count_invalid`."""
    import torch

    count = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for part in _chunks(tensor):
        count += tensor[part].isfinite().logical_not_().sum()
    return count


def _weighted_sum(work: Work) -> None:
    rows = _buffers(work.out, 2)
    for part in _chunks(work.out):
        total, term = rows[:, : part.stop - part.start]
        total.copy_(work.tensors[0][part]).mul_(work.weights[0])
        for tensor, weight in zip(work.tensors[1:], work.weights[1:], strict=True):
            total.add_(term.copy_(tensor[part]).mul_(weight))
        work.out[part].copy_(total.mul_(work.factor))


def _weighted_delta_sum(work: Work) -> None:
    assert work.base is not None
    rows = _buffers(work.out, 3)
    for part in _chunks(work.out):
        start, total, term = rows[:, : part.stop - part.start]
        start.copy_(work.base[part])
        total.copy_(work.tensors[0][part]).sub_(start).mul_(work.weights[0])
        for tensor, weight in zip(work.tensors[1:], work.weights[1:], strict=True):
            total.add_(term.copy_(tensor[part]).sub_(start).mul_(weight))
        work.out[part].copy_(start.add_(total).mul_(work.factor))


def _ties(work: Work) -> None:
    import torch

    assert work.base is not None
    base, out = work.base, work.out
    rows = _buffers(out, 4 + len(work.tensors))
    signs = torch.zeros((), dtype=torch.int64, device=out.device)

    def elect(part: slice) -> list[torch.Tensor]:
        """Fills base, elected sum and trimmed deltas of one chunk."""
        views = list(rows[:, : part.stop - part.start])
        start, elected, term, _, *deltas = views
        start.copy_(base[part])
        elected.zero_()
        for tensor, delta, weight, threshold in zip(
            work.tensors, deltas, work.weights, work.thresholds, strict=True
        ):
            delta.copy_(tensor[part]).sub_(start)
            delta.masked_fill_(delta.abs() < threshold, 0.0)
            elected.add_(torch.mul(delta, weight, out=term))
        return views

    for part in _chunks(out):
        elected = elect(part)[1]
        signs += (elected > 0).sum() - (elected < 0).sum()
    majority = float(signs.sign())
    for part in _chunks(out):
        start, elected, total, mass, *deltas = elect(part)
        undefined = elected.isnan()
        elected.masked_fill_(elected == 0, majority)
        total.zero_()
        mass.zero_()
        for delta, weight in zip(deltas, work.weights, strict=True):
            agrees = ((elected > 0) & (delta > 0)) | ((elected < 0) & (delta < 0))
            total.add_(torch.where(agrees, delta * weight, 0.0))
            mass.add_(agrees.to(torch.float32).mul_(weight))
        total.div_(mass.masked_fill_(mass == 0, 1.0)).masked_fill_(undefined, float("nan"))
        out[part].copy_(start.add_(total.mul_(work.scale)).mul_(work.factor))


def _magnitudes(tensor: torch.Tensor, base: torch.Tensor) -> Iterator[torch.Tensor]:
    """Bit patterns of |tensor - base| as int32, chunk by chunk; they sort like the magnitudes."""
    import torch

    rows = _buffers(tensor, 2)
    for part in _chunks(tensor):
        delta, start = rows[:, : part.stop - part.start]
        delta.copy_(tensor[part]).sub_(start.copy_(base[part]))
        yield delta.view(torch.int32).bitwise_and_(_MAGNITUDE)


def delta_histogram(tensor: torch.Tensor, base: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """See :func:`auto_merge.methods.kernels.delta_histogram`."""
    import torch

    counts = torch.zeros(_BINS, dtype=torch.int64, device=tensor.device)
    smallest = torch.full((_BINS,), 1 << 16, dtype=torch.int32, device=tensor.device)
    largest = torch.full((_BINS,), -1, dtype=torch.int32, device=tensor.device)
    for bits in _magnitudes(tensor, base):
        low = bits & 0xFFFF
        bins = (bits >> 16).to(torch.int64)
        counts += torch.bincount(bins, minlength=_BINS)
        smallest.scatter_reduce_(0, bins, low, "amin")
        largest.scatter_reduce_(0, bins, low, "amax")
    return counts.cpu(), torch.where(smallest == largest, smallest, -1).cpu()


def select_delta(tensor: torch.Tensor, base: torch.Tensor, bin_index: int, rank: int) -> float:
    """See :func:`auto_merge.methods.kernels.select_delta`."""
    import torch

    found = torch.cat([bits[bits >> 16 == bin_index] for bits in _magnitudes(tensor, base)])
    chosen: torch.Tensor = found.kthvalue(rank).values
    return float(chosen.view(torch.float32))


def dot_products(first: torch.Tensor, second: torch.Tensor) -> tuple[float, float, float]:
    """See :func:`auto_merge.methods.kernels.dot_products`."""
    import torch

    sums = torch.zeros(3, dtype=torch.float64, device=first.device)
    for part in _chunks(first, _CPU_SUM_CHUNK):
        x, y = first[part].double(), second[part].double()
        sums += torch.stack([(x * x).sum(), (y * y).sum(), (x * y).sum()])
    xx, yy, xy = sums.tolist()
    return xx, yy, xy
