"""Recipes written down in a configuration, in published and in our words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from auto_merge.config import load_config
from auto_merge.config.run_config import RunConfig
from auto_merge.errors import ConfigError, RecipeError
from auto_merge.recipe.model import Entry, Recipe, Slice, Source
from auto_merge.search.spaces import strategy_alone
from auto_merge.strategies.fixed import FixedRecipe, models_recipe

EVALUATION = {"tasks": [{"task": "t", "metric": "acc,none"}], "torch_dtype": "float32"}


def config(folder: Path, strategy: str, **section: Any) -> RunConfig:
    file = folder / "x.yaml"
    data = {
        "strategy": strategy,
        "global_params": {"evaluation": EVALUATION},
        "strategies": {strategy: section},
    }
    file.write_text(yaml.safe_dump(data))
    return load_config(file)


def of_models(folder: Path, method: dict[str, Any], models: list[Any], **more: Any) -> Recipe:
    made = config(
        folder, "normal_models", merging_method=method, models=models, base_model="./base", **more
    )
    own = {model.name: model.parameters for model in made.models}
    return models_recipe(made.settings, own, "./base", 6, "float32")  # type: ignore[arg-type]


def of_slices(folder: Path, slices: list[Any], **more: Any) -> Recipe:
    return strategy_alone(config(folder, "normal_slices", slices=slices, **more)).decode({})


def test_published_linear_weights_are_a_list_over_the_sources(tmp_path: Path) -> None:
    weights = [{"filter": "mlp", "value": [0.2, 0.8]}, {"value": [1, 3]}]
    made = of_models(tmp_path, {"linear": {"weights": weights}}, ["./a", "./b"])
    assert made == Recipe(
        (
            Slice(
                "linear",
                (
                    Source("./a", (0, 6), {"weight": (Entry(0.2, "mlp"), Entry(1.0))}),
                    Source("./b", (0, 6), {"weight": (Entry(0.8, "mlp"), Entry(3.0))}),
                ),
            ),
        ),
        "./base",
        "float32",
    )


def test_published_names_and_ours_mean_the_same(tmp_path: Path) -> None:
    models = ["./a", "./b"]
    published = {"ties": {"param_value_mask_rate": 0.75, "scaling_coefficient": [{"value": 0.5}]}}
    ours = {"ties": {"density": 0.25, "scale": 0.5}}
    assert of_models(tmp_path, published, models) == of_models(tmp_path, ours, models)


def test_parameters_of_a_source_act(tmp_path: Path) -> None:
    models = [{"model": "./a", "parameters": {"weight": 0.3}}, {"name": "b", "path": "./b"}]
    made = of_models(tmp_path, {"task_arithmetic": {"scaling_coefficient": 0.9}}, models)
    (part,) = made.slices
    assert [source.parameters for source in part.sources] == [{"weight": (Entry(0.3),)}, {}]
    assert [source.model for source in part.sources] == ["./a", "b"]
    assert part.parameters == {"scale": (Entry(0.9),)}


def test_slices_stack(tmp_path: Path) -> None:
    slices = [
        {
            "sources": [{"model": "./a", "layer_range": [0, 3]}],
            "merging_method": {"passthrough": None},
        },
        {
            "sources": [
                {"model": "./a", "layer_range": [2, 4]},
                {"model": "./b", "layer_range": [2, 4], "parameters": {"weight": 2}},
            ],
            "merging_method": {"linear": {}},
            "output_scale": 0.8,
        },
    ]
    made = of_slices(tmp_path, slices, base_model="./base", scale_mode="hidden")
    assert made.num_layers == 5
    assert made.slices[1] == Slice(
        "linear",
        (Source("./a", (2, 4)), Source("./b", (2, 4), {"weight": (Entry(2.0),)})),
        output_scale=0.8,
    )
    assert (made.base, made.scale_mode, made.base_index) == ("./base", "hidden", "source")


def test_models_of_slices_need_not_be_listed(tmp_path: Path) -> None:
    part = {
        "sources": [{"model": m, "layer_range": [0, 1]} for m in ("./b", "./base", "./a")],
        "merging_method": {"linear": {}},
    }
    made = config(tmp_path, "normal_slices", slices=[part, part], base_model="./base")
    assert [model.name for model in made.models] == ["./b", "./a"]


def test_the_published_meaning_takes_the_base_of_the_output_layer(tmp_path: Path) -> None:
    made = config(tmp_path, "normal_models", merging_method={"linear": {}}, models=["./a"])
    file = tmp_path / "x.yaml"
    file.write_text(f"compat: published\n{file.read_text()}")
    assert made.settings.base_index == "source"  # type: ignore[attr-defined]
    assert load_config(file).settings.base_index == "output"  # type: ignore[attr-defined]


def test_a_fixed_recipe_is_one_trial_on_all_documents(tmp_path: Path) -> None:
    made = config(tmp_path, "normal_models", merging_method={"linear": {}}, models=["./a"])
    assert (made.search.max_trials, made.search.optimizer) == (1, "random")
    assert made.search.min_budget == made.search.max_budget


def test_the_space_is_empty() -> None:
    fixed = FixedRecipe(Recipe((Slice("linear", (Source("a", (0, 1)),)),)))
    assert len(fixed.space()) == 0
    assert fixed.encode({}) == {}
    with pytest.raises(RecipeError, match="nothing is searched here"):
        fixed.encode({"scale_0": 1.0})


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"linaer": {}}, r"merging_method: unknown merge method 'linaer'; did you mean 'linear'"),
        ({"linear": {"wieghts": 1}}, r"linear.wieghts: linear has no such parameter; did you mean"),
        ({"linear": {"weights": [{"value": [1, 2, 3]}]}}, r"one number per source, 2, got 3"),
        ({"ties": {"density": [{"value": [1, 2]}]}}, r"ties.density.0.value: must be one number"),
        ({"linear": {}, "ties": {}}, r"merging_method"),
        ({"linear": {"weights": "much"}}, r"weights"),
    ],
)
def test_mistakes_name_the_place(tmp_path: Path, method: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        of_models(tmp_path, method, ["./a", "./b"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"layer_range": [3, 3]}, r"slices.0.sources.0.layer_range: must be \[start, end\]"),
        ({"layer_range": [0, 2], "parameters": {"scale": 1}}, r"scale belongs to the whole merge"),
        ({"model": "./c", "layer_range": [0, 2]}, r"no model './c'"),
    ],
)
def test_mistakes_in_slices(tmp_path: Path, part: dict[str, Any], message: str) -> None:
    sources = [{"model": "./a", **part}, {"model": "./b", "layer_range": [0, 2]}]
    with pytest.raises(ConfigError, match=message):
        of_slices(
            tmp_path,
            [{"sources": sources, "merging_method": {"task_arithmetic": {}}}],
            models=["./a", "./b"],
        )


def test_ranges_of_different_length_are_refused(tmp_path: Path) -> None:
    sources = [{"model": "./a", "layer_range": [0, n]} for n in (1, 2)]
    with pytest.raises(ConfigError, match=r"slices.0: sources give different numbers of layers: 1"):
        of_slices(tmp_path, [{"sources": sources, "merging_method": {"linear": {}}}])
