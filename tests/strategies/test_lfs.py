from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auto_merge.errors import ConfigError, RecipeError
from auto_merge.recipe.model import Recipe, Slice
from auto_merge.strategies.lfs import LayerwiseFusion
from auto_merge.strategies.lfs_names import ValueName, parse_selection, parse_value, selection_name
from auto_merge.strategies.lfs_settings import PUBLISHED_RANGES, LfsSettings

PUBLISHED = sorted((Path(__file__).parents[3] / "shared/published/lfs").rglob("*.json"))
PAPER_MODELS = (
    "WizardLMTeam/WizardLM-13B-V1.2",
    "vanillaOVO/WizardMath-13B-V1.0",
    "layoric/llama-2-13b-code-alpaca",
)


def make(**changes: Any) -> LayerwiseFusion:
    fields: dict[str, Any] = {
        "models": ("a", "b", "c"),
        "base": "base",
        "num_layers": 4,
        "layer_granularity": 2,
    }
    return LayerwiseFusion(LfsSettings(**{**fields, **changes}))


def as_published(**changes: Any) -> LayerwiseFusion:
    return make(slerp_space="published", per_source_weights=False, include_base=False, **changes)


def entry(part: Slice, parameter: str, paramset: str | None) -> float:
    return next(e.value for e in part.parameters[parameter] if e.filter == paramset)


def weights(part: Slice, paramset: str | None) -> dict[str, float]:
    return {
        source.model: next(e.value for e in source.parameters["weight"] if e.filter == paramset)
        for source in part.sources
    }


@given(st.integers(0, 99), st.sampled_from(["self_attn", "mlp", "base"]), st.text(min_size=1))
def test_names_round_trip(group: int, paramset: str, model: str) -> None:
    name = ValueName(group, paramset, "linear", "weights", model)
    if "\n" not in model:
        assert parse_value(str(name)) == name
    assert parse_selection(selection_name(group)) == group
    assert parse_value(selection_name(group)) is None


def test_published_space_has_the_published_112_names() -> None:
    space = as_published(models=PAPER_MODELS, num_layers=40, layer_granularity=10).space()
    assert len(space) == 4 * (1 + 3 * (2 * 3 + 3)) == 112


def test_only_the_chosen_methods_values_are_active() -> None:
    strategy = make()
    for sample in strategy.space().sample_configuration(50):
        values = dict(sample)
        for key in values:
            name = parse_value(key)
            if name is not None:
                assert values[selection_name(name.group)] == name.method


def test_every_sample_and_start_point_decodes_and_is_legal() -> None:
    for strategy in (make(), as_published(), make(models=("a",), include_base=True)):
        space = strategy.space()
        space.seed(3)
        for sample in space.sample_configuration(60):
            recipe = strategy.decode(dict(sample))
            assert recipe.num_layers == 4
            assert recipe == strategy.decode(dict(sample))
        for _, point in strategy.initial_design():
            from ConfigSpace import Configuration

            Configuration(space, values=point).check_valid_configuration()


def test_inactive_values_change_nothing() -> None:
    strategy = make()
    point = dict(strategy.initial_design())["uniform average"]
    noisy = {**point, "layer_0_paramset_mlp_method_ties_param_scaling_coefficient": 0.9}
    assert strategy.decode(noisy) == strategy.decode(point)


def test_initial_design_is_what_its_labels_say() -> None:
    points = {label: make().decode(point) for label, point in make().initial_design()}
    assert list(points) == [
        "source a",
        "source b",
        "source c",
        "base",
        "uniform average",
        *(f"task arithmetic, scale {scale}" for scale in ("0.2", "0.35", "0.5", "0.7", "0.9")),
    ]
    for part in points["source b"].slices:
        assert weights(part, "mlp") == {"a": 0, "b": 1, "c": 0, "base": 0}
    assert weights(points["base"].slices[0], None) == {"a": 0, "b": 0, "c": 0, "base": 1}
    assert weights(points["uniform average"].slices[1], None) == {"a": 1, "b": 1, "c": 1, "base": 0}
    assert weights(points["task arithmetic, scale 0.7"].slices[1], "mlp") == dict.fromkeys(
        "abc", 0.7
    )


def test_start_points_without_linear_use_what_there_is() -> None:
    ranges = {"task_arithmetic": {"scaling_coefficient": (0.0, 1.2)}}
    points = dict(make(ranges=ranges).initial_design())
    part = make(ranges=ranges).decode(points["source a"]).slices[0]
    assert weights(part, "self_attn") == {"a": 1, "b": 0, "c": 0}
    average = make(ranges=ranges).decode(points["uniform average"]).slices[0]
    assert weights(average, None) == pytest.approx(dict.fromkeys("abc", 1 / 3))
    shared = make(ranges=ranges, per_source_weights=False).initial_design()
    assert next(label for label, _ in shared) == "base"


def slerp_configuration(strategy: LayerwiseFusion, t: dict[str, tuple[float, float, float]]) -> Any:
    configuration: dict[str, Any] = {}
    for group in range(2):
        configuration[selection_name(group)] = "slerp"
        for model, values in t.items():
            for paramset, value in zip(strategy.paramsets, values, strict=True):
                name = ValueName(group, paramset, "slerp", "slerp_t", model)
                configuration[str(name)] = value
    return configuration


def test_published_slerp_takes_the_two_best_and_a_softmax() -> None:
    strategy = as_published()
    t = {"a": (0.1, 0.2, 0.3), "b": (0.9, 0.2, 0.4), "c": (0.5, 0.4, 0.1)}
    part = strategy.decode(slerp_configuration(strategy, t)).slices[0]
    assert [source.model for source in part.sources] == ["b", "c"]
    expected = math.exp(0.5) / (math.exp(0.9) + math.exp(0.5))
    assert entry(part, "t", "self_attn") == pytest.approx(expected)
    assert entry(part, "t", None) == pytest.approx(math.exp(0.1) / (math.exp(0.4) + math.exp(0.1)))


def test_full_slerp_reaches_both_ends() -> None:
    strategy = make(include_base=False)
    t = {"a": (1.0, 0.0, 0.5), "b": (0.0, 1.0, 0.5), "c": (0.0, 0.0, 0.0)}
    part = strategy.decode(slerp_configuration(strategy, t)).slices[0]
    assert [entry(part, "t", p) for p in ("self_attn", "mlp", None)] == [0.0, 1.0, 0.5]
    zero = strategy.decode(slerp_configuration(strategy, dict.fromkeys("abc", (0.0, 0.0, 0.0))))
    assert entry(zero.slices[0], "t", None) == 0.5


def test_slerp_ties_keep_the_configured_order() -> None:
    strategy = as_published()
    t = dict.fromkeys("abc", (0.5, 0.5, 0.5))
    part = strategy.decode(slerp_configuration(strategy, t)).slices[0]
    assert [source.model for source in part.sources] == ["a", "b"]


def test_all_zero_linear_weights_mean_the_average() -> None:
    strategy = make()
    zeros = {str(name): 0.0 for name, _ in strategy._values(0, "linear")}
    part = strategy.decode({selection_name(0): "linear", **zeros}).slices[0]
    assert weights(part, "mlp") == {"a": 1, "b": 1, "c": 1, "base": 0}


def test_ties_density_is_one_minus_the_mask_rate() -> None:
    strategy = as_published()
    key = "layer_0_paramset_mlp_method_ties_param_param_value_mask_rate"
    part = strategy.decode({selection_name(0): "ties", key: 0.3}).slices[0]
    assert entry(part, "density", "mlp") == 0.7
    assert part.sources[0].parameters == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"layer_granularity": 3},
            "must divide the 4 layers of the models, got 3; possible: 1, 2, 4",
        ),
        ({"layer_granularity": 0}, "got 0"),
        ({"models": ("a", "a")}, "'a' occurs twice"),
        ({"models": ("a", "base")}, "'base' occurs twice"),
        ({"models": ()}, "at least one model"),
        ({"ranges": {}}, "at least one method"),
        ({"ranges": {"linaer": {}}}, "unknown method; did you mean 'linear'"),
        ({"base": None}, "needs a base model"),
        ({"models": ("a",), "include_base": False}, "slerp needs at least two models"),
        (
            {"ranges": {"slerp": {"slerp": (0.0, 1.0)}}},
            "merging_method.slerp.slerp: unknown parameter; did you mean 'slerp_t'",
        ),
        ({"ranges": {"linear": {}}}, r"needs a range for weights, for example \{min: 0, max: 1\}"),
        ({"ranges": {"linear": {"weights": (0.5, 0.5)}}}, "min must be below max, got 0.5 and 0.5"),
        ({"ranges": {"linear": {"weights": (-1.0, 1.0)}}}, r"weights: must lie within \[0, "),
        (
            {"ranges": {"ties": {"param_value_mask_rate": (0.0, 1.5)}}},
            r"mask_rate: must lie within \[0, 1\], got \[0, 1.5\]",
        ),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("layer_selection_method_7", "linear", "this space has 2 layer groups"),
        ("layer_selection_method_0", "tise", "not searched; did you mean 'ties'"),
        ("layer_9_paramset_mlp_method_ties_param_scaling_coefficient", 0.1, "2 layer groups"),
        (
            "model_x_layer_0_paramset_mlp_method_linear_param_weights",
            0.1,
            "model 'x' is not config",
        ),
        ("layer_0_paramset_mpl_method_ties_param_scaling_coefficient", 0.1, "did you mean 'mlp'"),
        ("layer_0_paramset_mlp_method_ties_param_scaling_coefficient", "1", "must be a number"),
        ("scale_0", 0.1, "not a name of layer-wise fusion"),
    ],
)
def test_encode_names_what_does_not_fit(key: str, value: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make().encode({key: value})


@pytest.mark.skipif(not PUBLISHED, reason="the published search configurations are not here")
@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
@pytest.mark.parametrize("ours", [False, True])
def test_published_files_decode_and_encode(path: Path, ours: bool) -> None:
    data = json.loads(path.read_text("utf-8"))
    paper: dict[str, Any] = {"models": PAPER_MODELS, "num_layers": 40, "layer_granularity": 10}
    strategy = as_published(**paper)
    recipe = strategy.decode(data)
    assert recipe.num_layers == 40
    assert strategy.decode(strategy.encode(data)) == recipe
    assert [part.method for part in recipe.slices] == [
        data[selection_name(group)] for group in range(4)
    ]
    if ours:
        _same_models(make(**paper).decode(make(**paper).encode(data)), recipe)


def _same_models(ours: Recipe, published: Recipe) -> None:
    """Per-source coefficients all equal the shared one; slerp picks the same two models."""
    for mine, theirs in zip(ours.slices, published.slices, strict=True):
        assert mine.method == theirs.method
        if mine.method == "task_arithmetic":
            for paramset in ("self_attn", "mlp", None):
                assert set(weights(mine, paramset).values()) == {entry(theirs, "scale", paramset)}
        if mine.method == "slerp":
            assert [s.model for s in mine.sources] == [s.model for s in theirs.sources]


def test_math_lfs_has_the_values_of_the_published_table() -> None:
    path = next((path for path in PUBLISHED if path.stem == "math-lfs"), None)
    if path is None:
        pytest.skip("the published search configurations are not here")
    strategy = as_published(models=PAPER_MODELS, num_layers=40, layer_granularity=10)
    parts = strategy.decode(json.loads(path.read_text("utf-8"))).slices
    scales = [entry(parts[0], "scale", p) for p in ("self_attn", "mlp", None)]
    assert scales == pytest.approx([0.182, 0.983, 0.791], abs=5e-4)
    assert [source.model for source in parts[2].sources] == [PAPER_MODELS[1], PAPER_MODELS[2]]
    positions = [entry(parts[2], "t", p) for p in ("self_attn", "mlp", None)]
    assert positions == pytest.approx([0.566, 0.594, 0.323], abs=5e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.booleans())
def test_any_divisor_and_any_number_of_models(layers: int, count: int, per_source: bool) -> None:
    models = tuple(f"m{i}" for i in range(count))
    for granularity in (n for n in range(1, layers + 1) if layers % n == 0):
        strategy = make(
            models=models,
            num_layers=layers,
            layer_granularity=granularity,
            per_source_weights=per_source,
            ranges={"linear": PUBLISHED_RANGES["linear"], "ties": PUBLISHED_RANGES["ties"]},
        )
        recipe = strategy.decode(dict(strategy.space().sample_configuration()))
        assert recipe.num_layers == layers
        assert recipe.slices[-1].sources[0].layers == (layers - granularity, layers)
