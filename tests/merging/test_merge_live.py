from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from merge_recipes import IDS, linear, opened, part, recipe
from pico import FAMILIES, make_llama, make_models, read_tensors, write_tensors
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

import auto_merge.merging.execute as execute
from auto_merge.checkpoints.checkpoint import Checkpoint
from auto_merge.errors import CheckpointError, InvalidWeightsError
from auto_merge.merging.live import LiveModel
from auto_merge.merging.plan import build_plan
from auto_merge.methods import native
from auto_merge.recipe.model import Recipe

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        ],
    ),
]
THIRDS = recipe(
    part("linear", ["source_1", "source_2"], (0, 1)),
    part("slerp", ["source_1", "source_2"], (1, 2), t=0.4),
    part("task_arithmetic", ["source_1", "source_2"], (2, 3), scale=0.6),
    part("ties", ["source_1", "source_2"], (3, 4), density=0.5),
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_models(tmp_path_factory.mktemp("models"), 2)


@pytest.fixture
def checkpoints(models: dict[str, Path]) -> dict[str, Checkpoint]:
    return opened(models)


@pytest.fixture
def live(checkpoints: dict[str, Checkpoint]) -> LiveModel:
    return LiveModel(checkpoints)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS.to(model.device)).logits.cpu()


def loaded(folder: Path, dtype: str = "float32") -> torch.Tensor:
    return logits(AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("family", FAMILIES)
def test_passthrough_is_the_source_bit_for_bit(tmp_path: Path, family: str, device: str) -> None:
    models = make_models(tmp_path, 1, family=family, layers=2, dtype="bfloat16")
    plan = build_plan(recipe(part("passthrough", ["source_1"], (0, 2))), opened(models))
    model = LiveModel(opened(models), device=device).materialise(plan)
    reference = AutoModelForCausalLM.from_pretrained(models["source_1"], dtype=torch.bfloat16)
    assert torch.equal(logits(model), logits(reference.to(device)))
    assert not model.training
    expected = reference.state_dict()
    assert model.state_dict().keys() == expected.keys()
    for name, buffer in reference.named_buffers():
        assert torch.equal(model.get_buffer(name), buffer)


@pytest.mark.parametrize("device", DEVICES)
def test_values_are_those_of_the_formula(models: dict[str, Path], device: str) -> None:
    live = LiveModel(opened(models), device=device)
    model = live.materialise(build_plan(linear(source_1=1, source_2=3), opened(models)))
    first, second = (read_tensors(models[role]) for role in ("source_1", "source_2"))
    for name, parameter in model.state_dict().items():
        expected = 0.25 * first[name] + 0.75 * second[name]
        assert torch.equal(parameter.cpu(), expected), name


def test_passthrough_copies_nothing(live: LiveModel, checkpoints: dict[str, Checkpoint]) -> None:
    model = live.materialise(build_plan(recipe(part("passthrough", ["source_1"])), checkpoints))
    last = live.last
    assert last is not None
    assert (last.num_aliased, last.num_computed, last.bytes_written) == (39, 0, 0)
    assert all(not parameter.requires_grad for parameter in model.parameters())
    for name, parameter in model.named_parameters():
        assert parameter.data_ptr() == checkpoints["source_1"].tensor(name).data_ptr()


def test_another_dtype_is_converted_not_aliased(
    live: LiveModel, checkpoints: dict[str, Checkpoint]
) -> None:
    plan = build_plan(recipe(part("passthrough", ["source_1"])), checkpoints, dtype="bfloat16")
    model = live.materialise(plan)
    assert live.last is not None
    assert live.last.num_computed == 39
    name = "model.norm.weight"
    expected = checkpoints["source_1"].tensor(name).bfloat16()
    assert torch.equal(model.get_parameter(name), expected)


def test_only_what_changed_is_computed(live: LiveModel, checkpoints: dict[str, Checkpoint]) -> None:
    def run(*weights: float) -> tuple[int, int, int]:
        sources = [{"source_1": {"weight": w}, "source_2": {}} for w in weights]
        parts = [part("linear", s, (n, n + 1)) for n, s in enumerate(sources)]
        live.materialise(build_plan(recipe(*parts), checkpoints))
        assert live.last is not None
        return (live.last.num_computed, live.last.num_aliased, live.last.num_reused)

    assert run(1, 1, 1, 1) == (39, 0, 0)
    assert run(1, 1, 1, 1) == (0, 0, 39)
    assert run(1, 2, 1, 1) == (9, 0, 30)
    assert live.last is not None
    assert live.last.bytes_read == 2 * live.last.bytes_written > 0
    assert run(1, 0, 1, 1) == (0, 9, 30)
    assert run(1, 2, 1, 1) == (0, 0, 39)  # the buffers still hold these layers
    assert run(2, 2, 1, 1) == (10, 0, 29)  # the embedding goes with the first layers


def test_the_same_model_object_and_buffers_serve_all_candidates(
    live: LiveModel, checkpoints: dict[str, Checkpoint]
) -> None:
    first = live.materialise(build_plan(linear(source_1=1, source_2=2), checkpoints))
    places = {name: p.data_ptr() for name, p in first.named_parameters()}
    live.materialise(build_plan(recipe(part("passthrough", ["source_2"])), checkpoints))
    second = live.materialise(build_plan(linear(source_1=5, source_2=2), checkpoints))
    assert second is first
    assert {name: p.data_ptr() for name, p in second.named_parameters()} == places


def test_any_order_of_candidates_gives_the_same_model(
    live: LiveModel, checkpoints: dict[str, Checkpoint]
) -> None:
    recipes = [
        THIRDS,
        linear(source_1=1, source_2=2),
        recipe(part("passthrough", ["source_1"])),
        recipe(part("ties", ["source_1", "source_2"], density=0.3)),
        recipe(part("passthrough", ["base"], (0, 3))),
        THIRDS,
    ]
    for given in recipes:
        plan = build_plan(given, checkpoints)
        fresh = LiveModel(checkpoints).materialise(plan)
        assert torch.equal(logits(live.materialise(plan)), logits(fresh))


def test_depth_and_dtype_may_change(live: LiveModel, checkpoints: dict[str, Checkpoint]) -> None:
    for layers, dtype in ((4, "float32"), (2, "float32"), (2, "bfloat16"), (4, "float32")):
        given = recipe(part("linear", ["source_1", "source_2"], (0, layers)))
        model = live.materialise(build_plan(given, checkpoints, dtype=dtype))
        assert model.config.num_hidden_layers == layers
        assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}
        assert bool(logits(model).isfinite().all())


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    checkpoints = opened(make_models(tmp_path, 2, family="llama_tied"))
    live = LiveModel(checkpoints)
    for given in (linear(source_1=1, source_2=1), recipe(part("passthrough", ["source_1"]))):
        model = live.materialise(build_plan(given, checkpoints))
        assert model.lm_head.weight is model.model.embed_tokens.weight
        assert bool(logits(model).isfinite().all())


def test_a_tied_and_an_untied_model_merge_into_an_untied_one(tmp_path: Path) -> None:
    tied = make_llama(tmp_path / "tied", tied=True)
    untied = make_llama(tmp_path / "untied", seed=3)
    checkpoints = opened({"tied": tied, "untied": untied})
    plan = build_plan(recipe(part("linear", ["tied", "untied"]), base=None), checkpoints)
    assert plan.config["tie_word_embeddings"] is False
    model = LiveModel(checkpoints).materialise(plan)
    expected = 0.5 * read_tensors(tied)["model.embed_tokens.weight"]
    expected += 0.5 * read_tensors(untied)["lm_head.weight"]
    assert torch.equal(model.lm_head.weight, expected)


def test_neox_heads_under_either_name(tmp_path: Path) -> None:
    models = make_models(tmp_path, 1, family="gpt_neox", layers=2)
    tensors = read_tensors(models["source_1"])
    tensors["lm_head.weight"] = tensors.pop("embed_out.weight")
    write_tensors(models["source_1"], tensors)
    checkpoints = opened(models)
    for role in models:
        plan = build_plan(recipe(part("passthrough", [role], (0, 2))), checkpoints)
        assert torch.equal(logits(LiveModel(checkpoints).materialise(plan)), loaded(models[role]))
    assert len(build_plan(recipe(part("linear", list(models), (0, 2))), checkpoints).steps) > 0


def spoil(folder: Path, name: str, value: float) -> None:
    tensors = read_tensors(folder)
    tensors[name].view(-1)[3] = value
    write_tensors(folder, tensors)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_caught(tmp_path: Path, value: float) -> None:
    models = make_models(tmp_path, 2)
    spoil(models["source_2"], "model.layers.1.mlp.up_proj.weight", value)
    checkpoints = opened(models)
    live = LiveModel(checkpoints)
    good = linear(source_1=1, base=1)
    before = logits(live.materialise(build_plan(good, checkpoints)))
    bad = build_plan(linear(source_1=1, source_2=1), checkpoints)
    for _ in range(2):  # the second time nothing is taken for granted
        message = r"^model\.layers\.1\.mlp\.up_proj\.weight became NaN or infinite: linear"
        with pytest.raises(InvalidWeightsError, match=message):
            live.materialise(bad)
    assert torch.equal(logits(live.materialise(build_plan(good, checkpoints))), before)


def test_overflow_in_a_narrow_dtype_is_caught(tmp_path: Path) -> None:
    models = make_models(tmp_path, 1)
    spoil(models["source_1"], "model.norm.weight", 1e6)
    checkpoints = opened(models)
    plan = build_plan(linear(source_1=1, base=1), checkpoints, dtype="float16")
    with pytest.raises(InvalidWeightsError, match=r"model\.norm\.weight"):
        LiveModel(checkpoints).materialise(plan)


def test_a_sum_that_overflows_is_no_invalid_weight(tmp_path: Path) -> None:
    models = make_models(tmp_path, 1)
    for role in models:
        tensors = read_tensors(models[role])
        tensors["model.norm.weight"] = torch.full((16,), 3e4)
        write_tensors(models[role], tensors)
    checkpoints = opened(models)
    plan = build_plan(linear(source_1=1, base=1), checkpoints, dtype="float16")
    model = LiveModel(checkpoints).materialise(plan)
    assert float(model.model.norm.weight.max()) == pytest.approx(3e4, rel=1e-3)


def test_the_last_outputs_do_not_copy_the_output_matrix(
    live: LiveModel, checkpoints: dict[str, Checkpoint]
) -> None:
    """torch multiplies a slice row by row, with a copy of the weight each, if left alone."""
    model = live.materialise(build_plan(THIRDS, checkpoints))
    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                sizes.append(result.numel())
            return result

    tokens = torch.arange(8).repeat(5, 1)
    with torch.no_grad(), Watch():
        model(input_ids=tokens, logits_to_keep=2)
    assert max(sizes) <= model.lm_head.weight.numel()


@pytest.mark.parametrize("broken_at", [0, 17, 38])
def test_the_model_survives_an_error_at_any_step(
    live: LiveModel,
    checkpoints: dict[str, Checkpoint],
    monkeypatch: pytest.MonkeyPatch,
    broken_at: int,
) -> None:
    good = build_plan(THIRDS, checkpoints)
    expected = logits(live.materialise(good))
    start_step: Callable[..., execute.Started] = execute.start_step
    calls = []

    def failing(*arguments: Any) -> execute.Started:
        calls.append(arguments[0].output)
        if len(calls) == broken_at + 1:
            raise torch.OutOfMemoryError("planned")
        return start_step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("auto_merge.merging.live.start_step", failing)
        with pytest.raises(torch.OutOfMemoryError):
            live.materialise(build_plan(linear(source_1=1, source_2=2), checkpoints))
    assert torch.equal(logits(live.materialise(good)), expected)


def test_threads_do_not_change_results(
    checkpoints: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small tensors go to single threads, large ones get all of them."""
    plan = build_plan(THIRDS, checkpoints)
    expected = logits(LiveModel(checkpoints).materialise(plan))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        for large in (1, 300, 1 << 23):
            monkeypatch.setattr(native, "_LARGE", large)
            model = LiveModel(checkpoints).materialise(plan)
            assert torch.get_num_threads() == 3
            torch.set_num_threads(before)
            assert torch.equal(logits(model), expected)
            torch.set_num_threads(3)
    finally:
        torch.set_num_threads(before)


def test_models_that_lack_a_weight_are_refused(tmp_path: Path) -> None:
    models = make_models(tmp_path, 1)
    for folder in models.values():
        tensors = read_tensors(folder)
        for layer in range(4):
            del tensors[f"model.layers.{layer}.self_attn.q_proj.weight"]
        write_tensors(folder, tensors)
    checkpoints = opened(models)
    plan = build_plan(linear(base=1, source_1=1), checkpoints)
    with pytest.raises(CheckpointError, match=r"needs model\.layers\.0\.self_attn\.q_proj"):
        LiveModel(checkpoints).materialise(plan)


def test_weights_that_no_architecture_has_are_refused(tmp_path: Path) -> None:
    models = make_models(tmp_path, 1)
    for folder in models.values():
        tensors = read_tensors(folder)
        tensors["model.extra.weight"] = torch.ones(2)
        write_tensors(folder, tensors)
    checkpoints = opened(models)
    plan = build_plan(linear(base=1, source_1=1), checkpoints)
    with pytest.raises(CheckpointError, match=r"has no parameter model\.extra\.weight"):
        LiveModel(checkpoints).materialise(plan)


def test_generation_settings_come_from_the_donor(
    models: dict[str, Path], checkpoints: dict[str, Checkpoint], live: LiveModel
) -> None:
    file = models["base"] / "generation_config.json"
    file.write_text('{"repetition_penalty": 1.5}')
    try:
        model = live.materialise(build_plan(linear(source_1=1), checkpoints))
    finally:
        file.unlink()
    assert model.generation_config.repetition_penalty == 1.5


def test_the_promised_dtype_is_kept(checkpoints: dict[str, Checkpoint]) -> None:
    live = LiveModel(checkpoints, dtype="bfloat16")
    with pytest.raises(ValueError, match="the plan gives float32"):
        live.materialise(build_plan(Recipe(linear(source_1=1).slices), checkpoints))
