from __future__ import annotations

import itertools
import json
import math
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ConfigSpace import Configuration
from hypothesis import given, settings
from hypothesis import strategies as st

from auto_merge.errors import ConfigError, RecipeError
from auto_merge.recipe.model import Recipe
from auto_merge.strategies import permutations
from auto_merge.strategies.dis import DepthwiseIntegration, DisSettings, recognises
from auto_merge.strategies.dis_names import BlockName, order_name, scale_name
from auto_merge.strategies.dis_settings import choice_probability

PUBLISHED = Path(__file__).parents[3] / "shared/published/dis/single-obj"


def make(**changes: Any) -> DepthwiseIntegration:
    fields: dict[str, Any] = {
        "models": ("a", "b", "c"),
        "base": "base",
        "num_layers": 4,
        "max_layers": 6,
    }
    return DepthwiseIntegration(DisSettings(**{**fields, **changes}))


def stack(recipe: Recipe) -> list[tuple[str, int]]:
    """Model and source layer of every output layer; all slices are single copied layers."""
    layers = []
    for part in recipe.slices:
        (source,) = part.sources
        assert part.method == "passthrough"
        assert source.layers[1] == source.layers[0] + 1
        layers.append((source.model, source.layers[0]))
    return layers


def scales(recipe: Recipe) -> list[float]:
    return [part.output_scale for part in recipe.slices]


def chosen(layer: int, *blocks: int, **more: Any) -> dict[str, Any]:
    values: dict[str, Any] = {str(BlockName(layer, block)): "1" for block in blocks}
    if "order" in more:
        values[order_name(layer)] = more["order"]
    if "scale" in more:
        values[scale_name(layer)] = more["scale"]
    return values


def sample(strategy: DepthwiseIntegration, count: int, seed: int = 0) -> list[dict[str, Any]]:
    space = strategy.space()
    space.seed(seed)
    return [dict(one) for one in space.sample_configuration(count)]


def check_legal(strategy: DepthwiseIntegration, configuration: dict[str, Any]) -> None:
    from ConfigSpace import Configuration

    Configuration(strategy.space(), values=configuration).check_valid_configuration()


# Permutations


def listed(kinds: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Orders in which equal kinds keep their order, filtered from all of them."""
    return [
        order
        for order in itertools.permutations(range(len(kinds)))
        if all(
            order.index(first) < order.index(second)
            for first, second in itertools.combinations(range(len(kinds)), 2)
            if kinds[first] == kinds[second]
        )
    ]


def test_three_models_are_ordered_as_published() -> None:
    orders = [permutations.unrank(rank, (0, 1, 2)) for rank in range(6)]
    assert orders == [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]


def test_two_models_and_two_depths_by_hand() -> None:
    kinds = (0, 1, 0, 1)
    assert permutations.count(kinds) == 6
    assert [permutations.unrank(rank, kinds) for rank in range(6)] == [
        (0, 1, 2, 3),
        (0, 1, 3, 2),
        (0, 2, 1, 3),
        (1, 0, 2, 3),
        (1, 0, 3, 2),
        (1, 3, 0, 2),
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=6))
def test_unranking_runs_through_the_listed_orders(kinds: list[int]) -> None:
    expected = listed(tuple(kinds))
    assert permutations.count(kinds) == len(expected)
    assert [permutations.unrank(rank, kinds) for rank in range(len(expected))] == expected


def test_huge_numbers_of_orders_are_counted_and_reached() -> None:
    assert permutations.count([block % 3 for block in range(12)]) == 34_650
    kinds = [block % 4 for block in range(40)]
    total = permutations.count(kinds)
    assert total == math.factorial(40) // math.factorial(10) ** 4 > 2**63
    assert permutations.unrank(0, kinds) == tuple(range(40))
    last = permutations.unrank(total - 1, kinds)
    assert last == (*range(3, 40, 4), *range(2, 40, 4), *range(1, 40, 4), *range(0, 40, 4))
    orders = {permutations.unrank(total * part // 50, kinds) for part in range(50)}
    assert len(orders) == 50
    assert all(sorted(order) == list(range(40)) for order in orders)


# Decoding


def test_two_blocks_make_the_model_deeper_and_the_scale_stands_on_the_last() -> None:
    strategy = make(num_layers=40, max_layers=50)
    recipe = strategy.decode(chosen(29, 0, 2, order="0", scale=0.874))
    assert recipe.num_layers == 41
    assert stack(recipe)[28:32] == [("base", 28), ("a", 29), ("c", 29), ("base", 30)]
    assert scales(recipe)[28:32] == [1.0, 1.0, 0.874, 1.0]
    assert recipe.base == "base"
    assert recipe.scale_mode == "mlp"


@pytest.mark.parametrize(
    ("order", "expected"),
    [("0", "abc"), ("1", "acb"), ("2", "bac"), ("3", "bca"), ("4", "cab"), ("5", "cba")],
)
def test_order_of_three_blocks(order: str, expected: str) -> None:
    recipe = make(num_layers=1).decode(chosen(0, 0, 1, 2, order=order))
    assert stack(recipe) == [(model, 0) for model in expected]


def test_granularity_two_takes_models_by_position_and_depth_by_block() -> None:
    strategy = make(models=("a", "b"), layer_granularity=2)
    blocks = [("a", 2), ("b", 2), ("a", 3), ("b", 3)]
    assert stack(strategy.decode(chosen(1, 0, 1, 2, 3, order="0")))[2:] == blocks
    assert stack(strategy.decode(chosen(1, 0, 1, 2, 3, order="5")))[2:] == [
        ("b", 2),
        ("b", 3),
        ("a", 2),
        ("a", 3),
    ]
    three = make(layer_granularity=2)
    assert stack(three.decode(chosen(0, 1, 4, order=0)))[:2] == [("b", 0), ("b", 1)]


def test_repeat_takes_a_layer_twice() -> None:
    strategy = make(models=("a", "b"), repeat=2, num_layers=2)
    recipe = strategy.decode(chosen(1, 0, 1, 2, 3, order="2"))
    assert stack(recipe) == [("base", 0), ("a", 1), ("a", 1), ("b", 1), ("b", 1)]
    alone = make(models=("a",), repeat=3, num_layers=1)
    assert stack(alone.decode(chosen(0, 0, 2))) == [("a", 0), ("a", 0)]
    assert not any("permutation" in name for name in alone.space())


def test_an_empty_layer_is_the_bases_with_its_scale_or_gone() -> None:
    empty = {**chosen(0, 1), scale_name(1): 0.5, scale_name(0): 1.5}
    kept = make(models=("a", "b"), num_layers=2).decode(empty)
    assert stack(kept) == [("b", 0), ("base", 1)]
    assert scales(kept) == [1.5, 0.5]
    gone = make(models=("a", "b"), num_layers=2, remain_base=False, base=None).decode(empty)
    assert stack(gone) == [("b", 0)]
    group = make(layer_granularity=2, num_layers=2).decode({scale_name(0): 0.5})
    assert stack(group) == [("base", 0), ("base", 1)]
    assert scales(group) == [1.0, 0.5]


def test_fixed_layers_are_the_first_models_and_not_searched() -> None:
    strategy = make(num_layers=5, fix_layers=1)
    recipe = strategy.decode(chosen(0, 2, scale=0.9))
    assert stack(recipe) == [("a", 0), ("c", 1), ("base", 2), ("base", 3), ("a", 4)]
    assert scales(recipe) == [1.0, 0.9, 1.0, 1.0, 1.0]
    assert sum("scale" in name for name in strategy.space()) == 3


def test_a_missing_permutation_is_the_identity_or_number_one() -> None:
    pair = chosen(0, 0, 1)
    fields: dict[str, Any] = {"models": ("a", "b"), "num_layers": 1}
    assert stack(make(**fields).decode(pair)) == [("a", 0), ("b", 0)]
    reversing = make(**fields, missing_permutation="reversed")
    assert stack(reversing.decode(pair)) == [("b", 0), ("a", 0)]
    assert reversing.encode(pair)[order_name(0)] == "1"
    three = make(num_layers=1, missing_permutation="reversed").decode(chosen(0, 0, 1, 2))
    assert stack(three) == [("a", 0), ("c", 0), ("b", 0)]


COMPLETE_FIRST = {str(BlockName(0, block)): "0" for block in range(3)}


def test_float_choices_are_compared_with_the_threshold() -> None:
    strategy = make(num_layers=1, float_block_selection=True, block_selection_threshold=0.3)
    values = {str(BlockName(0, block)): value for block, value in enumerate((0.3, 0.31, 0.9))}
    assert stack(strategy.decode({**values, order_name(0): "5"})) == [("c", 0), ("b", 0)]
    assert strategy.encode(values) == {**values, order_name(0): "0", scale_name(0): 1.0}
    assert strategy.encode({**COMPLETE_FIRST, **chosen(0, 1)})[str(BlockName(0, 1))] == 1.0


def test_scale_modes() -> None:
    values = chosen(0, 0, scale=0.5)
    hidden = make(scale_mode="hidden")
    assert hidden.decode(values).scale_mode == "hidden"
    assert hidden.space()[scale_name(0)].lower > 0
    off = make(scale_mode="off")
    assert scales(off.decode(values)) == [1.0] * 4
    assert off.encode({**COMPLETE, **values}) == {**COMPLETE, **chosen(0, 0)}
    assert not any("scale" in name for name in off.space())


# The space


def test_the_published_space_has_its_names() -> None:
    names = set(make(num_layers=40, max_layers=50).space())
    assert len(names) == 40 * (1 + 1 + 3) == 200
    assert all(recognises(name) for name in names)


@pytest.mark.parametrize("key", ["scale_01", "scale_x", "layer_0_block_1", "layer_0_candidate_1"])
def test_other_names_are_not_recognised(key: str) -> None:
    assert not recognises(key)


SPACES: dict[str, dict[str, Any]] = {
    "three models": {},
    "one model": {"models": ("a",), "num_layers": 2},
    "one layer": {"num_layers": 1},
    "no base": {"base": None, "remain_base": False},
    "five models": {"models": tuple("abcde")},
    "five models, no base": {"models": tuple("abcde"), "base": None, "remain_base": False},
    "granularity": {"layer_granularity": 2, "models": ("a", "b")},
    "many orders": {"layer_granularity": 4},
    "repeat": {"repeat": 2, "models": ("a", "b")},
    "repeat one model": {"repeat": 2, "models": ("a",)},
    "fixed": {"fix_layers": 1},
    "float": {"float_block_selection": True},
    "float, no base": {
        "float_block_selection": True,
        "block_selection_threshold": 0.8,
        "remain_base": False,
    },
    "no scales": {"scale_mode": "off", "missing_permutation": "reversed"},
    "more orders than values": {
        "num_layers": 10,
        "max_layers": 12,
        "layer_granularity": 10,
        "models": tuple("abcd"),
    },
}


@pytest.mark.parametrize("name", SPACES)
def test_samples_decode_purely_and_encode_to_themselves(name: str) -> None:
    strategy = make(**SPACES[name])
    layers, fixed = strategy.settings.num_layers, 2 * strategy.settings.fix_layers
    for values in sample(strategy, 60, seed=3):
        before = dict(values)
        recipe = strategy.decode(values)
        assert values == before
        assert recipe == strategy.decode(values)
        assert fixed <= recipe.num_layers
        assert all(0 <= layer < layers for _, layer in stack(recipe))
        assert strategy.encode(values) == values


@pytest.mark.parametrize("name", SPACES)
def test_start_points_are_sources_and_base_and_legal(name: str) -> None:
    strategy = make(**SPACES[name])
    points = strategy.initial_design()
    for _, point in points:
        check_legal(strategy, point)
        assert strategy.encode(point) == point
    recipes = {label: strategy.decode(point) for label, point in points}
    layers, fixed = strategy.settings.num_layers, strategy.settings.fix_layers
    expected = list(strategy.settings.models) + ["base"] * strategy.settings.remain_base
    assert [label.removeprefix("source ") for label in recipes] == expected
    for label, recipe in recipes.items():
        model = label.removeprefix("source ")
        inner = [(model, layer) for layer in range(fixed, layers - fixed)]
        assert stack(recipe)[fixed : layers - fixed] == inner
        assert recipe.num_layers == layers
        assert set(scales(recipe)) == {1.0}


def test_start_points_that_are_too_deep_are_left_out() -> None:
    assert make(remain_base=False, max_layers=3).initial_design() == []


@pytest.mark.parametrize("name", ["three models", "float", "no base", "float, no base"])
def test_values_that_do_not_act_are_inactive(name: str) -> None:
    strategy = make(**SPACES[name])
    for values in sample(strategy, 60, seed=5):
        for layer in range(4):
            taken = [
                block
                for block in range(3)
                if strategy._is_chosen(values[str(BlockName(layer, block))])
            ]
            assert (order_name(layer) in values) == (len(taken) >= 2)
            acts = bool(taken) or strategy.settings.remain_base
            assert (scale_name(layer) in values) == acts


def test_many_orders_are_a_whole_number() -> None:
    strategy = make(**SPACES["many orders"])
    order = strategy.space()[order_name(0)]
    assert (order.lower, order.upper) == (0, 34_649)
    assert strategy.encode(strategy.initial_design()[0][1])[order_name(0)] == 0
    everything = chosen(0, *range(12), order=34_649)
    assert stack(strategy.decode(everything)) == [(m, i) for m in "cba" for i in range(4)]


def test_more_orders_than_values_are_reached_at_equal_distances() -> None:
    strategy = make(**SPACES["more orders than values"])
    order = strategy.space()[order_name(0)]
    assert (order.lower, order.upper) == (0, 2**20 - 1)
    blocks = chosen(0, *range(40))
    models = {
        value: [model for model, _ in stack(strategy.decode({**blocks, order_name(0): value}))]
        for value in (0, 2**19, 2**20 - 1)
    }
    assert models[0] == list("abcd" * 10)
    assert models[2**19][0] == "c"
    assert models[2**20 - 1][:6] == ["d"] * 6


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"max_layers": 45},
        {"max_layers": 40},
        {"remain_base": False},
        {"repeat": 2},
        {"layer_granularity": 4},
        {"float_block_selection": True},
    ],
)
def test_most_samples_are_feasible(changes: dict[str, Any]) -> None:
    strategy = make(**{"num_layers": 40, "max_layers": 50, **changes})
    depths = [strategy.decode(values).num_layers for values in sample(strategy, 200)]
    assert sum(1 <= depth <= strategy.max_layers for depth in depths) > 180
    assert len(set(depths)) > 1


def test_choice_probability_is_capped_at_one_block_per_depth() -> None:
    generous = DisSettings(("a", "b", "c"), "base", 40, max_layers=100, repeat=2)
    assert choice_probability(generous) == pytest.approx(1 / 6)
    assert choice_probability(DisSettings(("a",), "base", 40, max_layers=40)) == 0.5


def test_space_and_samples_are_quick() -> None:
    strategy = make(num_layers=40, max_layers=50)
    started = time.process_time()
    strategy.space().sample_configuration(1000)
    assert time.process_time() - started < 2.0


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 6), st.integers(1, 3), st.integers(1, 2), st.integers(0, 2)
)
def test_any_size_works(models: int, groups: int, granularity: int, repeat: int, fix: int) -> None:
    strategy = make(
        models=tuple(f"m{number}" for number in range(models)),
        num_layers=groups * granularity + 2 * fix,
        max_layers=groups * granularity + 2 * fix,
        layer_granularity=granularity,
        repeat=repeat,
        fix_layers=fix,
    )
    (values,) = sample(strategy, 1) if len(strategy.space()) == 1 else sample(strategy, 2)[:1]
    assert strategy.encode(values) == values
    assert strategy.decode(values).num_layers >= groups + 2 * fix
    assert len(strategy.initial_design()) == models + 1


# Published files


def published(name: str) -> dict[str, Any]:
    path = PUBLISHED / f"{name}.json"
    if not path.exists():
        pytest.skip("the published search configurations are not here")
    data: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return data


@pytest.mark.parametrize(
    ("name", "models", "empty", "pairs", "usage", "num_scales", "extremes"),
    [
        (
            "lm-dis0",
            ("a", "b", "c"),
            [20, 23, 25, 26, 30, 36],
            [17, 22, 24, 27, 29, 31, 38],
            {"c": 29, "a": 6, "b": 6, "base": 6},
            7,
            (0.874, 1.193),
        ),
        (
            "lm-dis1",
            ("a", "b"),
            [1, 6, 10, 16, 20, 32, 35],
            [17, 18, 23, 27, 29, 30, 33],
            {"b": 27, "a": 13, "base": 7},
            16,
            (0.783, 1.140),
        ),
    ],
)
def test_published_files_have_the_published_layers(
    name: str,
    models: tuple[str, ...],
    empty: list[int],
    pairs: list[int],
    usage: dict[str, int],
    num_scales: int,
    extremes: tuple[float, float],
) -> None:
    data = published(name)
    strategy = make(models=models, num_layers=40, max_layers=50)
    assert all(recognises(key) for key in data)
    configuration = strategy.encode(data)
    check_legal(strategy, configuration)
    recipe = strategy.decode(configuration)
    assert recipe == strategy.decode(data)
    assert recipe.num_layers == 47
    assert Counter(model for model, _ in stack(recipe)) == usage
    assert [layer for model, layer in stack(recipe) if model == "base"] == empty
    depth = Counter(layer for _, layer in stack(recipe))
    assert [layer for layer in range(40) if depth[layer] == 2] == pairs
    assert [layer for _, layer in stack(recipe)] == sorted(depth.elements())
    moved = [scale for scale in scales(recipe) if scale != 1.0]
    assert len(moved) == num_scales
    assert (min(moved), max(moved)) == pytest.approx(extremes, abs=5e-4)
    without = make(models=models, num_layers=40, max_layers=50, remain_base=False)
    assert without.decode(without.encode(data)).num_layers == 47 - len(empty)


def test_published_pairs_follow_the_missing_permutation() -> None:
    data = published("lm-dis1")
    fields: dict[str, Any] = {"models": ("a", "b"), "num_layers": 40, "max_layers": 50}
    for missing, expected in (("identity", "ab"), ("reversed", "ba")):
        strategy = make(**fields, missing_permutation=missing)
        layers = stack(strategy.decode(strategy.encode(data)))
        pair = [model for model, layer in layers if layer == 17]
        assert "".join(pair) == expected


@pytest.mark.parametrize(
    ("name", "models", "message"),
    [
        ("lm-dis0", ("a", "b"), "3 blocks per layer, the 2 configured models make 2"),
        ("lm-dis1", ("a", "b", "c"), "2 blocks per layer, the 3 configured models make 3"),
    ],
)
def test_published_files_for_other_models_are_refused(
    name: str, models: tuple[str, ...], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        make(models=models, num_layers=40, max_layers=50).encode(published(name))


# What does not fit

COMPLETE = {str(BlockName(layer, block)): "0" for layer in range(4) for block in range(3)}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("scale_4", 1.0, "has 5 candidate layers, this space has 4"),
        ("layer_7_permutation_selection", "0", "has 8 candidate layers, this space has 4"),
        ("layer_0_block_3_selection", "0", "4 blocks per layer, the 3 configured models make 3"),
        ("scale_0", 2.5, r"must lie within \[0, 2\], got 2.5"),
        ("scale_0", float("nan"), r"must lie within \[0, 2\], got nan"),
        ("scale_0", "1.0", "must be a number, got '1.0'"),
        ("scale_0", True, "must be a number, got True"),
        ("scale_0", None, "must be a number, got None"),
        ("layer_0_permutation_selection", "6", "whole number from 0 to 5, got '6'"),
        ("layer_0_permutation_selection", "-1", "whole number from 0 to 5, got '-1'"),
        ("layer_0_permutation_selection", "9" * 5000, "whole number from 0 to 5"),
        ("layer_0_permutation_selection", 1.0, "whole number from 0 to 5, got 1.0"),
        ("layer_0_block_0_selection", "2", "whole number from 0 to 1, got '2'"),
        ("layer_0_block_0_selection", 0.7, "whole number from 0 to 1, got 0.7"),
        ("layer_0_block_0_selection", True, "whole number from 0 to 1, got True"),
        ("layer_0_block_0_selection", "²", "whole number from 0 to 1"),
        ("layer_00_block_0_selection", "1", "not a name of depth-wise integration"),
        ("layer_0_candidate_0", 1, "not a name of depth-wise integration"),
        ("", 1, "not a name of depth-wise integration"),
        ("layer_selection_method_0", "linear", "not a name of depth-wise integration"),
    ],
)
def test_encode_names_what_does_not_fit(key: str, value: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        make().encode({**COMPLETE, key: value})
    assert f"search configuration key {key!r}: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_encode_refuses_fewer_layers() -> None:
    short = {key: value for key, value in COMPLETE.items() if "layer_3" not in key}
    with pytest.raises(RecipeError, match="has 3 candidate layers, this space has 4"):
        make().encode(short)


def test_encode_of_nothing_is_the_base_alone() -> None:
    strategy = make()
    assert strategy.encode({}) == dict(strategy.initial_design())["base"]


def test_hidden_scales_cannot_be_zero() -> None:
    with pytest.raises(RecipeError, match=r"'scale_0': must lie within \[0.01, 2\], got 0.0"):
        make(scale_mode="hidden").encode({**COMPLETE, "scale_0": 0.0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ()}, "models: at least one model"),
        ({"models": ("a", "a")}, "models: names must differ, 'a' occurs twice"),
        ({"models": ("a", "base")}, "'base' occurs twice"),
        ({"base": None}, "remain_base: needs a base model, got none; give base_model or set"),
        ({"num_layers": 0}, "num_hidden_layers: must be at least 1, got 0"),
        ({"layer_granularity": 0}, "layer_granularity: must be at least 1, got 0"),
        (
            {"layer_granularity": 3},
            "must divide the 4 layers that are not fixed, got 3; possible: 1, 2, 4",
        ),
        ({"repeat": 0}, "repeat: must be at least 1, got 0"),
        ({"fix_layers": -1}, "fix_layers: must be at least 0, got -1"),
        (
            {"fix_layers": 2},
            "fix_layers: must leave a layer to search: at most 1 of the 4 layers at either end, "
            "got 2",
        ),
        (
            {"float_block_selection": True, "block_selection_threshold": 1.0},
            "block_selection_threshold: must lie between 0 and 1, .* got 1",
        ),
        (
            {"max_layers": 3},
            "layers: must be at least 4, the depth of the shallowest result, got 3",
        ),
        ({"max_layers": 0, "remain_base": False}, "layers: must be at least 1"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make(**changes)
    assert str(caught.value).startswith("strategies.dis.")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("float_blocks", [False, True])
def test_two_blocks_without_the_base(float_blocks: bool) -> None:
    """The scale acts where one block is taken, the order only where both are."""
    strategy = DepthwiseIntegration(
        DisSettings(
            ("a", "b"),
            "base",
            num_layers=5,
            max_layers=10,
            remain_base=False,
            float_block_selection=float_blocks,
        )
    )
    space = strategy.space()
    space.seed(0)
    for sample in space.sample_configuration(200):
        values = dict(sample)
        recipe = strategy.decode(values)
        for layer in range(5):
            count = sum(part.sources[0].layers[0] == layer for part in recipe.slices)
            assert (f"scale_{layer}" in values) is (count >= 1)
            assert (f"layer_{layer}_permutation_selection" in values) is (count == 2)
    for _, point in strategy.initial_design():
        Configuration(space, values=point).check_valid_configuration()
