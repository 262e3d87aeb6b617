"""Recipes of depth-wise integration and pruning survive the way to published names and back."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from auto_merge.errors import RecipeError
from auto_merge.strategies import dis_published, permutations, prune_published
from auto_merge.strategies.dis import DepthwiseIntegration, DisSettings
from auto_merge.strategies.prune import PruneSettings, Pruning

PUBLISHED = Path(__file__).parents[2].parent / "shared/published"
DIS_FILES = sorted(PUBLISHED.glob("dis/**/*.json"))
PRUNE_FILES = sorted(PUBLISHED.glob("prune/**/*.json"))
needs_files = pytest.mark.skipif(not DIS_FILES, reason="the published files are not here")

DIS = DisSettings(("a", "b", "c"), "base", num_layers=6, max_layers=18)
PRUNE = PruneSettings(("a", "b", "c"), "base", num_layers=6, layers=4, merge_scale=(0.0, 1.0))


@pytest.mark.parametrize("kinds", [(0, 1, 2), (0, 0, 1, 1), (0, 1, 0, 1, 2), (0,), (0, 0)])
def test_rank_is_the_inverse_of_unrank(kinds: tuple[int, ...]) -> None:
    orders = [permutations.unrank(number, kinds) for number in range(permutations.count(kinds))]
    assert [permutations.rank(order, kinds) for order in orders] == list(range(len(orders)))
    legal = [
        order
        for order in itertools.permutations(range(len(kinds)))
        if all(
            [i for i in order if kinds[i] == kind]
            == [i for i in range(len(kinds)) if kinds[i] == kind]
            for kind in set(kinds)
        )
    ]
    assert orders == legal


@pytest.mark.parametrize(
    "settings",
    [
        DIS,
        replace(DIS, models=("a", "b"), layer_granularity=2, max_layers=24),
        replace(DIS, models=("a", "b"), repeat=2, fix_layers=1, max_layers=30),
        replace(DIS, remain_base=False, scale_mode="off"),
    ],
    ids=["plain", "granularity 2", "repeat 2", "no base"],
)
def test_dis_samples(settings: DisSettings) -> None:
    strategy = DepthwiseIntegration(settings)
    space = strategy.space()
    space.seed(1)
    for sample in space.sample_configuration(60):
        recipe = strategy.decode(dict(sample))
        published = dis_published.publish(settings, recipe)
        assert strategy.decode(strategy.encode(published)) == recipe


@pytest.mark.parametrize("mode", ["mlp", "off"])
def test_prune_samples(mode: str) -> None:
    settings = replace(PRUNE, scale_mode=mode)  # type: ignore[arg-type]
    strategy = Pruning(settings)
    space = strategy.space()
    space.seed(1)
    for sample in space.sample_configuration(60):
        recipe = strategy.decode(dict(sample))
        published = prune_published.publish(settings, recipe)
        assert strategy.decode(strategy.encode(published)) == recipe


@needs_files
@pytest.mark.parametrize("file", DIS_FILES, ids=lambda file: file.stem)
def test_published_dis_files(file: Path) -> None:
    data = json.loads(file.read_text())
    models = tuple("abc"[: 1 + max(int(k.split("_")[3]) for k in data if "_block_" in k)])
    settings = replace(DIS, models=models, num_layers=40, max_layers=50)
    strategy = DepthwiseIntegration(settings)
    recipe = strategy.decode(strategy.encode(data))
    again = dis_published.publish(settings, recipe)
    assert recipe.num_layers == 47
    assert strategy.decode(strategy.encode(again)) == recipe
    for key, value in data.items():
        if "permutation" in key and key not in again:
            continue  # fewer than two blocks: it does not act
        assert again[key] == value, key


@needs_files
@pytest.mark.parametrize("file", PRUNE_FILES, ids=lambda file: "-".join(file.parts[-2:]))
def test_published_prune_files(file: Path) -> None:
    data = json.loads(file.read_text())
    layers, kept = (40, 30) if "13b" in file.parts else (32, 23)
    settings = replace(PRUNE, num_layers=layers, layers=kept)
    strategy = Pruning(settings)
    recipe = strategy.decode(strategy.encode(data))
    again = prune_published.publish(settings, recipe)
    assert recipe.num_layers == kept
    removed = {value for key, value in data.items() if key.startswith("remove_idx")}
    assert {value for key, value in again.items() if key.startswith("remove_idx")} == removed
    for key, value in again.items():
        if not key.startswith("remove_idx"):
            assert data[key] == value, key


def test_other_recipes_are_refused() -> None:
    dis, prune = DepthwiseIntegration(DIS), Pruning(PRUNE)
    merged = prune.decode(dict(prune.initial_design()[-1][1]))
    with pytest.raises(RecipeError, match=r"slices\[\d\]: not a layer of depth-wise integration"):
        dis_published.publish(DIS, merged)
    pure = dis.decode(dict(dis.initial_design()[0][1]))
    foreign = pure.renamed({"a": "x"})
    with pytest.raises(RecipeError, match="'x' is not one of the models"):
        dis_published.publish(DIS, foreign)
    with pytest.raises(RecipeError, match="'x' is not one of the models"):
        prune_published.publish(PRUNE, foreign)
    twice = replace(pure, slices=(pure.slices[0], *pure.slices))
    with pytest.raises(RecipeError, match="occurs too often"):
        dis_published.publish(DIS, twice)
