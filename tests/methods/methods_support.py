"""Helpers of the merge method tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from hypothesis import HealthCheck, settings

from auto_merge.methods import METHODS, Arguments, Call, kernels

FAST = settings(
    deadline=None,
    max_examples=40,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# One element, odd, below, at and above the block and vector sizes, and an empty tensor.
SHAPES = ((1,), (), (7,), (3, 5), (1023,), (32, 32), (1025,), (5, 1000), (0, 4))


class Memory:
    """A memo that counts its computations."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.computed: list[str] = []

    def __call__(self, key: str, compute: Callable[[], Any]) -> Any:
        if key not in self.values:
            self.computed.append(key)
            self.values[key] = compute()
        return self.values[key]


def noise(
    shape: Sequence[int], seed: int, dtype: torch.dtype = torch.float32, scale: float = 1.0
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(tuple(shape), generator=generator) * scale).to(dtype)


def models(
    count: int, shape: Sequence[int], dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """``count`` sources near a common base."""
    base = noise(shape, 1000 + seed)
    sources = [(base + 0.1 * noise(shape, seed + 7 * i)).to(dtype) for i in range(count)]
    return sources, base.to(dtype)


def carry_out(work: kernels.Work | None) -> None:
    """Runs what a method left to its caller."""
    if work is not None:
        kernels.run([work])


def merged(
    method: str,
    sources: Sequence[torch.Tensor],
    base: torch.Tensor | None,
    out_dtype: torch.dtype | None = None,
    memo: Memory | None = None,
    **arguments: float | tuple[float, ...],
) -> torch.Tensor:
    """The merge with defaults filled in; inputs are checked to be left alone."""
    declared = METHODS.get(method).parameters
    filled: dict[str, float | tuple[float, ...]] = {
        parameter.name: (parameter.default,) * len(sources)
        if parameter.per_source
        else parameter.default
        for parameter in declared
    }
    filled.update(arguments)
    before = [tensor.clone() for tensor in sources]
    out = torch.full_like(sources[0], 77.0, dtype=out_dtype or sources[0].dtype)
    carry_out(METHODS.get(method).merge(sources, base, filled, out, memo or Memory()))
    for tensor, copy in zip(sources, before, strict=True):
        assert torch.equal(tensor.nan_to_num(), copy.nan_to_num())
    return out


def merged_call(call: Call, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Executes a call whose keys are those of ``tensors``."""
    sources = [tensors[key] for key in call.sources]
    base = None if call.base is None else tensors[call.base]
    out = torch.empty_like(sources[0])
    carry_out(METHODS.get(call.method).merge(sources, base, call.arguments, out, Memory()))
    return out


def simplified(
    method: str, sources: Sequence[str], base: str | None, **arguments: float | tuple[float, ...]
) -> Call:
    values: Arguments = arguments
    return METHODS.get(method).simplify(Call(method, tuple(sources), base, values))


def published_ties(
    sources: Sequence[torch.Tensor], base: torch.Tensor, rho: float, scale: float
) -> torch.Tensor:
    """The published rule, written down directly in float32 with torch's own order statistics."""
    deltas = [(source.float() - base.float()).flatten() for source in sources]
    trimmed = []
    for delta in deltas:
        rank = int(delta.numel() * rho)
        if rank == 0:
            trimmed.append(delta)
        else:
            threshold = delta.abs().kthvalue(rank).values
            trimmed.append(torch.where(delta.abs() >= threshold, delta, 0.0))
    total = torch.zeros_like(deltas[0])
    for delta in trimmed:
        total = total + delta
    signs = total.sign()
    signs = torch.where(signs == 0, signs.sum().sign(), signs)
    kept = [torch.where((delta * signs) > 0, delta, 0.0) for delta in trimmed]
    count = torch.stack([delta != 0 for delta in kept]).sum(0)
    mean = torch.zeros_like(total)
    for delta in kept:
        mean = mean + delta
    return (base.float().flatten() + scale * (mean / count.clamp(min=1))).view(base.shape)
