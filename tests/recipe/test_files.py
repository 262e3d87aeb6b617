from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from auto_merge.errors import RecipeError
from auto_merge.recipe.files import RecipeFile, from_data, parse, to_data, to_yaml
from auto_merge.recipe.model import Entry, Recipe, Slice, Source

names = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=8)
numbers = st.floats(-1e6, 1e6, allow_nan=False)
entries = st.lists(st.builds(Entry, numbers, st.none() | names), min_size=1, max_size=3).map(tuple)
parameters = st.dictionaries(names, entries, max_size=2)
layers = st.tuples(st.integers(0, 9), st.integers(1, 9)).map(lambda pair: (pair[0], sum(pair)))
sources = st.lists(st.builds(Source, names, layers, parameters), min_size=1, max_size=3).map(tuple)
slices = st.lists(st.builds(Slice, names, sources, parameters), min_size=1, max_size=3).map(tuple)
recipes = st.builds(Recipe, slices, st.none() | names, st.sampled_from([None, "float32"]))


def from_text(text: str, place: str = "recipe") -> RecipeFile:
    return from_data(parse(text, place), place)


GOOD = {
    "recipe": 1,
    "slices": [{"method": "linear", "sources": [{"model": "a", "layers": [0, 2]}]}],
}


@given(recipes)
def test_yaml_and_json_round_trip(recipe: Recipe) -> None:
    assert from_text(to_yaml(recipe)).recipe == recipe
    assert from_text(json.dumps(to_data(recipe))).recipe == recipe


def test_models_travel_with_the_recipe() -> None:
    recipe = from_data(GOOD).recipe
    assert from_text(to_yaml(recipe, {"a": "zoo:sort"})).models == {"a": "zoo:sort"}


def test_entries_without_filter_are_written_as_plain_numbers() -> None:
    recipe = Recipe((Slice("slerp", (Source("a", (0, 1)),), {"t": (Entry(0.25),)}),))
    assert yaml.safe_load(to_yaml(recipe))["slices"][0]["parameters"] == {"t": 0.25}


def test_recipe_counts_layers_and_names_models() -> None:
    parts = (Slice("linear", (Source("b", (0, 2)), Source("a", (4, 6)))),) * 2
    recipe = Recipe(parts, base="origin")
    assert recipe.num_layers == 4
    assert recipe.models() == ("b", "a", "origin")


def broken(**changes: object) -> dict[str, object]:
    return {**GOOD, **changes}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (broken(recipe=2), r"r.yaml: recipe: must be 1, the format version, got 2"),
        (broken(slises=[]), r"r.yaml: slises: unknown key; did you mean 'slices'\?"),
        (broken(slices=[]), r"r.yaml: slices: must be a non-empty list"),
        (broken(dtype="int8"), r"dtype: must be one of float32, float16, bfloat16, got 'int8'"),
        (broken(models={"a": 3}), r"models.a: must be a non-empty string, got 3"),
        ([1], r"r.yaml: must be a mapping"),
        (broken(slices=[{"method": "linear"}]), r"slices\[0\].sources: must be a non-empty list"),
        (
            broken(slices=[{"method": "linear", "sources": [{"model": "a", "layers": [2, 2]}]}]),
            r"slices\[0\].sources\[0\].layers: must be \[start, end\]",
        ),
        (
            broken(
                slices=[
                    {
                        "method": "linear",
                        "sources": [{"model": "a", "layers": [0, 2]}],
                        "parameters": {"t": "much"},
                    }
                ]
            ),
            r"slices\[0\].parameters.t: must be a finite number, got 'much'",
        ),
    ],
)
def test_errors_name_the_place(data: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        from_data(data, "r.yaml")


def test_unreadable_text_is_one_line() -> None:
    with pytest.raises(RecipeError, match=r"^r: not readable as YAML or JSON") as caught:
        from_text("{a: [", "r")
    assert "\n" not in str(caught.value)
