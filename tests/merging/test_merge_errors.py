"""Every recipe or model that does not fit is refused in one line before any weight is read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from merge_recipes import linear, opened, part, recipe
from pico import VOCABULARY, make_family, make_llama, make_models, read_tensors, write_tensors

from auto_merge.checkpoints.checkpoint import Checkpoint
from auto_merge.checkpoints.mapped import MappedFiles
from auto_merge.errors import CheckpointError, RecipeError, UserError
from auto_merge.merging.plan import build_plan
from auto_merge.recipe.model import Recipe, Slice, Source


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    folder = tmp_path_factory.mktemp("models")
    models = make_models(folder, 2)
    models["deep"] = make_llama(folder / "deep", layers=5)
    models["wide"] = make_llama(folder / "wide", config={"intermediate_size": 32})
    models["heads"] = make_llama(folder / "heads", config={"num_attention_heads": 2, "head_dim": 4})
    models["mistral"] = make_family(folder / "mistral", "mistral")
    swapped = (*VOCABULARY[:10], VOCABULARY[11], VOCABULARY[10], *VOCABULARY[12:])
    models["swapped"] = make_llama(folder / "swapped", vocabulary=swapped)
    models["biased"] = make_llama(folder / "biased", config={"attention_bias": True})
    return opened(models)


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: MappedFiles, info: Any) -> torch.Tensor:
        raise AssertionError(f"read {info.name}")

    monkeypatch.setattr(MappedFiles, "view", refuse)


def refusal(given: Recipe, checkpoints: dict[str, Checkpoint], kind: type[UserError]) -> str:
    with pytest.raises(kind) as caught:
        build_plan(given, checkpoints)
    assert "\n" not in str(caught.value)
    return str(caught.value)


TWO = ["source_1", "source_2"]
CASES = {
    "role": (linear(source_1=1, sauce_2=1), "unknown model 'sauce_2'; did you mean 'source_2'?"),
    "base role": (recipe(part("linear", TWO), base="bass"), "unknown model 'bass'"),
    "method": (recipe(part("liner", TWO)), "slices[0]: unknown merge method 'liner'; did you mean"),
    "no slices": (Recipe(()), "no slices"),
    "slice parameter": (
        recipe(part("linear", ["source_1"]), part("ties", TWO, densty=1)),
        "slices[1]: ties has no parameter 'densty' of a slice; did you mean 'density'?",
    ),
    "source parameter": (
        recipe(part("linear", {"source_1": {}, "source_2": {"wight": 1}})),
        "slices[0].sources[1]: linear has no parameter 'wight' of a source; did you mean 'weight'?",
    ),
    "no such": (
        recipe(part("slerp", {"source_1": {"weight": 1}, "source_2": {}})),
        "slerp has no parameter 'weight' of a source; it has none",
    ),
    "belongs to sources": (
        recipe(part("linear", TWO, weight=1)),
        "slices[0]: 'weight' of linear is a parameter of each source, not of the slice",
    ),
    "belongs to slice": (
        recipe(part("task_arithmetic", {"source_1": {"scale": 1}})),
        "slices[0].sources[0]: 'scale' of task_arithmetic is a parameter of the slice",
    ),
    "range": (
        recipe(part("ties", TWO, density={"mlp": 0.5, "": 1.5})),
        "slices[0].parameters.density: 1.5 is not a number from 0 to 1",
    ),
    "nan": (
        recipe(part("ties", TWO, density=math.nan)),
        "slices[0].parameters.density: nan is not a number",
    ),
    "text": (
        recipe(part("ties", TWO, density="0.5")),
        "slices[0].parameters.density: '0.5' is not a number",
    ),
    "truth": (recipe(part("ties", TWO, density=True)), "True is not a number"),
    "too few": (recipe(part("slerp", ["source_1"])), "slerp takes exactly 2 sources, found 1"),
    "too many": (recipe(part("passthrough", TWO)), "passthrough takes exactly 1 source, found 2"),
    "none": (recipe(part("linear", [])), "linear takes at least 1 source, found 0"),
    "no base": (recipe(part("ties", TWO), base=None), "slices[0]: ties needs a base model"),
    "outside": (
        recipe(part("linear", TWO, (2, 6))),
        "slices[0].sources[0]: layers [2, 6] do not lie inside model 'source_1', which has 4",
    ),
    "empty": (recipe(part("linear", TWO, (2, 2))), "layers [2, 2] do not lie inside"),
    "negative": (recipe(part("linear", TWO, (-1, 1))), "layers [-1, 1] do not lie inside"),
    "lengths": (
        Recipe((Slice("linear", (Source("source_1", (0, 2)), Source("source_2", (0, 3)))),)),
        "sources give different numbers of layers, 2 and 3 ('source_2')",
    ),
    "depths": (
        linear(source_1=1, deep=1),
        "models with different layer counts cannot be merged: 'source_1' 4, 'deep' 5",
    ),
    "base depth": (
        recipe(part("ties", TWO), base="deep"),
        "different layer counts cannot be merged: 'source_1' 4, 'deep' 5",
    ),
    "several base layers": (
        Recipe((Slice("ties", (Source("source_1", (0, 2)), Source("source_2", (2, 4)))),), "base"),
        "ties subtracts one base layer from all sources",
    ),
    "architecture": (
        linear(source_1=1, mistral=1),
        "differ in model_type: 'llama' and 'mistral'",
    ),
    "attention heads": (linear(source_1=1, heads=1), "differ in num_attention_heads: 4 and 2"),
    "vocabulary": (
        linear(source_1=1, swapped=1),
        "models 'base' and 'swapped' have different vocabularies: 2 tokens have different ids, "
        "the first are 'g', 'h'",
    ),
    "weights": (linear(source_1=1, source_2=-1), "slices[0], tensor model.embed_tokens.weight"),
    "dtype": (recipe(part("linear", TWO), dtype="int8"), "cannot have dtype 'int8'; set one of"),
}


@pytest.mark.parametrize("case", CASES)
def test_recipes_that_do_not_fit(checkpoints: dict[str, Checkpoint], case: str) -> None:
    given, reason = CASES[case]
    assert reason in refusal(given, checkpoints, RecipeError)


def test_shapes_that_differ(checkpoints: dict[str, Checkpoint]) -> None:
    message = refusal(linear(source_1=1, wide=1), checkpoints, CheckpointError)
    assert "mlp." in message
    assert "[24, 16] in model 'source_1' but [32, 16] in 'wide'" in message or (
        "[16, 24] in model 'source_1' but [16, 32] in 'wide'" in message
    )


def test_tensors_that_only_one_model_has(checkpoints: dict[str, Checkpoint]) -> None:
    expected = "model 'biased' has a tensor self_attn.k_proj.bias, layer 0 of 'source_1' has none"
    assert expected in refusal(linear(source_1=1, biased=1), checkpoints, CheckpointError)
    assert expected in refusal(linear(biased=1, source_1=1), checkpoints, CheckpointError)


def test_an_outer_tensor_that_is_missing(
    checkpoints: dict[str, Checkpoint], tmp_path: Path
) -> None:
    folder = make_llama(tmp_path / "m")
    tensors = read_tensors(folder)
    del tensors["model.norm.weight"]
    write_tensors(folder, tensors)
    models = checkpoints | opened({"bald": folder})
    message = refusal(linear(source_1=1, bald=1), models, CheckpointError)
    assert "model 'bald'" in message
    assert "lacks the tensor model.norm.weight" in message


def test_padded_vocabularies_of_one_tokenizer_are_fine(tmp_path: Path) -> None:
    models = make_models(tmp_path, 1, config={"vocab_size": 80})
    assert build_plan(linear(base=1, source_1=1), opened(models)).config["vocab_size"] == 80


def test_middle_layers_may_come_from_another_vocabulary(
    checkpoints: dict[str, Checkpoint],
) -> None:
    stack = recipe(
        part("linear", ["source_1"], (0, 1)),
        part("linear", ["swapped"], (1, 3)),
        part("linear", ["source_2"], (3, 4)),
    )
    assert build_plan(stack, checkpoints).config["num_hidden_layers"] == 4


def test_kinds_of_layers_follow_their_layers(tmp_path: Path) -> None:
    kinds = ["sliding_attention", "full_attention"] * 2
    config = {"layer_types": kinds}
    models = make_models(tmp_path, 1, family="gemma2", config=config)
    stack = recipe(part("passthrough", ["base"], (1, 4)), part("passthrough", ["source_1"], (1, 2)))
    plan = build_plan(stack, opened(models))
    assert plan.config["layer_types"] == [*kinds[1:], kinds[1]]
    for folder in models.values():
        data = json.loads((folder / "config.json").read_text())
        del data["layer_types"]
        (folder / "config.json").write_text(json.dumps(data))
    assert build_plan(linear(source_1=1), opened(models)).config["num_hidden_layers"] == 4
    message = refusal(stack, opened(models), RecipeError)
    assert "does not list layer_types" in message


def test_a_filter_that_selects_nothing(checkpoints: dict[str, Checkpoint]) -> None:
    given = recipe(part("linear", {"source_1": {"weight": {"mpl": 0.3, "": 1.0}}, "source_2": {}}))
    text = refusal(given, checkpoints, RecipeError)
    assert text == "slices[0]: filter 'mpl' selects no tensor; did you mean 'mlp'?"
    # One that acts at the ends of the stack only is no mistake.
    ends = {"lm_head": 0.3, "": 1.0}
    build_plan(
        recipe(
            part("linear", {"source_1": {"weight": ends}, "source_2": {}}, (0, 2)),
            part("linear", {"source_1": {"weight": ends}, "source_2": {}}, (2, 4)),
        ),
        checkpoints,
    )
