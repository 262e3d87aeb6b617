"""Tensor kernels that the merge methods are made of; native where possible, else torch.

Common rules: inputs have any floating dtype and one shape, are contiguous and on one device.
Arithmetic is float32 with separately rounded products and sums, added in the order given; ``out``
is rounded once, to nearest even. Elementwise results do not depend on chunks, threads or on which
of the two implementations runs.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from auto_merge.methods import fallback, native

if TYPE_CHECKING:
    import torch


def status() -> str:
    """Returns one line saying which implementation runs on the CPU and why.

    The first call in a process may compile the native kernels (seconds).
    """
    return native.state().text


def float32(value: float) -> float:
    """Returns ``value`` rounded to float32; beyond the range it is infinite."""
    return ctypes.c_float(value).value


def _flat(tensors: Sequence[torch.Tensor]) -> tuple[ModuleType, list[torch.Tensor]]:
    """Checks layout, flattens, and chooses the implementation.

    Raises:
        ValueError: Shapes or devices differ, or a tensor is not contiguous. The native kernels
            would read outside the tensors.
    """
    reference = tensors[0]
    for tensor in tensors:
        if tensor.shape != reference.shape or tensor.device != reference.device:
            raise ValueError(
                f"tensors of one merge differ: {tuple(tensor.shape)} on {tensor.device} and "
                f"{tuple(reference.shape)} on {reference.device}"
            )
        if not tensor.is_contiguous() or not tensor.is_floating_point():
            raise ValueError("a merge needs contiguous floating-point tensors")
    module = native if native.usable(tensors) else fallback
    return module, [tensor.detach().view(-1) for tensor in tensors]


def copy(tensor: torch.Tensor, out: torch.Tensor) -> None:
    """Copies ``tensor`` to ``out``: bit for bit if the dtypes are equal, else with one rounding."""
    _, (source, target) = _flat([tensor, out])
    target.copy_(source)


@dataclass(frozen=True)
class Work:
    """An elementwise merge that is ready to run; made by the three functions below.

    A method may return its last step like this instead of running it. The engine then runs the
    works of many tensors together, which spares a call and a wake-up of threads per tensor.

    Attributes:
        kernel: ``weighted_sum``, ``weighted_delta_sum`` or ``ties``.
        tensors: Flat sources, at least one.
        base: Flat base tensor; ``None`` for ``weighted_sum``.
        weights: One per source, rounded to float32.
        out: Flat tensor that is written.
        thresholds: One per source, for ``ties``.
        scale: Factor on the merged task vector, for ``ties``.
        is_native: Whether the native kernels run it.
        factor: What the result is multiplied with before it is rounded, a float32 number.
    """

    kernel: str
    tensors: Sequence[torch.Tensor]
    base: torch.Tensor | None
    weights: Sequence[float]
    out: torch.Tensor
    thresholds: Sequence[float]
    scale: float
    is_native: bool
    factor: float = 1.0


def run(works: Sequence[Work]) -> list[torch.Tensor]:
    """Runs works, which must not write to what another reads or writes.

    On the CPU they run on all threads of torch: large tensors one after the other, small ones side
    by side.

    Returns:
        For every work the number of NaN and infinite elements of ``out``: an int64 scalar on its
        device, so that many can be read with one question to the device.

    Raises:
        MemoryError: There is no memory for scratch space.
    """
    counts: dict[int, torch.Tensor] = {}
    for module, is_native in ((native, True), (fallback, False)):
        places = [place for place, work in enumerate(works) if work.is_native is is_native]
        if places:
            found = module.run([works[place] for place in places])
            counts.update(zip(places, found, strict=True))
    return [counts[place] for place in range(len(works))]


def weighted_sum(
    tensors: Sequence[torch.Tensor], weights: Sequence[float], out: torch.Tensor
) -> Work:
    """``out`` = sum_i w_i W_i; weights are rounded to float32, at least one is given."""
    return _work("weighted_sum", tensors, None, weights, out)


def weighted_delta_sum(
    tensors: Sequence[torch.Tensor],
    base: torch.Tensor,
    weights: Sequence[float],
    out: torch.Tensor,
) -> Work:
    """``out`` = B + sum_i w_i (W_i - B); the sum is formed before B is added."""
    return _work("weighted_delta_sum", tensors, base, weights, out)


def ties(
    tensors: Sequence[torch.Tensor],
    base: torch.Tensor,
    weights: Sequence[float],
    thresholds: Sequence[float],
    scale: float,
    out: torch.Tensor,
) -> Work:
    """``out`` = the TIES merge with known thresholds; formula in :mod:`.ties`.

    Weights must be positive. NaN in a source is kept through the trimming and reaches ``out``.
    """
    return _work("ties", tensors, base, weights, out, tuple(thresholds), float32(scale))


def _work(
    kernel: str,
    tensors: Sequence[torch.Tensor],
    base: torch.Tensor | None,
    weights: Sequence[float],
    out: torch.Tensor,
    thresholds: Sequence[float] = (),
    scale: float = 1.0,
) -> Work:
    count = len(tensors)
    others = [out] if base is None else [out, base]
    module, flat = _flat([*tensors, *others])
    rounded = [float32(weight) for weight in weights]
    flat_base = None if base is None else flat[count + 1]
    return Work(
        *(kernel, flat[:count], flat_base, rounded, flat[count], thresholds, scale),
        is_native=module is native,
    )


def count_invalid(tensor: torch.Tensor) -> torch.Tensor:
    """Counts NaN and infinite elements: an int64 scalar on the device of ``tensor``."""
    return fallback.count_invalid(tensor.detach().view(-1))


def delta_histogram(tensor: torch.Tensor, base: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Counts magnitudes |W - B| by the top 16 bits of their float32 pattern.

    The bins have 8 exponent and 7 mantissa bits, so they ascend with the magnitude; NaN falls in
    the last 128 of them. Differences of 16-bit numbers have few bits: most bins hold one value.

    Returns:
        On the CPU, each with 2**15 elements: the counts (int64), and the lower 16 bits of the
        pattern where all elements of a bin are equal, else -1 (int32; arbitrary for empty bins).
    """
    module, flat = _flat([tensor, base])
    histogram: tuple[torch.Tensor, torch.Tensor] = module.delta_histogram(*flat)
    return histogram


def magnitude(bin_index: int, low: int) -> float:
    """Returns the float32 number with upper 16 bits ``bin_index`` and lower 16 bits ``low``."""
    return float(struct.unpack("<f", struct.pack("<I", bin_index << 16 | low))[0])


def select_delta(tensor: torch.Tensor, base: torch.Tensor, bin_index: int, rank: int) -> float:
    """Returns the ``rank``-th smallest (from 1) |W - B| among those in one histogram bin, exactly.

    ``rank`` must lie between 1 and the count of that bin.
    """
    module, flat = _flat([tensor, base])
    chosen: float = module.select_delta(*flat, bin_index, rank)
    return chosen


def dot_products(first: torch.Tensor, second: torch.Tensor) -> tuple[float, float, float]:
    """Returns a.a, b.b and a.b.

    Products and sums are float64, in chunks of fixed size and order: independent of the number of
    threads; the two implementations agree to about 1e-13 relative to the norms.
    """
    module, flat = _flat([first, second])
    sums: tuple[float, float, float] = module.dot_products(*flat)
    return sums
