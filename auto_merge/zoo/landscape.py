"""Measures how much a merge of the zoo can gain, and how hard the gain is to find.

``python -m auto_merge.zoo.landscape`` prints one table: every source, one task-arithmetic scale
for all sources, and the winners of small searches over finer choices. Searches choose on search
documents only; every number in the table is an accuracy on held-out documents.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from auto_merge import zoo
from auto_merge.zoo.scoring import Exam
from auto_merge.zoo.skills import SKILLS

Scales = npt.NDArray[np.float64]

SINGLE_SCALES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
LARGEST_SCALE = 1.5
_MODULES = ("self_attn", "mlp")


def group_of(tensor: str, layers: int, layer_groups: int) -> int:
    """Index in ``range(3 * layer_groups)`` of the group that scales a tensor.

    A group is a run of consecutive layers and one of self_attn, mlp, rest. The embedding belongs
    to the first run, the final norm and the head to the last.
    """
    parts = tensor.split(".")
    if parts[1] != "layers":
        run = 0 if parts[1] == "embed_tokens" else layer_groups - 1
        return 3 * run + 2
    run = int(parts[2]) * layer_groups // layers
    return 3 * run + (_MODULES.index(parts[3]) if parts[3] in _MODULES else 2)


class Blend:
    """Task arithmetic with one scale per source and group, evaluated in a live model.

    Args:
        model: live model whose parameters are overwritten.
        base: float32 parameters of the base by name.
        sources: float32 parameters of the K sources by name.
        layer_groups: number of equal runs of layers.
    """

    def __init__(
        self,
        model: Any,
        base: Mapping[str, torch.Tensor],
        sources: Sequence[Mapping[str, torch.Tensor]],
        layer_groups: int = 2,
    ) -> None:
        self.model = model
        self.shape = (len(sources), 3 * layer_groups)
        layers = model.config.num_hidden_layers
        self._tensors = [
            (
                parameter,
                base[name],
                torch.stack([source[name] - base[name] for source in sources]),
                group_of(name, layers, layer_groups),
            )
            for name, parameter in model.named_parameters()
        ]

    def apply(self, scales: Scales) -> Any:
        """Write base + sum over k of ``scales[k, group]`` times delta k; return the model."""
        factors = torch.as_tensor(np.array(scales), dtype=torch.float32)
        with torch.no_grad():
            for parameter, base, deltas, group in self._tensors:
                parameter.copy_(base + torch.tensordot(factors[:, group], deltas, dims=1))
        return self.model


def climb(
    value: Callable[[Scales], float],
    shape: tuple[int, int],
    layerwise: bool,
    evaluations: int,
    generator: np.random.Generator,
) -> Scales:
    """Random restarts, then mutations of the four best; the best candidate found.

    The first candidates are every source alone and the single scales up to one half.

    Args:
        value: what to maximise, for scales of the given shape.
        shape: sources, groups.
        layerwise: scales differ between groups; otherwise one number per source.
        evaluations: how often ``value`` may be called.
        generator: draws candidates and mutations.
    """
    width = shape[1] if layerwise else 1
    candidates = [np.tile(row[:, None], shape[1]) for row in np.eye(shape[0])]
    candidates += [np.full(shape, scale) for scale in SINGLE_SCALES if scale <= 0.5]
    seen: list[tuple[float, Scales]] = []
    while len(seen) < evaluations:
        if len(seen) < len(candidates):
            scales = candidates[len(seen)]
        elif len(seen) < 0.3 * evaluations:
            scales = generator.uniform(0, 0.8, (shape[0], width)) * np.ones(shape)
        else:
            best = sorted(seen, key=lambda pair: -pair[0])[:4]
            step = generator.normal(0, generator.choice([0.08, 0.15, 0.3]), (shape[0], width))
            step *= generator.random(step.shape) < generator.choice([0.2, 0.5, 1.0])
            scales = best[generator.integers(len(best))][1] + step
        scales = scales.clip(0, LARGEST_SCALE)
        seen.append((value(scales), scales))
    return max(seen, key=lambda pair: pair[0])[1]


def _parameters(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {
        name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()
    }


def _row(label: str, scores: Sequence[float], note: str = "") -> None:
    cells = " ".join(f"{score:8.3f}" for score in scores)
    print(f"{label:28s} {cells} {np.mean(scores):8.3f}  {note}", flush=True)


def measure(
    folder: Path, documents: int, heldout_documents: int, evaluations: int, seeds: Sequence[int]
) -> None:
    """Print the table for the zoo in ``folder`` (one model folder per name)."""
    from auto_merge.zoo.models import build_model

    names = zoo.names()
    base, *sources = (_parameters(folder / name) for name in names)
    blend = Blend(build_model(0).eval(), base, sources)
    search = [Exam.of(skill, "search", documents) for skill in SKILLS]
    heldout = [Exam.of(skill, "heldout", heldout_documents) for skill in SKILLS]

    def scores(exams: Sequence[Exam], scales: Scales) -> list[float]:
        model = blend.apply(scales)
        return [exam.accuracy(model) for exam in exams]

    print(" " * 29 + " ".join(f"{skill.name:>8s}" for skill in SKILLS) + "     mean")
    _row("base", scores(heldout, np.zeros(blend.shape)))
    for index, name in enumerate(names[1:]):
        own = np.zeros(blend.shape)
        own[index] = 1.0
        row = scores(heldout, own)
        others = float(np.mean([score for k, score in enumerate(row) if k != index]))
        _row(name, row, f"own minus others {row[index] - others:.3f}")
    _row("uniform average", scores(heldout, np.full(blend.shape, 1 / len(sources))))
    for scale in SINGLE_SCALES:
        _row(f"one scale {scale}", scores(heldout, np.full(blend.shape, scale)))
    for layerwise, label in ((False, "scale per source"), (True, "per source, layers, module")):
        for seed in seeds:
            found = climb(
                lambda scales: float(np.mean(scores(search, scales))),
                blend.shape,
                layerwise,
                evaluations,
                np.random.default_rng(seed),
            )
            _row(f"{label} #{seed}", scores(heldout, found))


def main(arguments: list[str] | None = None) -> int:
    """Command line of the measurement."""
    parser = argparse.ArgumentParser(prog="auto_merge.zoo.landscape", description=__doc__)
    parser.add_argument("--models", type=Path, default=zoo.path("base").parent)
    parser.add_argument("--documents", type=int, default=200, help="search documents per skill")
    parser.add_argument("--heldout", type=int, default=1500, help="held-out documents per skill")
    parser.add_argument("--evaluations", type=int, default=150, help="candidates per search")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1], help="search seeds")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    counts = (options.documents, options.heldout, options.evaluations)
    measure(options.models, *counts, options.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
