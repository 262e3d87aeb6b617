"""Computes one step, and tells whether its result can be used."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from auto_merge.errors import InvalidWeightsError
from auto_merge.merging.layout import Reference
from auto_merge.merging.plan import Step
from auto_merge.merging.rows import Block, gather
from auto_merge.methods import canonical, kernels
from auto_merge.methods.base import METHODS, Call, Memo

if TYPE_CHECKING:
    import torch

Started: TypeAlias = "kernels.Work | torch.Tensor"


_PROBES = 8
_QUICK_SECONDS = 2e-4


def start_step(
    step: Step,
    sources: Sequence[torch.Tensor],
    base: torch.Tensor | None,
    out: torch.Tensor,
    memo: Memo,
) -> Started:
    """Merges the inputs of a step into ``out``, up to work that is worth running with others.

    Returns:
        That work, or the count of NaN and infinite elements of the finished ``out``.
    """
    return _start(step.call, sources, base, out, memo, step.factor)


def start_block(
    block: Block,
    tensor: Callable[[Reference], torch.Tensor],
    out: torch.Tensor,
    memo: Memo,
) -> Started:
    """Merges some rows of a tensor into the same rows of ``out``, see :func:`start_step`."""
    import torch

    sources = [gather(rows, tensor) for rows in block.inputs]
    base = None if block.base is None else gather(block.base, tensor)
    if len(block.rows) == 1:
        ((start, stop),) = block.rows
        return _start(block.call, sources, base, out[start:stop], memo)
    # The rows lie apart: they are merged side by side and taken to their places at once.
    sizes = [stop - start for start, stop in block.rows]
    merged = torch.empty((sum(sizes), *out.shape[1:]), dtype=out.dtype, device=out.device)
    started = _start(block.call, sources, base, merged, memo)
    count = kernels.run([started])[0] if isinstance(started, kernels.Work) else started
    for (start, stop), part in zip(block.rows, torch.split(merged, sizes), strict=True):
        out[start:stop] = part
    return count


def _start(
    call: Call,
    sources: Sequence[torch.Tensor],
    base: torch.Tensor | None,
    out: torch.Tensor,
    memo: Memo,
    factor: float = 1.0,
) -> Started:
    work: kernels.Work | None
    if factor != 1.0 and call.method == "passthrough":
        # Not copied first: the copy would be rounded before it is multiplied.
        work = kernels.weighted_sum(sources, [canonical.number(call.arguments, "scale")], out)
    else:
        work = METHODS.get(call.method).merge(sources, base, call.arguments, out, memo)
    if work is None:
        if factor == 1.0:
            return kernels.count_invalid(out)
        # A method that wrote `out` itself has rounded already.
        work = kernels.weighted_sum([out], [1.0], out)
    work = replace(work, factor=kernels.float32(factor))
    return work if work.is_native else kernels.run([work])[0]


def finish(started: Sequence[Started]) -> list[int]:
    """Runs the work that is left; returns the counts of NaN and infinite elements in order."""
    import torch

    works = [item for item in started if isinstance(item, kernels.Work)]
    found = iter(kernels.run(works))
    counts = [next(found) if isinstance(item, kernels.Work) else item for item in started]
    # One question to the device instead of one per tensor.
    return torch.stack(counts).tolist() if counts else []


def run_jobs(jobs: Sequence[Callable[[], Started]], device: torch.device) -> list[Started]:
    """Runs independent jobs.

    Jobs that only describe their work take microseconds and run in order: threads would spend more
    on handing over the interpreter. If the first ones take longer, on the CPU the others run as
    many at a time as torch has threads, one thread each: no barrier after every operation, which
    costs milliseconds as soon as another process wants the same cores.

    Args:
        jobs: What to run.
        device: Where the tensors are; other devices than the CPU run the jobs in order.

    Returns:
        The results in the order of ``jobs``.
    """
    import torch

    started = time.perf_counter()
    first = [job() for job in jobs[:_PROBES]]
    is_quick = time.perf_counter() - started < _PROBES * _QUICK_SECONDS
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or is_quick:
        return first + [job() for job in jobs[_PROBES:]]
    try:
        with ThreadPoolExecutor(threads, "merge", torch.set_num_threads, (1,)) as pool:
            return first + list(pool.map(lambda job: job(), jobs[_PROBES:]))
    finally:
        # The number is per thread, but a thread that starts later takes the one set last.
        torch.set_num_threads(threads)


def check_finite(step: Step, num_invalid: int) -> None:
    """Raises if a merged tensor contains NaN or infinity.

    Args:
        step: The step, for the message.
        num_invalid: How many elements of the result are NaN or infinite.

    Raises:
        InvalidWeightsError: There are some.
    """
    if num_invalid:
        roles = ", ".join(dict.fromkeys(role for role, _ in step.inputs))
        numbers = ", ".join(f"{name} {value}" for name, value in step.call.arguments.items())
        raise InvalidWeightsError(
            f"{step.output} became NaN or infinite: {step.call.method} of {roles}, {numbers}"
        )
