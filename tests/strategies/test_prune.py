from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auto_merge.errors import ConfigError, RecipeError
from auto_merge.recipe.model import Entry, Recipe, Slice, Source
from auto_merge.strategies.prune import PruneSettings, Pruning, recognises
from auto_merge.strategies.prune_names import (
    candidate_name,
    merge_scale_name,
    output_scale_name,
    removal_name,
)
from auto_merge.strategies.prune_starts import in_useful_order, patterns, removal_lists

PUBLISHED = Path(__file__).parents[3] / "shared/published/prune"


def make(**changes: Any) -> Pruning:
    fields: dict[str, Any] = {
        "models": ("a", "b", "c"),
        "base": "base",
        "num_layers": 6,
        "layers": 4,
        "merge_scale": (0.0, 1.0),
    }
    return Pruning(PruneSettings(**{**fields, **changes}))


def kept(recipe: Recipe) -> list[int]:
    return [part.sources[0].layers[0] for part in recipe.slices]


def models(part: Slice) -> str:
    return "+".join(source.model for source in part.sources)


def scale(part: Slice) -> float:
    (entry,) = part.parameters["scale"]
    assert entry.filter is None
    return entry.value


def removal(*scores: float) -> dict[str, Any]:
    return {removal_name(layer): score for layer, score in enumerate(scores)}


def candidates(layer: int, *choices: int) -> dict[str, Any]:
    return {candidate_name(layer, model): choice for model, choice in enumerate(choices)}


def removing(*layers: int) -> dict[str, Any]:
    return {f"remove_idx_{number}": layer for number, layer in enumerate(layers)}


def sample(strategy: Pruning, count: int, seed: int = 0) -> list[dict[str, Any]]:
    space = strategy.space()
    space.seed(seed)
    return [dict(one) for one in space.sample_configuration(count)]


def check_legal(strategy: Pruning, configuration: dict[str, Any]) -> None:
    from ConfigSpace import Configuration

    Configuration(strategy.space(), values=configuration).check_valid_configuration()


# Decoding


def test_two_candidates_are_task_arithmetic_on_the_base() -> None:
    values = {**candidates(13, 1, 0, 1), merge_scale_name(13): 0.7}
    recipe = make(num_layers=40, layers=40).decode(values)
    assert recipe.slices[13] == Slice(
        "task_arithmetic",
        (Source("a", (13, 14)), Source("c", (13, 14))),
        {"scale": (Entry(0.7),)},
    )
    assert recipe.base == "base"
    assert recipe.base_index == "source"


def test_no_candidate_is_the_base_and_one_is_copied() -> None:
    values = {**candidates(0, 0, 0, 0), **candidates(1, 0, 1, 0), merge_scale_name(1): 0.3}
    first, second, *_ = make(num_layers=2, layers=2).decode(values).slices
    assert first == Slice("passthrough", (Source("base", (0, 1)),))
    assert second == Slice("passthrough", (Source("b", (1, 2)),))


def test_the_largest_scores_go_and_of_equal_ones_the_later() -> None:
    strategy = make()
    assert kept(strategy.decode(removal(0.9, 0.1, 0.2, 0.8, 0.3, 0.4))) == [1, 2, 4, 5]
    assert kept(strategy.decode(removal(0.5, 0.9, 0.5, 0.5, 0.1, 0.1))) == [0, 2, 4, 5]
    assert kept(strategy.decode({})) == [0, 1, 2, 3]
    assert kept(strategy.decode(removal(*[1.0] * 6))) == [0, 1, 2, 3]


def test_output_scales_follow_their_layer() -> None:
    values = {**removal(1, 0, 1, 0, 0, 0), output_scale_name(3): 0.5, output_scale_name(2): 0.7}
    for mode in ("mlp", "hidden"):
        recipe = make(scale_mode=mode).decode(values)
        assert recipe.scale_mode == mode
        assert [part.output_scale for part in recipe.slices] == [1.0, 0.5, 1.0, 1.0]
    off = make(scale_mode="off", base_index="output").decode(values)
    assert [part.output_scale for part in off.slices] == [1.0] * 4
    assert (off.scale_mode, off.base_index) == ("mlp", "output")


def test_absent_values_are_the_defaults_of_the_space() -> None:
    for changes in ({}, {"merge_scale": (0.2, 0.6)}, {"models": tuple("abcde")}):
        strategy = make(**changes)
        default = dict(strategy.space().get_default_configuration())
        assert strategy.decode(default) == strategy.decode({})
        assert strategy.encode({}) == default
    pair = make(merge_scale=(0.2, 0.6)).decode(candidates(0, 1, 1, 0))
    assert scale(pair.slices[0]) == 0.6
    assert [models(part) for part in make().decode({}).slices] == ["a"] * 4


def test_values_of_removed_layers_change_nothing() -> None:
    strategy = make()
    scores = removal(0, 1, 0, 0, 1, 0)
    plain = strategy.decode(scores)
    noise = {**candidates(1, 1, 1, 1), merge_scale_name(4): 0.2, output_scale_name(1): 0.0}
    assert strategy.decode({**scores, **noise}) == plain


# The space


def test_the_space_has_the_published_names_and_scores() -> None:
    space = make(num_layers=40, layers=30).space()
    assert len(space) == 40 * (3 + 2 + 1)
    assert all(recognises(name) for name in space)
    assert recognises("remove_idx_12")
    assert not space.forbidden_clauses


@pytest.mark.parametrize(
    "key", ["remove_idx_01", "remove_idx_", "layer_1_candidate", "scale_0", "layer_0_removal_0"]
)
def test_other_names_are_not_recognised(key: str) -> None:
    assert not recognises(key)


SPACES: dict[str, dict[str, Any]] = {
    "three models": {},
    "one model": {"models": ("a",)},
    "two models": {"models": ("a", "b"), "scale_mode": "hidden"},
    "five models": {"models": tuple("abcde")},
    "nothing removed": {"layers": 6},
    "one removed": {"layers": 5},
    "one left": {"layers": 1},
    "two layers": {"num_layers": 2, "layers": 1},
    "one layer": {"num_layers": 1, "layers": 1},
    "no scales": {"scale_mode": "off", "base_index": "output"},
    "narrow range": {"merge_scale": (0.35, 0.45)},
}


@pytest.mark.parametrize("name", SPACES)
def test_samples_are_feasible_and_encode_to_themselves(name: str) -> None:
    strategy = make(**SPACES[name])
    for values in sample(strategy, 60, seed=3):
        before = dict(values)
        recipe = strategy.decode(values)
        assert values == before
        assert recipe == strategy.decode(values)
        assert recipe.num_layers == strategy.settings.layers
        assert kept(recipe) == sorted(set(kept(recipe)))
        assert strategy.encode(values) == values


@pytest.mark.parametrize("name", ["three models", "two models"])
def test_a_merge_scale_is_active_only_between_two_candidates(name: str) -> None:
    strategy = make(**SPACES[name])
    for values in sample(strategy, 40):
        for layer in range(6):
            count = sum(
                values[candidate_name(layer, k)] for k in range(len(strategy.settings.models))
            )
            assert (merge_scale_name(layer) in values) == (count >= 2)


def test_a_single_model_has_no_merge_scale() -> None:
    assert not any("merge_scale" in name for name in make(models=("a",)).space())


def test_all_sets_are_removed_equally_often() -> None:
    strategy = make(num_layers=4, layers=2)
    counts = Counter(tuple(kept(strategy.decode(values))) for values in sample(strategy, 1200))
    assert set(counts) == set(itertools.combinations(range(4), 2))
    # Chi-square with 5 degrees of freedom; 20.5 is its 0.999 quantile.
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 20.5


@pytest.mark.parametrize("count", [3, 5])
def test_space_and_samples_are_quick(count: int) -> None:
    strategy = make(models=tuple("abcde"[:count]), num_layers=40, layers=30)
    started = time.process_time()
    strategy.space().sample_configuration(1000)
    assert time.process_time() - started < 2.0


# Start points


@pytest.mark.parametrize("name", SPACES)
def test_start_points_are_legal_and_distinct(name: str) -> None:
    strategy = make(**SPACES[name])
    points = strategy.initial_design()
    recipes = [strategy.decode(point) for _, point in points]
    for _, point in points:
        check_legal(strategy, point)
        assert strategy.encode(point) == point
    assert all(recipes.count(recipe) == 1 for recipe in recipes)
    assert len({label for label, _ in points}) == len(points)


def test_start_points_for_three_models() -> None:
    strategy = make(num_layers=40, layers=30)
    points = strategy.initial_design()
    # (5 orders + 8 blocks) x (base, 3 singles, 4 blends x 6 scales).
    assert len(points) == 13 * (1 + 3 + 4 * 6)
    assert points == strategy.initial_design()
    recipes = {label: strategy.decode(point) for label, point in points}
    last = recipes["last layers removed, source b"]
    assert kept(last) == [*range(29), 39]
    assert {models(part) for part in last.slices} == {"b"}
    assert kept(recipes["middle layers removed, base"]) == [*range(15), *range(25, 40)]
    blend = recipes["both halves thinned, all, scale 0.7"].slices[0]
    assert (models(blend), scale(blend)) == ("a+b+c", 0.7)
    assert models(recipes["middle thinned, a + c, scale 0.3"].slices[-1]) == "a+c"


def test_a_prefix_of_the_start_points_holds_every_kind() -> None:
    points = make(num_layers=40, layers=30).initial_design()
    lists, kinds = zip(*(label.split(", ", 1) for label, _ in points[:26]), strict=True)
    assert set(Counter(lists).values()) == {2}
    assert len(set(lists)) == 13
    assert set(kinds) == {
        "base",
        "source a",
        "source b",
        "source c",
        "all, scale 0.5",
        "all, scale 0.7",
    }
    assert {label.split(", ", 1)[1] for label, _ in points[:30]} == set(kinds)


def test_every_list_meets_every_pattern_once() -> None:
    leading, others = patterns(2, (0.0, 1.0))
    pairs = list(in_useful_order(["x", "y", "z"], leading, others))
    assert len(pairs) == len(set(pairs)) == 3 * (1 + 2 + 6)


def test_scales_stay_in_their_range() -> None:
    leading, others = patterns(3, (0.35, 0.45))
    assert [p.merge_scale for p in leading] == [None, None, None, None, pytest.approx(0.4)]
    assert [p.merge_scale for p in others] == [pytest.approx(0.4)] * 3
    assert [p.merge_scale for p in patterns(2, (0.0, 0.6))[0]][3:] == [0.5, 0.3]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_removal_lists_have_the_right_size_for_any_depth(data: st.DataObject) -> None:
    layers = data.draw(st.integers(1, 60))
    removed = data.draw(st.integers(0, layers - 1))
    lists = removal_lists(layers, removed)
    assert lists == removal_lists(layers, removed)
    assert 5 <= len(lists) <= 13 if removed else len(lists) == 1
    for number, gone in enumerate(lists.values()):
        assert len(gone) == removed
        assert gone <= set(range(layers))
        if removed <= layers - 2 and number < 5:
            assert layers - 1 not in gone
    if removed > 0 and layers - removed < 8:
        blocks = {frozenset(range(n, n + removed)) for n in range(layers - removed + 1)}
        assert blocks <= set(lists.values())
    if 0 < removed <= layers - 2:
        middle = sorted(lists["middle layers removed"])
        assert middle == list(range(middle[0], middle[0] + removed))
        assert abs(middle[0] - (layers - 1 - middle[-1])) <= 1


# Published files


def published(name: str) -> dict[str, Any]:
    path = PUBLISHED / f"{name}.json"
    if not path.exists():
        pytest.skip("the published search configurations are not here")
    data: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return data


def for_paper(name: str, **changes: Any) -> Pruning:
    layers = {"num_layers": 40, "layers": 30} if "13b" in name else {"num_layers": 32, "layers": 23}
    return make(**layers, **changes)


Table = tuple[str, list[int], list[int], tuple[float, float], int, tuple[float, float] | None]

TABLE: list[Table] = [
    ("13b/1", [*range(25, 34), 39], [4, 22, 4, 0], (0.7, 0.7), 2, None),
    (
        "13b/2",
        [18, 23, 25, 27, 28, 29, 31, 32, 33, 36],
        [4, 15, 11, 0],
        (0.595, 0.703),
        8,
        (0.773, 1.132),
    ),
    (
        "13b/3",
        [18, 20, 23, 25, 27, 28, 29, 31, 33, 36],
        [4, 14, 11, 1],
        (0.577, 0.663),
        11,
        (0.932, 1.276),
    ),
    (
        "7b/1",
        [19, 20, 22, 23, 24, 25, 26, 28, 30],
        [1, 13, 7, 2],
        (0.5, 0.603),
        10,
        (0.863, 1.281),
    ),
    (
        "7b/2",
        [19, 20, 21, 22, 23, 25, 26, 30, 31],
        [3, 13, 7, 0],
        (0.379, 0.517),
        14,
        (0.773, 1.338),
    ),
    (
        "7b/3",
        [19, 20, 22, 23, 24, 25, 26, 28, 30],
        [1, 12, 10, 0],
        (0.407, 0.575),
        15,
        (0.557, 1.198),
    ),
]


@pytest.mark.parametrize(
    ("name", "removed", "usage", "merge_scales", "num_scales", "extremes"),
    TABLE,
    ids=[row[0] for row in TABLE],
)
def test_published_files_have_the_published_layers(
    name: str,
    removed: list[int],
    usage: list[int],
    merge_scales: tuple[float, float],
    num_scales: int,
    extremes: tuple[float, float] | None,
) -> None:
    data = published(name)
    strategy = for_paper(name)
    assert all(recognises(key) for key in data)
    configuration = strategy.encode(data)
    check_legal(strategy, configuration)
    recipe = strategy.decode(configuration)
    assert strategy.encode(configuration) == configuration
    assert [n for n in range(strategy.settings.num_layers) if n not in kept(recipe)] == removed
    counts = Counter(0 if models(part) == "base" else len(part.sources) for part in recipe.slices)
    assert [counts[number] for number in range(4)] == usage
    blends = [scale(part) for part in recipe.slices if part.method == "task_arithmetic"]
    assert len(blends) == usage[2] + usage[3]
    assert (min(blends), max(blends)) == pytest.approx(merge_scales, abs=5e-4)
    scales = [part.output_scale for part in recipe.slices if part.output_scale != 1.0]
    assert len(scales) == num_scales
    if extremes:
        assert (min(scales), max(scales)) == pytest.approx(extremes, abs=5e-4)
    for layer, part in zip(kept(recipe), recipe.slices, strict=True):
        chosen = [m for k, m in enumerate("abc") if data[candidate_name(layer, k)] == 1]
        assert models(part) == ("+".join(chosen) or "base")
        assert part.output_scale == data[output_scale_name(layer)]
        if len(chosen) > 1:
            assert scale(part) == data[merge_scale_name(layer)]


def test_a_published_example_layer() -> None:
    part = for_paper("13b").decode(for_paper("13b").encode(published("13b/1"))).slices[13]
    assert part.sources == (Source("a", (13, 14)), Source("c", (13, 14)))
    assert scale(part) == 0.7


def test_published_output_scales_can_be_left_out() -> None:
    strategy = for_paper("7b", scale_mode="off")
    recipe = strategy.decode(strategy.encode(published("7b/3")))
    assert {part.output_scale for part in recipe.slices} == {1.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ("a", "b")}, "has 3 candidates per layer, 2 models are configured"),
        ({"layers": 29}, "removes 10 layers, this space 11 \\(40 to 29 layers\\)"),
        ({"num_layers": 50, "layers": 40}, "has 40 layers, the models have 50"),
        ({"num_layers": 32, "layers": 22}, "must be a whole number from 0 to 31, got 32"),
    ],
)
def test_published_files_for_other_models_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    fields: dict[str, Any] = {"num_layers": 40, "layers": 30}
    with pytest.raises(RecipeError, match=message):
        make(**{**fields, **changes}).encode(published("13b/1"))


def test_more_models_than_a_file_uses_are_not_candidates() -> None:
    strategy = for_paper("13b", models=tuple("abcde"))
    recipe = strategy.decode(strategy.encode(published("13b/1")))
    three = for_paper("13b")
    assert recipe == three.decode(three.encode(published("13b/1")))


# What does not fit


def flat(removed: tuple[int, ...] = (4, 2)) -> dict[str, Any]:
    layers = [layer for layer in range(6) if layer not in removed]
    values = removing(*removed)
    for layer in layers:
        values.update(candidates(layer, 1, 0, 0))
        values[merge_scale_name(layer)] = 0.5
        values[output_scale_name(layer)] = 1.0
    return values


def test_removed_layers_become_scores() -> None:
    strategy = make()
    configuration = strategy.encode(flat((4, 2)))
    assert kept(strategy.decode(configuration)) == [0, 1, 3, 5]
    assert configuration == strategy.encode(flat((2, 4)))
    assert kept(make(layers=6).decode(make(layers=6).encode(flat(())))) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"remove_idx_1": 4}, "'remove_idx_1': layer 4 is removed by 'remove_idx_0' already"),
        ({"remove_idx_1": 6}, "'remove_idx_1': must be a whole number from 0 to 5, got 6"),
        ({"remove_idx_1": -1}, "whole number from 0 to 5, got -1"),
        ({"remove_idx_1": 2.0}, "whole number from 0 to 5, got 2.0"),
        ({"remove_idx_2": 3}, "'remove_idx_3': the configuration removes 3 layers, this space 2"),
        ({"layer_0_removal": 0.5}, "'remove_idx_0': .* has removal scores as well"),
        ({"layer_6_output_scale": 1.0}, "the configuration has 7 layers, the models have 6"),
        ({"layer_0_candidate_3": 0}, "has 4 candidates per layer, 3 models are configured"),
        ({"layer_0_candidate_0": 2}, "'layer_0_candidate_0': must be a whole number from 0 to 1"),
        ({"layer_0_candidate_0": True}, "whole number from 0 to 1, got True"),
        ({"layer_0_candidate_0": None}, "whole number from 0 to 1, got None"),
        ({"layer_0_output_scale": 2.1}, r"must lie within \[0, 2\], got 2.1"),
        ({"layer_0_output_scale": float("inf")}, r"must lie within \[0, 2\], got inf"),
        ({"layer_0_merge_scale_factor": "0.5"}, "must be a number, got '0.5'"),
        ({"layer_0_merge_scale_factor": 10**400}, "must lie within"),
        ({"layer_0_merge_scale_factor": 1e9}, "'layer_0_merge_scale_factor': must lie within"),
        ({"layer_01_output_scale": 1.0}, "'layer_01_output_scale': not a name of pruning"),
        ({"scale_0": 1.0}, "'scale_0': not a name of pruning"),
        ({"layer_0_candidate_1234567": 1}, "not a name of pruning"),
    ],
)
def test_encode_names_what_does_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        make().encode({**flat(), **changes})
    assert "\n" not in str(caught.value)


def test_encode_refuses_missing_removals() -> None:
    with pytest.raises(RecipeError, match=r"'remove_idx_0': .* removes 0 layers, this space 2"):
        make().encode(flat(()))


def test_scores_out_of_range_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"'layer_5_removal': must lie within \[0, 1\], got 2"):
        make().encode(removal(0, 0, 0, 0, 0, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": None}, "base_model: pruning needs a base model for layers without candidates"),
        ({"models": ()}, "models: at least one model"),
        ({"models": ("a", "a")}, "models: names must differ, 'a' occurs twice"),
        ({"models": ("a", "base")}, "'base' occurs twice"),
        ({"num_layers": 0}, "num_hidden_layers: must be at least 1, got 0"),
        ({"layers": 0}, r"layers: must lie within \[1, 6\], .* got 0"),
        ({"layers": 7}, r"layers: must lie within \[1, 6\], .* got 7"),
        (
            {"merge_scale": (0.5, 0.5)},
            "merging_method.task_arithmetic.scaling_coefficient: min must be below max, "
            "got 0.5 and 0.5",
        ),
        ({"merge_scale": (0.0, 1e9)}, r"scaling_coefficient: must lie within \[.*got \[0, 1e\+09"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make(**changes)
    assert str(caught.value).startswith("strategies.prune.")
    assert "\n" not in str(caught.value)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_size_works(data: st.DataObject) -> None:
    layers = data.draw(st.integers(1, 9))
    strategy = make(
        models=tuple(f"m{number}" for number in range(data.draw(st.integers(1, 6)))),
        num_layers=layers,
        layers=data.draw(st.integers(1, layers)),
    )
    for values in sample(strategy, 2):
        assert strategy.encode(values) == values
        assert strategy.decode(values).num_layers == strategy.settings.layers
    assert strategy.initial_design()
