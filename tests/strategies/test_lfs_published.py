from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from auto_merge.errors import RecipeError
from auto_merge.recipe.model import Recipe
from auto_merge.strategies.lfs import LayerwiseFusion
from auto_merge.strategies.lfs_published import publish
from auto_merge.strategies.lfs_settings import LfsSettings

SETTINGS = LfsSettings(
    ("a", "b", "c"),
    "base",
    num_layers=6,
    layer_granularity=2,
    slerp_space="published",
    per_source_weights=False,
    include_base=False,
)
FILES = sorted(Path(__file__).parents[2].parent.glob("shared/published/lfs/**/*.json"))


def assert_same(one: Recipe, other: Recipe) -> None:
    """Equal up to the rounding of numbers."""
    numbers = [
        [e.value for part in r.slices for es in part.parameters.values() for e in es]
        for r in (one, other)
    ]
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-12)
    one, other = (
        replace(r, slices=tuple(replace(part, parameters={}) for part in r.slices))
        for r in (one, other)
    )
    assert one == other


def test_samples_survive_the_way_there_and_back() -> None:
    strategy = LayerwiseFusion(SETTINGS)
    space = strategy.space()
    space.seed(0)
    for sample in space.sample_configuration(40):
        recipe = strategy.decode(dict(sample))
        published = publish(SETTINGS, recipe)
        assert_same(strategy.decode(strategy.encode(published)), recipe)


@pytest.mark.skipif(not FILES, reason="the published files are not here")
def test_published_files_survive_the_way_there_and_back() -> None:
    for file in FILES:
        data = json.loads(file.read_text())
        models = ("WizardLMTeam/WizardLM-13B-V1.2", "vanillaOVO/WizardMath-13B-V1.0")
        settings = replace(
            SETTINGS,
            models=(*models, "layoric/llama-2-13b-code-alpaca"),
            num_layers=40,
            layer_granularity=10,
        )
        strategy = LayerwiseFusion(settings)
        recipe = strategy.decode(strategy.encode(data))
        again = publish(settings, recipe)
        assert_same(strategy.decode(strategy.encode(again)), recipe)
        for key, value in again.items():
            if "slerp_t" not in key:
                assert value == pytest.approx(data[key], abs=1e-12)


def test_another_recipe_is_refused() -> None:
    strategy = LayerwiseFusion(replace(SETTINGS, slerp_space="full"))
    start = dict(strategy.initial_design()[0][1])
    recipe = strategy.decode(start)
    with pytest.raises(RecipeError, match="not a layer group"):
        publish(SETTINGS, replace(recipe, slices=recipe.slices[1:]))
    for group in range(3):
        start[f"layer_selection_method_{group}"] = "slerp"
        for paramset in ("self_attn", "mlp", "base"):
            for model, value in (("a", 1.0), ("b", 0.1), ("c", 0.0)):
                key = f"model_{model}_layer_{group}_paramset_{paramset}_method_slerp_param_slerp_t"
                start[key] = value
    with pytest.raises(RecipeError, match="not in the published slerp space"):
        publish(SETTINGS, strategy.decode(start))
