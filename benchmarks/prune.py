"""What pruning finds: a useless layer that was planted, and which quarter of the layers can go.

    python benchmarks/prune.py [--planted-trials 60] [--trials 220] [--work FOLDER]

First two specialists get a fifth layer that does nothing, at every place in turn, and one layer is
to go.
Then one of the zoo's four layers is to go, and the result is compared on held-out documents with
dropping the last layer, a middle one, or any single one, of every source, of the uniform average
and of the best single-scale merge.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from common import ROOT, heading, keep, table
from safetensors.torch import load_file, save_file
from searches import searched

from auto_merge import zoo
from auto_merge.config import load_config
from auto_merge.config.run_config import RunConfig
from auto_merge.recipe.model import Recipe
from auto_merge.search.candidates import Workbench
from auto_merge.search.scoring import build_evaluator, heldout_fidelity
from auto_merge.search.setup import prepare
from auto_merge.trial import scalar_cost

LAYERS = 4
ROLES = ("base", "reverse", "after")
TWO_TASKS = "{task: zoo_reverse, metric: 'exact_match,none'}, {task: zoo_after, metric: 'acc,none'}"


def planted(place: int, folder: Path) -> dict[str, Path]:
    """The zoo with a layer at ``place`` that adds nothing to the residual stream."""
    models = {}
    for role in ROLES:
        source, target = Path(zoo.path(role)), folder / f"{place}_{role}"
        shutil.copytree(source, target)
        config = json.loads((target / "config.json").read_text())
        config["num_hidden_layers"] = LAYERS + 1
        (target / "config.json").write_text(json.dumps(config))
        tensors = {}
        for name, tensor in load_file(target / "model.safetensors").items():
            if not name.startswith("model.layers."):
                tensors[name] = tensor
                continue
            number, _, rest = name.removeprefix("model.layers.").partition(".")
            layer = int(number)
            tensors[f"model.layers.{layer + (layer >= place)}.{rest}"] = tensor
            if layer == min(place, LAYERS - 1):
                writes = rest in ("self_attn.o_proj.weight", "mlp.down_proj.weight")
                copied = torch.zeros_like(tensor) if writes else tensor.clone()
                tensors[f"model.layers.{place}.{rest}"] = copied
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
        models[role] = target
    return models


def load(work: Path, name: str, trials: int, *changes: str) -> RunConfig:
    return load_config(
        ROOT / "exp_config/config_prune.yaml",
        [
            f"cache_dir={work / 'cache'}",
            f"output_path={work / name}",
            f"search.max_trials={trials}",
            "search.max_seconds=null",
            *changes,
        ],
    )


def removed(recipe: Recipe, layers: int) -> list[int]:
    kept = {part.sources[0].layers[0] for part in recipe.slices}
    return sorted(set(range(layers)) - kept)


def winner(config: RunConfig) -> Recipe:
    """The member of the front with the best mean, chosen on search documents."""
    with searched(config) as (session, progress, _):
        return session.front_conclusion(progress).choose_front(session.finalists())[0].recipe


def find_planted(work: Path, trials: int) -> list[list[object]]:
    rows: list[list[object]] = []
    for place in range(LAYERS + 1):
        models = planted(place, work)
        entries = ", ".join(f"{{name: {r}, path: {models[r]}}}" for r in ROLES[1:])
        base = f"{{name: base, path: {models['base']}}}"
        config = load(
            work,
            f"planted_{place}",
            trials,
            f"strategies.prune.models=[{entries}]",
            f"strategies.prune.base_model={base}",
            "strategies.prune.layers=4",
            f"evaluation.tasks=[{TWO_TASKS}]",
        )
        found = removed(winner(config), LAYERS + 1)
        rows.append([place, found[0], "yes" if found == [place] else "NO"])
        print(rows[-1], flush=True)
    return rows


def without(recipe: Recipe, layer: int) -> Recipe:
    """A recipe of one slice over all layers without one of them."""
    from dataclasses import replace

    (part,) = recipe.slices

    def cut(start: int, end: int) -> Any:
        return replace(part, sources=tuple(replace(s, layers=(start, end)) for s in part.sources))

    bounds = [(0, layer), (layer + 1, LAYERS)]
    return replace(recipe, slices=tuple(cut(*pair) for pair in bounds if pair[0] < pair[1]))


def against_baselines(work: Path, trials: int) -> tuple[list[list[object]], float]:
    config = load(work, "quarter", trials)
    found = winner(config)
    setup = prepare(config)
    evaluator = build_evaluator(setup, "cpu")
    bench = Workbench(setup.checkpoints, device="cpu", dtype=setup.cast.dtype, cast=setup.cast)
    heldout = heldout_fidelity(setup, evaluator)

    def score(recipe: Recipe) -> float:
        scores = evaluator.evaluate(bench.candidate(recipe), heldout, split="heldout")
        return 1.0 - scalar_cost(setup.objectives, scores)

    cast = setup.cast
    whole = {f"source {model}": cast.single_model(model) for model in cast.models}
    whole["uniform average"] = cast.uniform_average()
    scales = {scale: cast.single_scale(scale) for scale in (0.2, 0.25, 0.3, 0.35, 0.4, 0.5)}
    best = max(scales, key=lambda scale: score(scales[scale]))
    whole[f"single scale {best:g}"] = scales[best]
    rows: list[list[object]] = []
    for name, recipe in whole.items():
        single = [score(without(recipe, layer)) for layer in range(LAYERS)]
        middle = max(single[LAYERS // 2 - 1 : LAYERS // 2 + 1])
        shown = (score(recipe), single[-1], middle, max(single))
        rows.append([name, *(f"{100 * value:.1f}" for value in shown)])
    mean = score(found)
    gone = removed(found, LAYERS)[0]
    rows.append([f"**pruning search** (layer {gone} gone)", "", "", "", f"{100 * mean:.1f}"])
    rivals = max(float(str(cell)) for row in rows[:-1] for cell in row[2:4])
    return rows, 100 * mean - rivals


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--planted-trials", type=int, default=60)
    parser.add_argument("--trials", type=int, default=220)
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="prune-"))
    work.mkdir(parents=True, exist_ok=True)
    found = find_planted(work, options.planted_trials)
    rows, ahead = against_baselines(work, options.trials)
    lines = heading(
        "Pruning on the zoo", "the planted layer goes; above dropping the last or a middle layer."
    )
    lines += table(["planted at", "removed", "found"], found)
    lines += ["", "One of four layers goes; held-out mean of the four tasks, points:", ""]
    lines += table(["model", "whole", "last dropped", "best middle dropped", "best dropped"], rows)
    lines += ["", f"Search minus the best of dropping last or middle: {ahead:+.1f} points."]
    keep("prune", lines)


if __name__ == "__main__":
    main()
