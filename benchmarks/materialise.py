"""Measures how fast a new candidate appears in the live model, against the memory bandwidth.

    python benchmarks/materialise.py                     # CPU, 134 M parameters, about two minutes
    python benchmarks/materialise.py --device cuda --size 1b

Builds a base and three sources of random values in a temporary folder, then merges a completely new
layer-wise candidate (five layer groups, own parameters for attention, MLP and the rest) per method.
The floor is the time to move the bytes that must be read and written at the speed of a plain copy,
measured next to each candidate. Every figure is a median; all ratios come from one run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from auto_merge.checkpoints.checkpoint import Checkpoint, open_checkpoint
from auto_merge.merging.live import LiveModel
from auto_merge.merging.plan import Plan, build_plan
from auto_merge.methods import METHODS, status
from auto_merge.recipe.model import Entry, Recipe, Slice, Source

SIZES: dict[str, dict[str, Any]] = {
    "134m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
}
SOURCES = ("one", "two", "three")
NUM_GROUPS = 5
FILTERS = ("self_attn", "mlp", None)
MERGED = ("linear", "task_arithmetic", "ties", "slerp")


def write_checkpoints(folder: Path, size: str) -> dict[str, Checkpoint]:
    """Base: normal values of deviation 0.02. Sources: base plus deltas of deviation 0.001."""
    from safetensors.torch import save_file

    config = SIZES[size] | {"model_type": "llama", "dtype": "bfloat16"}
    with torch.device("meta"):
        hf_config = transformers.AutoConfig.for_model(**config)
        model = transformers.AutoModelForCausalLM.from_config(hf_config)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    base = {n: torch.randn(shape, generator=generator) * 0.02 for n, shape in shapes.items()}
    opened = {}
    for role in ("base", *SOURCES):
        target = folder / role
        target.mkdir()
        tensors = {}
        for name, tensor in base.items():
            delta = torch.randn(tensor.shape, generator=generator) if role != "base" else 0.0
            tensors[name] = (tensor + 0.001 * delta).to(torch.bfloat16)
        save_file(tensors, target / "model.safetensors")
        (target / "config.json").write_text(json.dumps(config))
        opened[role] = open_checkpoint(target)
    return opened


def candidate(method: str, num_layers: int, draw: random.Random) -> Recipe:
    """Returns a random layer-wise recipe: every number in it is new."""

    def entries(low: float, high: float) -> tuple[Entry, ...]:
        return tuple(Entry(draw.uniform(low, high), text) for text in FILTERS)

    roles = SOURCES[:2] if method == "slerp" else SOURCES
    ranges = {"weight": (0.1, 1.0), "scale": (0.3, 1.0), "density": (0.2, 0.9), "t": (0.3, 0.7)}
    parameters = METHODS.get(method).parameters
    bounds = [num_layers * number // NUM_GROUPS for number in range(NUM_GROUPS + 1)]
    slices = []
    for start, end in itertools.pairwise(bounds):
        sources = tuple(
            Source(
                role,
                (start, end),
                {p.name: entries(*ranges[p.name]) for p in parameters if p.per_source},
            )
            for role in roles
        )
        shared = {p.name: entries(*ranges[p.name]) for p in parameters if not p.per_source}
        slices.append(Slice(method, sources, shared))
    return Recipe(tuple(slices), base="base")


def synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def timed(work: Callable[[], Any], device: str) -> float:
    synchronise(device)
    started = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - started


class CopySpeed:
    """Bytes read plus written per second by a plain copy of a tensor as large as the model."""

    def __init__(self, num_elements: int, device: str) -> None:
        self._source = torch.ones(num_elements, dtype=torch.bfloat16, device=device)
        self._target = torch.empty_like(self._source).copy_(self._source)
        self._device = device

    def measure(self) -> float:
        seconds = timed(lambda: self._target.copy_(self._source), self._device)
        return 2 * self._source.nbytes / seconds


def measure_method(
    method: str, live: LiveModel, checkpoints: Mapping[str, Checkpoint], copy: CopySpeed, args: Any
) -> dict[str, float]:
    draw = random.Random(1)
    rows = []
    for _ in range(args.repeats + 1):
        recipe = candidate(method, checkpoints["base"].num_layers, draw)
        started = time.perf_counter()
        plan = build_plan(recipe, checkpoints)
        planning = time.perf_counter() - started
        # A kept histogram belongs to the inputs, so the first candidate is the one that pays.
        speed = statistics.median(copy.measure() for _ in range(3))
        seconds = timed(lambda plan=plan: live.materialise(plan), args.device)
        last = live.last
        assert last is not None
        assert last.num_computed == len(plan.steps), "every tensor of the candidate is new"
        moved = last.bytes_read + last.bytes_written
        row = {"ms": seconds * 1e3, "floor": moved / speed * 1e3, "plan": planning * 1e3}
        rows.append(row | {"ratio": row["ms"] / row["floor"], "moved": moved, "speed": speed / 1e9})
    first, warm = rows[0], rows[1:]
    result = {key: statistics.median(row[key] for row in warm) for key in first}
    spread = sorted(row["ms"] for row in warm)
    return result | {"first": first["ms"], "low": spread[0], "high": spread[-1]}


def published_ties(plan: Plan, checkpoints: Mapping[str, Checkpoint], device: str) -> float:
    """Seconds of the published per-tensor rule: a clone and ``kthvalue`` per source and tensor."""
    seconds = 0.0
    for step in plan.steps:
        sources = [checkpoints[role].tensor(name).to(device) for role, name in step.inputs]
        assert step.base is not None
        base = checkpoints["base"].tensor(step.base[1]).to(device)
        rate = 1.0 - step.call.arguments["density"]  # type: ignore[operator]
        scale = step.call.arguments["scale"]
        seconds += timed(lambda s=sources, b=base, r=rate, c=scale: _ties(s, b, r, c), device)
    return seconds


def _ties(sources: list[torch.Tensor], base: torch.Tensor, rate: float, scale: Any) -> torch.Tensor:
    start = base.float()
    trimmed = []
    for source in sources:
        delta = (source.float() - start).clone().flatten()
        threshold = delta.abs().kthvalue(max(int(delta.numel() * rate), 1)).values
        trimmed.append(torch.where(delta.abs() >= threshold, delta, 0.0))
    deltas = torch.stack(trimmed)
    signs = deltas.sum(0).sign()
    signs[signs == 0] = signs.sum().sign()
    agreeing = torch.where(deltas.sign() == signs, deltas, 0.0)
    mean = agreeing.sum(0) / (agreeing != 0).sum(0).clamp(min=1)
    return (start + scale * mean.view_as(start)).to(base.dtype)


def untouched(live: LiveModel, checkpoints: Mapping[str, Checkpoint]) -> list[str]:
    """Counts what passthrough and a change in one layer group touch."""
    layers = checkpoints["base"].num_layers
    copy = Recipe((Slice("passthrough", (Source("one", (0, layers)),)),), base="base")
    live.materialise(build_plan(copy, checkpoints))
    alone = live.last
    first = candidate("linear", layers, random.Random(5))
    other = candidate("linear", layers, random.Random(6))
    live.materialise(build_plan(first, checkpoints))
    slices = (*first.slices[:2], other.slices[2], *first.slices[3:])
    live.materialise(build_plan(Recipe(slices, base="base"), checkpoints))
    group = live.last
    assert alone is not None
    assert group is not None
    return [
        f"- Passthrough of a whole model: {alone.num_aliased} tensors aliased, "
        f"{alone.bytes_written} bytes written, {alone.seconds * 1e3:.1f} ms.",
        f"- One of {NUM_GROUPS} layer groups changed: {group.num_computed} tensors computed, "
        f"{group.num_reused} kept, {group.seconds * 1e3:.1f} ms.",
    ]


def report(args: Any, rows: dict[str, dict[str, float]], notes: list[str], name: str) -> str:
    lines = [
        f"# Materialising a new candidate: {args.size} parameters, bfloat16, {name}",
        "",
        f"`python benchmarks/materialise.py --device {args.device} --size {args.size}`; "
        f"Python {platform.python_version()}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} cores; "
        f"{status().partition(':')[0]}; load average {os.getloadavg()[0]:.1f}.",
        "",
        f"Medians of {args.repeats} completely new candidates (lowest to highest in brackets). "
        "`first` is the first candidate of a method, which also fills its memo. The floor is the "
        "bytes read and written over the speed of a plain copy, measured next to each candidate.",
        "",
        "| method | ms | first ms | copy GB/s | moved GB | GB/s | floor ms | ratio | plan ms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method, row in rows.items():
        lines.append(
            f"| {method} | {row['ms']:.1f} ({row['low']:.1f} to {row['high']:.1f}) | "
            f"{row['first']:.1f} | {row['speed']:.1f} | {row['moved'] / 1e9:.2f} | "
            f"{row['moved'] / row['ms'] / 1e6:.1f} | {row['floor']:.1f} | {row['ratio']:.2f} | "
            f"{row['plan']:.1f} |"
        )
    return "\n".join([*lines, "", *notes, ""])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", default="134m", choices=SIZES)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--skip-published", action="store_true", help="leave the slow rival out")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = write_checkpoints(Path(folder), args.size)
        num_elements = sum(info.nbytes for info in checkpoints["base"].tensors.values()) // 2
        copy = CopySpeed(num_elements, args.device)
        live = LiveModel(checkpoints, device=args.device)
        rows = {m: measure_method(m, live, checkpoints, copy, args) for m in MERGED}
        notes = untouched(live, checkpoints)
        if not args.skip_published:
            recipe = candidate("ties", checkpoints["base"].num_layers, random.Random(9))
            seconds = published_ties(build_plan(recipe, checkpoints), checkpoints, args.device)
            notes.append(
                f"- Published per-tensor TIES (`kthvalue` on a clone): {seconds * 1e3:.0f} ms, "
                f"{seconds * 1e3 / rows['ties']['ms']:.0f} times ours."
            )
        name = torch.cuda.get_device_name() if args.device != "cpu" else platform.machine() + " CPU"
        text = report(args, rows, notes, name)
    suffix = "" if (args.device, args.size) == ("cpu", "134m") else f"_{args.device}_{args.size}"
    output = args.output or Path(__file__).parent / "results"
    output.mkdir(parents=True, exist_ok=True)
    (output / f"materialise{suffix}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
