"""Computes one step, and tells whether its result can be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from auto_merge.errors import InvalidWeightsError
from auto_merge.merging.plan import Step
from auto_merge.methods.base import METHODS, Memo

if TYPE_CHECKING:
    import torch

_LARGE = 1 << 23
"""Elements from which one tensor is worth all threads."""


def run_step(
    step: Step,
    sources: Sequence[torch.Tensor],
    base: torch.Tensor | None,
    out: torch.Tensor,
    memo: Memo,
) -> torch.Tensor:
    """Merges the inputs of a step into ``out``.

    Returns:
        The sum of ``out`` as a scalar tensor on its device: NaN and infinity survive summation, and
        right after it was written the tensor is still in the cache.
    """
    METHODS.get(step.call.method).merge(sources, base, step.call.arguments, out, memo)
    return out.sum()


def run_jobs(
    jobs: Sequence[Callable[[], torch.Tensor]], sizes: Sequence[int], device: torch.device
) -> list[torch.Tensor]:
    """Runs independent jobs, on the CPU several at a time.

    A large tensor gets all threads of torch, one after the other. Smaller ones are dealt out to as
    many single threads: they need no barrier after every operation, which costs milliseconds each
    as soon as another process wants the same cores.

    Args:
        jobs: What to run.
        sizes: Number of elements that each job writes.
        device: Where the tensors are; other devices than the CPU run the jobs in order.

    Returns:
        The results in the order of ``jobs``.
    """
    import torch

    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        return [job() for job in jobs]
    results: dict[int, torch.Tensor] = {}
    small = [number for number, size in enumerate(sizes) if size < _LARGE]
    for number in set(range(len(jobs))).difference(small):
        results[number] = jobs[number]()
    small.sort(key=lambda number: -sizes[number])
    try:
        with ThreadPoolExecutor(threads, "merge", torch.set_num_threads, (1,)) as pool:
            results.update(zip(small, pool.map(lambda n: jobs[n](), small), strict=True))
    finally:
        # The number is per thread, but a thread that starts later takes the one set last.
        torch.set_num_threads(threads)
    return [results[number] for number in range(len(jobs))]


def check_finite(step: Step, total_is_finite: bool, out: torch.Tensor) -> None:
    """Raises if a merged tensor contains NaN or infinity.

    Args:
        step: The step, for the message.
        total_is_finite: Whether the sum of ``out`` is finite; if not, ``out`` is looked at again,
            because the sum of finite values can overflow.
        out: The merged tensor.

    Raises:
        InvalidWeightsError: It does.
    """
    if not total_is_finite and not bool(out.isfinite().all()):
        roles = ", ".join(dict.fromkeys(role for role, _ in step.inputs))
        numbers = ", ".join(f"{name} {value}" for name, value in step.call.arguments.items())
        raise InvalidWeightsError(
            f"{step.output} became NaN or infinite: {step.call.method} of {roles}, {numbers}"
        )
