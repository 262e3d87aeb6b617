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


def weighted_sum(
    tensors: Sequence[torch.Tensor], weights: Sequence[float], out: torch.Tensor
) -> None:
    """Writes sum_i w_i W_i to ``out``; weights are rounded to float32, at least one is given."""
    module, flat = _flat([*tensors, out])
    module.weighted_sum(flat[:-1], [float32(weight) for weight in weights], flat[-1])


def weighted_delta_sum(
    tensors: Sequence[torch.Tensor],
    base: torch.Tensor,
    weights: Sequence[float],
    out: torch.Tensor,
) -> None:
    """Writes B + sum_i w_i (W_i - B) to ``out``; the sum is formed before B is added."""
    module, flat = _flat([*tensors, base, out])
    rounded = [float32(weight) for weight in weights]
    module.weighted_delta_sum(flat[:-2], flat[-2], rounded, flat[-1])


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


def ties(
    tensors: Sequence[torch.Tensor],
    base: torch.Tensor,
    weights: Sequence[float],
    thresholds: Sequence[float],
    scale: float,
    out: torch.Tensor,
) -> None:
    """Writes the TIES merge with known thresholds to ``out``; formula in :mod:`.ties`.

    Weights must be positive. NaN in a source is kept through the trimming and reaches ``out``.
    """
    module, flat = _flat([*tensors, base, out])
    rounded = [float32(weight) for weight in weights]
    module.ties(flat[:-2], flat[-2], rounded, list(thresholds), float32(scale), flat[-1])


def dot_products(first: torch.Tensor, second: torch.Tensor) -> tuple[float, float, float]:
    """Returns a.a, b.b and a.b.

    Products and sums are float64, in chunks of fixed size and order: independent of the number of
    threads; the two implementations agree to about 1e-13 relative to the norms.
    """
    module, flat = _flat([first, second])
    sums: tuple[float, float, float] = module.dot_products(*flat)
    return sums
