"""The published search files on models of their depth: decoded, scored, exported, loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pico import make_llama
from transformers import AutoModelForCausalLM
from world import write_tasks

from auto_merge.cli import run_command
from auto_merge.config import load_config

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT.parent / "shared/published"
FILES = sorted(PUBLISHED.rglob("*.json"))
pytestmark = pytest.mark.skipif(not FILES, reason="the published files are not here")
FAST = ("lfs/multi-obj/3", "dis/single-obj/lm-dis0", "prune/7b/2")
LAYERS = {"lfs": 40, "dis": 47, "13b": 30, "7b": 23}


def name_of(file: Path) -> str:
    return str(file.relative_to(PUBLISHED).with_suffix(""))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two families of pico models, as deep as the published ones, and two tasks."""
    folder = tmp_path_factory.mktemp("deep")
    for layers in (40, 32):
        base = make_llama(folder / f"{layers}/base", layers=layers)
        for number in range(3):
            make_llama(
                folder / f"{layers}/model_{number}", like=base, layers=layers, seed=number + 1
            )
    write_tasks(folder / "tasks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTO_MERGE_CACHE", str(folder / "cache"))
        yield folder


def configuration(world: Path, name: str) -> Path:
    """The paper's configuration with its model names, on the pico models and tasks."""
    kind, scale, *_ = name.split("/")
    stem = {
        "lfs": "config_lfs",
        "dis": "config_dis",
        "13b": "config_prune",
        "7b": "config_prune_7b",
    }
    paper = load_config(ROOT / f"exp_config/paper/{stem[scale if kind == 'prune' else kind]}.yaml")
    data: dict[str, Any] = paper.resolved()
    section = data["strategies"][paper.strategy]
    layers = section["num_hidden_layers"]
    for number, model in enumerate(section["models"]):
        model["path"] = str(world / f"{layers}/model_{number}")
    section["base_model"]["path"] = str(world / f"{layers}/base")
    if name.endswith("dis1"):
        section["models"].pop()
    data["global_params"]["evaluation"] = {
        "torch_dtype": "float32",
        "device": "cpu",
        "include_path": str(world / "tasks"),
        "tasks": [{"task": "pico_choice", "metric": "acc,none"}],
    }
    data["global_params"]["search"] = {"max_trials": 1, "min_budget": 4, "max_budget": 8}
    data["compat"] = "published"
    data["global_params"]["output_path"] = ""
    data["global_params"]["cache_dir"] = ""
    file = world / f"{name.replace('/', '_')}.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(file, marks=[] if name_of(file) in FAST else [pytest.mark.slow])
        for file in FILES
    ],
    ids=name_of,
)
def test_replay(world: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = name_of(file)
    config = configuration(world, name)
    out = world / "out" / name
    words = ["replay", str(file), "--config", str(config), "--export", str(out), "--json"]
    assert run_command(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["scores"]["search"][0]["num_documents"] > 0
    assert "slices:" in result["recipe"]
    model = AutoModelForCausalLM.from_pretrained(out)
    kind, scale, *_ = name.split("/")
    assert model.config.num_hidden_layers == LAYERS[scale if kind == "prune" else kind]
    assert model.config.model_type == "llama"
    tokens = torch.arange(4, 16).view(1, 12)
    with torch.no_grad():
        whole = model(input_ids=tokens).logits[:, -1]
        past = model(input_ids=tokens[:, :-1], use_cache=True).past_key_values
        last = model(input_ids=tokens[:, -1:], past_key_values=past).logits[:, -1]
    assert len(past) == model.config.num_hidden_layers
    assert torch.allclose(whole, last, atol=1e-4)


def test_another_number_of_models_is_refused_with_both(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configuration(world, "dis/single-obj/lm-dis1")
    words = ["replay", str(PUBLISHED / "dis/single-obj/lm-dis0.json"), "--config", str(config)]
    assert run_command([*words, "--no-evaluate"]) == 2
    error = capsys.readouterr().err
    assert "3 " in error
    assert "2 " in error
