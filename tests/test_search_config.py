"""The published search results that are shipped as recipes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from auto_merge.cli import run_command
from auto_merge.recipe import files
from auto_merge.recipe.model import Recipe, Slice

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "search_config"
PAPER = ROOT / "exp_config/paper"
PUBLISHED = ROOT.parent / "shared/published"

LFS = {
    "single_lm": ("single-obj/lm-lfs", "linear linear slerp slerp"),
    "single_math": ("single-obj/math-lfs", "task_arithmetic task_arithmetic slerp slerp"),
    "multi_1": ("multi-obj/1", "linear task_arithmetic ties linear"),
    "multi_2": ("multi-obj/2", "task_arithmetic task_arithmetic ties linear"),
    "multi_3": ("multi-obj/3", "task_arithmetic task_arithmetic ties task_arithmetic"),
    "multi_4": ("multi-obj/4", "task_arithmetic task_arithmetic ties task_arithmetic"),
    "multi_5": ("multi-obj/5", "task_arithmetic task_arithmetic ties linear"),
}
"""Name -> published file and methods per group."""
DIS = {
    "lm_0": ("single-obj/lm-dis0", {"model_0": 6, "model_1": 6, "model_2": 29, "base": 6}, 7),
    "lm_1": ("single-obj/lm-dis1", {"model_0": 13, "model_1": 27, "base": 7}, 16),
}
"""Name -> published file, layers per model, output scales other than 1."""
PRUNE = {
    "llama2_13b_1": ("13b/1", 40, [*range(25, 34), 39], (4, 22, 4, 0)),
    "llama2_13b_2": ("13b/2", 40, [18, 23, 25, 27, 28, 29, 31, 32, 33, 36], (4, 15, 11, 0)),
    "llama2_13b_3": ("13b/3", 40, [18, 20, 23, 25, 27, 28, 29, 31, 33, 36], (4, 14, 11, 1)),
    "llama2_7b_1": ("7b/1", 32, [19, 20, 22, 23, 24, 25, 26, 28, 30], (1, 13, 7, 2)),
    "llama2_7b_2": ("7b/2", 32, [19, 20, 21, 22, 23, 25, 26, 30, 31], (3, 13, 7, 0)),
    "llama2_7b_3": ("7b/3", 32, [19, 20, 22, 23, 24, 25, 26, 28, 30], (1, 12, 10, 0)),
}
"""Name -> published file, layers of the models, removed layers, layers with 0 to 3 models."""
CONFIGS = {"single": "config_lfs", "multi": "config_lfs_mo", "lm": "config_dis"}
CONFIGS |= {"llama2-13b": "config_prune", "llama2-7b": "config_prune_7b"}
TWO_MODELS = "strategies.dis.models=[{name: model_0, path: a-b}, {name: model_1, path: c-d}]"


def shipped(name: str) -> Recipe:
    path = FOLDER / f"{name}.yaml"
    return files.from_data(files.parse(path.read_text("utf-8"), str(path)), str(path)).recipe


def values(part: Slice, parameter: str) -> list[float]:
    return [round(entry.value, 3) for entry in part.parameters[parameter]]


def everything() -> list[tuple[str, str]]:
    """Shipped name and published file of all of them."""
    return [
        *((f"lfs/{name}", f"lfs/{row[0]}") for name, row in LFS.items()),
        *((f"dis/{name}", f"dis/{row[0]}") for name, row in DIS.items()),
        *((f"prune/{name}", f"prune/{row[0]}") for name, row in PRUNE.items()),
    ]


def test_every_file_is_known() -> None:
    there = {str(file.relative_to(FOLDER).with_suffix("")) for file in FOLDER.rglob("*.yaml")}
    assert there == {name for name, _ in everything()}
    assert len(there) == 15


@pytest.mark.parametrize("name", [name for name, _ in everything()])
def test_a_person_can_tell_what_it_is(name: str) -> None:
    lines = (FOLDER / f"{name}.yaml").read_text("utf-8").splitlines()
    head = "\n".join(line for line in lines if line.startswith("#"))
    for word in ("Paper:", "arXiv", "Models:", "Transcribed: python merge.py recipe FILE"):
        assert word in head
    assert max(map(len, lines)) <= 140


@pytest.mark.parametrize("name", LFS)
def test_layerwise_fusion(name: str) -> None:
    recipe = shipped(f"lfs/{name}")
    assert recipe.num_layers == 40
    assert " ".join(part.method for part in recipe.slices) == LFS[name][1]
    assert {part.num_layers for part in recipe.slices} == {10}
    assert set(recipe.models()) <= {"model_0", "model_1", "model_2", "base"}


def test_active_values_of_layerwise_fusion() -> None:
    third = shipped("lfs/multi_3").slices
    assert values(third[0], "scale") == [0.948, 0.303, 0.997]
    assert [round(1 - value, 3) for value in values(third[2], "density")] == [0.373, 0.819, 0.324]
    assert values(third[2], "scale") == [0.312, 0.583, 0.606]
    assert values(third[3], "scale") == [0.339, 0.113, 0.580]
    math = shipped("lfs/single_math").slices
    assert values(math[1], "scale") == [0.604, 0.982, 0.329]
    assert values(math[2], "t") == [0.566, 0.594, 0.323]
    assert [source.model for source in math[2].sources] == ["model_1", "model_2"]
    assert values(math[3], "t") == [0.437, 0.469, 0.549]
    assert [source.model for source in math[3].sources] == ["model_1", "model_0"]
    language = shipped("lfs/single_lm").slices
    assert values(language[2], "t") == [0.385, 0.600, 0.354]
    assert [source.model for source in language[2].sources] == ["model_2", "model_0"]


@pytest.mark.parametrize("name", DIS)
def test_depthwise_integration(name: str) -> None:
    recipe = shipped(f"dis/{name}")
    _, layers, scaled = DIS[name]
    assert recipe.num_layers == 47
    assert {part.method for part in recipe.slices} == {"passthrough"}
    assert Counter(part.sources[0].model for part in recipe.slices) == layers
    assert sum(part.output_scale != 1.0 for part in recipe.slices) == scaled
    order = [part.sources[0].layers[0] for part in recipe.slices]
    assert order == sorted(order)
    assert set(order) == set(range(40))


@pytest.mark.parametrize("name", PRUNE)
def test_pruning(name: str) -> None:
    recipe = shipped(f"prune/{name}")
    _, layers, removed, candidates = PRUNE[name]
    kept = [part.sources[0].layers[0] for part in recipe.slices]
    assert kept == [layer for layer in range(layers) if layer not in removed]
    counts = Counter(
        0 if part.sources[0].model == "base" else len(part.sources) for part in recipe.slices
    )
    assert tuple(counts[number] for number in range(4)) == candidates
    assert {part.output_scale for part in recipe.slices} == {1.0}
    assert recipe.base_index == "output"


def command(name: str, file: Path, form: str) -> list[str]:
    """Arguments that print a file in another form."""
    stem = name.split("/")[1].replace("_13b", "-13b").replace("_7b", "-7b")
    words = ["recipe", str(file), "--config", str(PAPER / f"{CONFIGS[stem.split('_')[0]]}.yaml")]
    words += ["--format", form, "--roles", "--json"]
    if name.startswith("dis"):
        words += ["--set", "missing_permutation=identity"]
    if name == "dis/lm_1":
        words += ["--set", TWO_MODELS]
    return words


def printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    assert run_command(words) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("name", "source"), everything(), ids=lambda value: str(value))
def test_there_and_back(
    name: str, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = printed(command(name, FOLDER / f"{name}.yaml", "published"), capsys)
    stored = tmp_path / "flat.json"
    stored.write_text(json.dumps(flat))
    again = printed(command(name, stored, "recipe"), capsys)
    found = files.from_data(again, "again").recipe
    expected = shipped(name)
    assert [part.method for part in found.slices] == [part.method for part in expected.slices]
    for part, other in zip(found.slices, expected.slices, strict=True):
        assert part.sources == other.sources
        assert part.parameters.keys() == other.parameters.keys()
        for parameter in part.parameters:
            ours = [
                (e.filter, pytest.approx(e.value, abs=1e-12)) for e in part.parameters[parameter]
            ]
            assert ours == [(e.filter, e.value) for e in other.parameters[parameter]]
    original = PUBLISHED / f"{source}.json"
    if original.exists():
        assert (
            files.from_data(printed(command(name, original, "recipe"), capsys), "x").recipe
            == expected
        )
        data = json.loads(original.read_text())
        for key, value in flat.items():
            # Of a slerp score only differences act; one DIS file has no orders.
            free = "slerp_t" in key or "remove_idx" in key or key not in data
            assert key in data or "permutation" in key
            if not free:
                assert value == pytest.approx(data[key], abs=1e-12), key
