"""Native kernels: one C++ file, compiled on first use and called through ctypes.

``AUTO_MERGE_NATIVE=0`` switches them off. Where they cannot be built or a tensor is not theirs
(another device or dtype), :mod:`auto_merge.methods.fallback` computes the same with torch.
Only :mod:`auto_merge.methods.kernels` chooses between the two and checks shapes and layout.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from auto_merge.methods.native.compiler import (
    BuildError,
    build,
    cache_folder,
    find_compiler,
    library_path,
)

if TYPE_CHECKING:
    import torch

    from auto_merge.methods.kernels import Work

_CODES = {"torch.float32": 0, "torch.bfloat16": 1, "torch.float16": 2}  # with_type in kernels.cpp
_KERNELS = {"weighted_sum": 0, "weighted_delta_sum": 1, "ties": 2}  # run in kernels.cpp
_BINS = 1 << 15
_LARGE = 1 << 23  # elements from which one tensor is worth all threads
_LOCK = threading.Lock()


@dataclass(frozen=True)
class State:
    """What became of the kernels in this process.

    Attributes:
        library: The loaded library, ``None`` if the torch fallback has to do.
        text: One line for people.
    """

    library: ctypes.CDLL | None
    text: str


def state() -> State:
    """Returns the state of the kernels, compiling and loading them at the first call."""
    with _LOCK:
        return _load()


@cache
def _load() -> State:
    if os.environ.get("AUTO_MERGE_NATIVE", "1") == "0":
        return State(None, "torch fallback: switched off by AUTO_MERGE_NATIVE=0")
    try:
        compiler = find_compiler()
        path = library_path(compiler, cache_folder())
        library = _open(compiler, path)
    except (BuildError, OSError) as error:
        return State(None, f"torch fallback: {error}")
    return State(library, f"native kernels: {compiler}, {path}")


def _open(compiler: str, path: Path) -> ctypes.CDLL:
    if path.exists():
        try:
            return ctypes.CDLL(str(path))
        except OSError:
            pass  # damaged, or built against other system libraries: build it again
    build(compiler, path)
    return ctypes.CDLL(str(path))


def usable(tensors: Sequence[torch.Tensor]) -> bool:
    """Returns whether the kernels exist and take tensors of these devices and dtypes."""
    takes = all(tensor.device.type == "cpu" and str(tensor.dtype) in _CODES for tensor in tensors)
    return takes and state().library is not None


class _Job(ctypes.Structure):
    """One elementwise merge; the layout is that of Job in kernels.cpp."""

    _fields_ = (
        ("n", ctypes.c_int64),
        ("data", ctypes.POINTER(ctypes.c_void_p)),
        ("codes", ctypes.POINTER(ctypes.c_int32)),
        ("base", ctypes.c_void_p),
        ("weights", ctypes.POINTER(ctypes.c_float)),
        ("thresholds", ctypes.POINTER(ctypes.c_float)),
        ("out", ctypes.c_void_p),
        ("num_invalid", ctypes.c_int64),
        ("kernel", ctypes.c_int32),
        ("count", ctypes.c_int32),
        ("base_code", ctypes.c_int32),
        ("out_code", ctypes.c_int32),
        ("scale", ctypes.c_float),
        ("factor", ctypes.c_float),
        ("failed", ctypes.c_int32),
    )


def run(works: Sequence[Work]) -> list[torch.Tensor]:
    """See :func:`auto_merge.methods.kernels.run`; all works are native ones."""
    import torch

    jobs = (_Job * len(works))(*(_job(work) for work in works))
    threads = ctypes.c_int32(torch.get_num_threads())
    library = state().library
    assert library is not None
    failed = library.run_jobs(jobs, ctypes.c_int32(len(works)), ctypes.c_int64(_LARGE), threads)
    if failed or any(job.failed for job in jobs):
        raise MemoryError(f"merging {len(works)} tensors")
    return list(torch.tensor([job.num_invalid for job in jobs]))


def _job(work: Work) -> _Job:
    count = len(work.tensors)
    base = work.base
    return _Job(
        n=work.out.numel(),
        data=(ctypes.c_void_p * count)(*(tensor.data_ptr() for tensor in work.tensors)),
        codes=(ctypes.c_int32 * count)(*(_CODES[str(tensor.dtype)] for tensor in work.tensors)),
        base=None if base is None else base.data_ptr(),
        weights=(ctypes.c_float * count)(*work.weights),
        thresholds=(ctypes.c_float * count)(*work.thresholds),
        out=work.out.data_ptr(),
        kernel=_KERNELS[work.kernel],
        count=count,
        base_code=0 if base is None else _CODES[str(base.dtype)],
        out_code=_CODES[str(work.out.dtype)],
        scale=work.scale,
        factor=work.factor,
    )


def _code(tensor: torch.Tensor) -> ctypes.c_int32:
    return ctypes.c_int32(_CODES[str(tensor.dtype)])


def _pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _call(name: str, size: int, *arguments: object) -> None:
    """Calls a kernel; the number of threads is torch's."""
    import torch

    threads = ctypes.c_int32(torch.get_num_threads())
    failed = getattr(state().library, name)(ctypes.c_int64(size), *arguments, threads)
    if failed:
        raise MemoryError(f"kernel {name} on {size} elements")


def delta_histogram(tensor: torch.Tensor, base: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """See :func:`auto_merge.methods.kernels.delta_histogram`."""
    import torch

    counts = torch.empty(_BINS, dtype=torch.int64)
    low = torch.empty(_BINS, dtype=torch.int32)
    _call(
        "delta_histogram",
        tensor.numel(),
        _pointer(tensor),
        _code(tensor),
        _pointer(base),
        _code(base),
        _pointer(counts),
        _pointer(low),
    )
    return counts, low


def select_delta(tensor: torch.Tensor, base: torch.Tensor, bin_index: int, rank: int) -> float:
    """See :func:`auto_merge.methods.kernels.select_delta`."""
    result = ctypes.c_float()
    _call(
        "select_delta",
        tensor.numel(),
        _pointer(tensor),
        _code(tensor),
        _pointer(base),
        _code(base),
        ctypes.c_uint32(bin_index),
        ctypes.c_int64(rank),
        ctypes.byref(result),
    )
    return result.value


def dot_products(first: torch.Tensor, second: torch.Tensor) -> tuple[float, float, float]:
    """See :func:`auto_merge.methods.kernels.dot_products`."""
    result = (ctypes.c_double * 3)()
    _call(
        "dot_products",
        first.numel(),
        _pointer(first),
        _code(first),
        _pointer(second),
        _code(second),
        result,
    )
    return result[0], result[1], result[2]
