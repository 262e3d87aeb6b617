"""A small but complete world for end-to-end tests: pico models, two tasks, a configuration."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import yaml
from pico import make_llama

LETTERS = "abcdefgh"
MANY, FEW = 36, 24


STRATEGIES: dict[str, dict[str, Any]] = {
    "lfs": {"layer_granularity": 1, "filters": ["self_attn", "mlp"]},
    "lfs_multiobj": {"layer_granularity": 1, "filters": ["self_attn", "mlp"]},
    "dis": {"layers": 4, "merging_method": "passthrough"},
    "prune": {"layers": 1},
}
"""Strategy -> its settings for models of two layers; merge ranges are added where it has them."""


def make_world(
    folder: Path, *, optimizer: str = "random", strategy: str = "lfs", **search: Any
) -> Path:
    """Writes models, tasks and ``<strategy>.yaml`` into ``folder``; returns the configuration file.

    Search documents: 36 per task, rungs 4, 12 and 36.
    """
    base = make_llama(folder / "models/base", layers=2)
    for seed, name in enumerate(("left", "right"), start=1):
        make_llama(folder / "models" / name, layers=2, like=base, seed=seed, spread=0.2)
    write_tasks(folder / "tasks")
    return write_configuration(folder, strategy, optimizer, **search)


def write_configuration(
    folder: Path, strategy: str, optimizer: str = "random", **search: Any
) -> Path:
    """Writes ``<strategy>.yaml``."""
    file = folder / f"{strategy}.yaml"
    file.write_text(yaml.safe_dump(configuration(optimizer, strategy, **search)), "utf-8")
    return file


def configuration(
    optimizer: str = "random", strategy: str = "lfs", **search: Any
) -> dict[str, Any]:
    """The configuration as data."""
    section = {"merging_method": _RANGES, **STRATEGIES[strategy]}
    return {
        "strategy": strategy,
        "global_params": {
            "random_seed": 3,
            "cache_dir": "",
            "output_path": "",
            "evaluation": {
                "device": "cpu",
                "torch_dtype": "float32",
                "include_path": "tasks",
                "holdout": {"split": "heldout"},
                "tasks": [
                    {"task": "pico_choice", "metric": "acc,none"},
                    {"task": "pico_next", "metric": "exact_match,none"},
                ],
            },
        },
        "strategies": {
            strategy: {
                "search": {
                    "optimizer": optimizer,
                    "max_trials": 16,
                    "min_budget": 4,
                    "max_budget": MANY,
                    **search,
                },
                "base_model": {"name": "base", "path": "models/base"},
                "models": [
                    {"name": "left", "path": "models/left"},
                    {"name": "right", "path": "models/right"},
                ],
                **section,
            }
        },
    }


_RANGES = {
    "linear": {"weights": {"min": 0, "max": 1}},
    "task_arithmetic": {"scaling_coefficient": {"min": 0, "max": 1}},
    "ties": {
        "param_value_mask_rate": {"min": 0, "max": 0.99},
        "scaling_coefficient": {"min": 0, "max": 1},
    },
    "slerp": {"slerp_t": {"min": 0, "max": 1}},
}


def write_tasks(folder: Path) -> None:
    """Writes a multiple-choice and a generation task with search and held-out documents."""
    folder.mkdir(parents=True)
    dice = random.Random(1)
    words = iter(dict.fromkeys("".join(dice.choices(LETTERS, k=5)) for _ in range(400)))
    for task, kind in (("pico_choice", "multiple_choice"), ("pico_next", "generate_until")):
        for split, count in (("search", MANY), ("heldout", FEW)):
            lines = [json.dumps(_document(next(words), kind, dice)) for _ in range(count)]
            (folder / f"{task}_{split}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
        (folder / f"{task}.yaml").write_text(yaml.safe_dump(_task(task, kind)), "utf-8")


def _document(word: str, kind: str, dice: random.Random) -> dict[str, Any]:
    if kind == "multiple_choice":
        return {"question": f"{word}=", "choices": list("abcd"), "answer": dice.randrange(4)}
    return {"question": f"{word}>", "answer": dice.choice(LETTERS)}


def _task(task: str, kind: str) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "task": task,
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {split: f"{task}_{split}.jsonl" for split in ("search", "heldout")}
        },
        "test_split": "search",
        "validation_split": "heldout",
        "num_fewshot": 0,
        "output_type": kind,
        "doc_to_text": "{{question}}",
        "target_delimiter": "",
        "metadata": {"version": 1.0},
    }
    if kind == "multiple_choice":
        return {
            **fields,
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }
    return {
        **fields,
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": [";"], "do_sample": False, "max_gen_toks": 1},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
