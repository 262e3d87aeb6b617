"""Output scales folded into weights do what a scale inside the forward pass would do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from merge_recipes import opened, part, recipe
from pico import make_models
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from auto_merge.errors import RecipeError
from auto_merge.merging.export import export_model
from auto_merge.merging.live import LiveModel
from auto_merge.merging.plan import build_plan
from auto_merge.recipe.model import Recipe, ScaleMode

SCALES = (1.3, 1.0, 0.6, 0.85)
METHODS: dict[str, dict[str, Any]] = {
    "passthrough": {},
    "linear": {},
    "task_arithmetic": {"scale": 0.7},
    "ties": {"density": 0.5, "scale": 0.8},
    "slerp": {"t": 0.3},
}


def scaled(mode: ScaleMode, method: str = "passthrough") -> Recipe:
    """A slice per layer, each with its output scale."""
    roles = ["source_1"] if method == "passthrough" else ["source_1", "source_2"]
    parts = [
        replace(part(method, roles, (layer, layer + 1), **METHODS[method]), output_scale=scale)
        for layer, scale in enumerate(SCALES)
    ]
    return replace(recipe(*parts), scale_mode=mode)


@contextmanager
def hooked(model: Any, mode: ScaleMode) -> Iterator[None]:
    """Multiplies inside the forward pass."""
    inner = getattr(model, "model", None) or model.gpt_neox
    handles = []
    for layer, scale in zip(inner.layers, SCALES, strict=True):

        def multiply(module: Any, inputs: Any, output: Any, scale: float = scale) -> Any:
            return output * scale

        target = layer.mlp if mode == "mlp" else layer
        handles.append(target.register_forward_hook(multiply))
    yield
    for handle in handles:
        handle.remove()


def logits(model: Any) -> torch.Tensor:
    tokens = torch.arange(4, 44).view(2, 20)
    with torch.no_grad():
        return model(input_ids=tokens).logits


@pytest.mark.parametrize("mode", ["mlp", "hidden"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral", "phi", "gpt_neox", "gemma"])
def test_folded_scales_equal_a_forward_hook(tmp_path: Path, family: str, mode: ScaleMode) -> None:
    checkpoints = opened(make_models(tmp_path, 1, family=family))
    plain = recipe(part("passthrough", ["source_1"], (0, 4)))
    live = LiveModel(checkpoints)
    with hooked(live.materialise(build_plan(plain, checkpoints)), mode):
        expected = logits(live.materialise(build_plan(plain, checkpoints)))
    unscaled = logits(live.materialise(build_plan(plain, checkpoints)))
    found = logits(live.materialise(build_plan(scaled(mode), checkpoints)))
    size = expected.abs().max()
    assert (found - expected).abs().max() <= 1e-4 * size
    assert (unscaled - expected).abs().max() > 1e-2 * size


@pytest.mark.parametrize("mode", ["mlp", "hidden"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_scaled(tmp_path: Path, method: str, mode: ScaleMode) -> None:
    checkpoints = opened(make_models(tmp_path, 2))
    given = scaled(mode, method)
    plain = unscaled(given)
    live = LiveModel(checkpoints)
    with hooked(live.materialise(build_plan(plain, checkpoints)), mode):
        expected = logits(live.materialise(build_plan(plain, checkpoints)))
    found = logits(live.materialise(build_plan(given, checkpoints)))
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_an_exported_model_is_plain_and_scaled(tmp_path: Path) -> None:
    checkpoints = opened(make_models(tmp_path / "models", 2))
    plan = build_plan(scaled("hidden", "task_arithmetic"), checkpoints)
    export_model(plan, checkpoints, tmp_path / "out", files={})
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config.model_type == "llama"
    expected = logits(LiveModel(checkpoints).materialise(plan))
    assert torch.allclose(logits(model), expected, rtol=1e-5, atol=1e-6)


def test_a_scale_changes_only_the_weights_that_it_acts_on(tmp_path: Path) -> None:
    checkpoints = opened(make_models(tmp_path, 1))
    plain = {s.output: s.digest for s in build_plan(unscaled(scaled("mlp")), checkpoints).steps}
    for mode, factors in (("mlp", {0, 2, 3}), ("hidden", {1, 2, 3})):
        steps = build_plan(scaled(mode), checkpoints).steps  # type: ignore[arg-type]
        changed = {step.output for step in steps if step.digest != plain[step.output]}
        ends = ["mlp.down_proj"] if mode == "mlp" else ["mlp.down_proj", "self_attn.o_proj"]
        assert changed == {f"model.layers.{i}.{end}.weight" for i in factors for end in ends}


def unscaled(given: Recipe) -> Recipe:
    return replace(given, slices=tuple(replace(p, output_scale=1.0) for p in given.slices))


@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
def test_where_a_scale_cannot_be_folded_it_is_refused(tmp_path: Path, family: str) -> None:
    checkpoints = opened(make_models(tmp_path, 1, family=family))
    with pytest.raises(RecipeError, match="normalises what its branches write"):
        build_plan(scaled("mlp"), checkpoints)
    build_plan(unscaled(scaled("mlp")), checkpoints)


def test_a_scale_of_zero_only_works_on_the_mlp(tmp_path: Path) -> None:
    checkpoints = opened(make_models(tmp_path, 1))
    dead = scaled("mlp")
    dead = replace(dead, slices=(replace(dead.slices[0], output_scale=0.0), *dead.slices[1:]))
    build_plan(dead, checkpoints)
    with pytest.raises(RecipeError, match="output layer 0: scale_mode 'hidden' needs output sc"):
        build_plan(replace(dead, scale_mode="hidden"), checkpoints)


def test_the_base_layer_of_a_moved_layer(tmp_path: Path) -> None:
    checkpoints = opened(make_models(tmp_path, 2))
    moved = recipe(
        part("passthrough", ["source_1"], (0, 1)),
        part("task_arithmetic", ["source_1", "source_2"], (3, 4), scale=0.5),
    )
    for index, layer in (("source", 3), ("output", 1)):
        plan = build_plan(replace(moved, base_index=index), checkpoints)  # type: ignore[arg-type]
        bases = {step.base[1] for step in plan.steps if step.base and "layers" in step.output}
        assert all(f".layers.{layer}." in name for name in bases)
        assert bases


@pytest.mark.parametrize(("dtype", "value"), [("bfloat16", 1.0), ("float16", 7e4)])
def test_a_scaled_copy_is_rounded_once(tmp_path: Path, dtype: str, value: float) -> None:
    models = make_models(tmp_path, 1)
    name = "model.layers.0.mlp.down_proj.weight"
    tensors = load_file(models["source_1"] / "model.safetensors")
    tensors[name] = value * torch.rand(tensors[name].shape)
    save_file(tensors, models["source_1"] / "model.safetensors", metadata={"format": "pt"})
    checkpoints = opened(models)
    given = recipe(replace(part("passthrough", ["source_1"]), output_scale=0.7), dtype=dtype)
    model = LiveModel(checkpoints).materialise(build_plan(given, checkpoints))
    found = model.model.layers[0].mlp.down_proj.weight
    assert torch.equal(found, (tensors[name] * 0.7).to(found.dtype))
