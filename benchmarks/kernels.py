"""Merge kernels against the memory bandwidth, on the tensors of a 134M-parameter bf16 model.

    python benchmarks/kernels.py [--threads N] [--repeat R] [--published] [--device cuda]

Prints milliseconds for one whole model (best of R) and the ratio to the floor: bytes that must be
read and written, over the copy bandwidth measured in the same run. ``--published`` also times the
published per-tensor TIES (clone and kthvalue) on one tensor of each shape, times their number.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch

from auto_merge.methods import METHODS, kernels, native, status

HIDDEN, INNER, KEYS, VOCABULARY, LAYERS = 576, 1536, 192, 49152, 30
LAYER = [(HIDDEN, HIDDEN), (KEYS, HIDDEN), (KEYS, HIDDEN), (HIDDEN, HIDDEN)]
LAYER += [(INNER, HIDDEN), (INNER, HIDDEN), (HIDDEN, INNER), (HIDDEN,), (HIDDEN,)]
SHAPES = [(VOCABULARY, HIDDEN), *LAYER * LAYERS, (HIDDEN,)]
WEIGHTS = (0.2, 0.3, 0.5)


class Bench:
    def __init__(self, device: str, repeat: int) -> None:
        generator = torch.Generator().manual_seed(0)

        def noise(shape: tuple[int, ...]) -> torch.Tensor:
            return torch.randn(shape, generator=generator)

        base = [0.05 * noise(shape) for shape in SHAPES]
        self.sources = [
            [(tensor + 0.002 * noise(tensor.shape)).bfloat16().to(device) for tensor in base]
            for _ in range(3)
        ]
        self.base = [tensor.bfloat16().to(device) for tensor in base]
        self.out = [torch.empty_like(tensor) for tensor in self.base]
        self.device, self.repeat = device, repeat
        self.bytes = sum(tensor.nbytes for tensor in self.base)

    def seconds(self, act: Callable[[], object], repeat: int | None = None) -> float:
        best = float("inf")
        for _ in range(repeat or self.repeat):
            start = time.perf_counter()
            act()
            if self.device == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
        return best

    def bandwidth(self) -> float:
        joined = torch.cat([tensor.view(-1) for tensor in self.base])
        target = torch.empty_like(joined)
        return 2 * joined.nbytes / self.seconds(lambda: target.copy_(joined), 10)

    def merge(self, method: str, memos: list[Callable[..., Any]], **arguments: Any) -> None:
        sources = self.sources[:2] if method == "slerp" else self.sources
        merge = METHODS.get(method).merge
        works = [
            merge([source[i] for source in sources], self.base[i], arguments, out, memos[i])
            for i, out in enumerate(self.out)
        ]
        kernels.run([work for work in works if work is not None])

    def published_ties(self, rho: float) -> float:
        total = 0.0
        for shape, count in Counter(SHAPES).items():
            i = SHAPES.index(shape)
            sources = [source[i] for source in self.sources]
            total += count * self.seconds(lambda s=sources, i=i: published(s, self.base[i], rho), 1)
        return total


def published(sources: list[torch.Tensor], base: torch.Tensor, rho: float) -> torch.Tensor:
    deltas = torch.stack([(source.float() - base.float()).flatten() for source in sources])
    trimmed = deltas.clone()
    for row in trimmed:
        magnitudes = row.abs()
        threshold = magnitudes.kthvalue(int(row.numel() * rho)).values
        row.mul_(magnitudes >= threshold)
    signs = trimmed.sum(0).sign()
    signs = torch.where(signs == 0, signs.sum().sign(), signs)
    kept = torch.where(trimmed * signs > 0, trimmed, 0.0)
    mean = kept.sum(0) / (kept != 0).sum(0).clamp(min=1)
    return (base.float().flatten() + mean).to(base.dtype)


def memories(count: int) -> list[Callable[..., Any]]:
    def memory() -> Callable[..., Any]:
        values: dict[str, Any] = {}

        def memo(key: str, compute: Callable[[], Any]) -> Any:
            if key not in values:
                values[key] = compute()
            return values[key]

        return memo

    return [memory() for _ in range(count)]


@contextmanager
def torch_only() -> Iterator[None]:
    with mock.patch.object(native, "usable", return_value=False):
        yield


def table(bench: Bench, bandwidth: float, label: str) -> dict[str, float]:
    memos = memories(len(SHAPES))
    ties = {"weight": (1.0, 1.0, 1.0), "scale": 0.5}
    linear = {"weight": WEIGHTS}
    rows: list[tuple[str, int, Callable[[], object], int | None]] = [
        ("linear", 3, lambda: bench.merge("linear", memos, **linear), None),
        (
            "task_arithmetic",
            4,
            lambda: bench.merge("task_arithmetic", memos, scale=1.0, **linear),
            None,
        ),
        ("slerp, first t", 2, lambda: bench.merge("slerp", memos, t=0.3), 1),
        ("slerp, other t", 2, lambda: bench.merge("slerp", memos, t=0.4), None),
        ("ties, first density", 4, lambda: bench.merge("ties", memos, density=0.7, **ties), 1),
    ]
    densities = iter([0.5, 0.3, 0.2, 0.9, 0.4, 0.6, 0.35, 0.85, 0.15, 0.45])
    rows += [
        (
            "ties, other density",
            4,
            lambda: bench.merge("ties", memos, density=next(densities), **ties),
            min(bench.repeat, 10),
        ),
        ("ties, known density", 4, lambda: bench.merge("ties", memos, density=0.7, **ties), None),
    ]
    result = {}
    for name, reads, act, repeat in rows:
        seconds = result[name] = bench.seconds(act, repeat)
        floor = (reads + 1) * bench.bytes / bandwidth
        numbers = f"{seconds * 1e3:.0f} | {floor * 1e3:.0f} | {seconds / floor:.2f}"
        print(f"| {label} | {name} | {numbers} |", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--published", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bench = Bench(options.device, options.repeat)
    bandwidth = bench.bandwidth()
    print(status() if options.device == "cpu" else torch.cuda.get_device_name())
    print(
        f"{bench.bytes / 2e6:.0f}M parameters in bf16, {options.threads} threads, copy bandwidth "
        f"{bandwidth / 1e9:.1f} GB/s (read and write)\n"
    )
    print("| kernels | method | ms | floor ms | ratio |\n|---|---|---|---|---|")
    ours = table(bench, bandwidth, "native" if native.usable(bench.base) else "torch")
    with torch_only():
        if options.device == "cpu":
            table(bench, bandwidth, "torch")
    if options.published:
        seconds = bench.published_ties(0.5)
        ratio = seconds / ours["ties, other density"]
        print(f"\npublished TIES: {seconds * 1e3:.0f} ms, {ratio:.0f} times the new-density merge")


if __name__ == "__main__":
    main()
