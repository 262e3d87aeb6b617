"""From a configuration to its search space: one row per strategy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from auto_merge.config.fixed import NormalModelsSection, NormalSlicesSection
from auto_merge.config.run_config import RunConfig
from auto_merge.config.strategies import DisSection, LfsSection, PruneSection
from auto_merge.errors import ConfigError, RecipeError
from auto_merge.recipe.model import Recipe
from auto_merge.seams import Strategy
from auto_merge.search.baselines import Cast
from auto_merge.strategies import (
    dis,
    dis_published,
    fixed,
    lfs_names,
    lfs_published,
    prune,
    prune_published,
)
from auto_merge.strategies.dis import DepthwiseIntegration, DisSettings
from auto_merge.strategies.lfs import LayerwiseFusion
from auto_merge.strategies.lfs_settings import LfsSettings
from auto_merge.strategies.prune import PruneSettings, Pruning
from auto_merge.trial import Value


@dataclass(frozen=True)
class Row:
    """A strategy as a configuration names it.

    Attributes:
        build: Makes the search space.
        recognises: Whether a key of a flat search configuration is one of this strategy.
        multi_objective: Whether several tasks give a Pareto front instead of one winner.
    """

    build: Callable[[RunConfig, Cast], Strategy]
    recognises: Callable[[str], bool]
    multi_objective: bool = False


def build_strategy(config: RunConfig, cast: Cast) -> Strategy:
    """Returns the search space of a configuration.

    Raises:
        ConfigError: The settings fit neither each other nor the models.
    """
    given = getattr(config.settings, "num_hidden_layers", None)
    if given not in (None, cast.num_layers):
        where = config.located("num_hidden_layers")
        raise ConfigError(
            f"{where}: the models have {cast.num_layers} layers, got {given}; remove the key"
        )
    return STRATEGIES[config.strategy].build(config, cast)


def is_multi_objective(config: RunConfig) -> bool:
    """Whether the result is a Pareto front over the tasks."""
    return STRATEGIES[config.strategy].multi_objective and len(config.evaluation.tasks) > 1


def is_search_configuration(data: Any) -> bool:
    """Whether parsed JSON is a flat search configuration of some strategy."""
    return isinstance(data, Mapping) and any(
        row.recognises(str(key)) for row in STRATEGIES.values() for key in data
    )


def strategy_alone(config: RunConfig, keys: Iterable[str] = ()) -> Strategy:
    """Returns the search space without opening a model.

    Args:
        config: The configuration.
        keys: Keys of a search configuration, which may tell the number of layers.

    Raises:
        ConfigError: Nothing says how many layers the models have.
    """
    section = config.settings
    layers = getattr(section, "num_hidden_layers", None)
    if layers is None and isinstance(section, LfsSection):
        groups = [group for key in keys if (group := lfs_names.parse_selection(key)) is not None]
        layers = (max(groups) + 1) * section.layer_granularity if groups else None
    if layers is None and not isinstance(section, NormalSlicesSection):
        raise ConfigError(
            f"{config.located('num_hidden_layers')}: needed to look at a search without its models"
        )
    base = config.base_model.name if config.base_model else None
    dtype = config.evaluation.torch_dtype
    cast = Cast(
        tuple(model.name for model in config.models),
        base,
        layers or 0,
        "float32" if dtype == "auto" else dtype,
    )
    return STRATEGIES[config.strategy].build(config, cast)


def as_published(strategy: Strategy, stored: Mapping[str, Any]) -> Strategy:
    """Returns the strategy that a stored search configuration was made with.

    Files of the published layer-wise searches hold the parameters of all methods, also of those
    that a group did not choose; their slerp scores mean what they meant there.
    """
    if not isinstance(strategy, LayerwiseFusion):
        return strategy
    names = [name for key in stored if (name := lfs_names.parse_value(str(key))) is not None]
    flat = any(
        name.method != stored.get(lfs_names.selection_name(name.group), name.method)
        for name in names
    )
    if not flat:
        return strategy
    return LayerwiseFusion(replace(strategy.settings, slerp_space="published"))


def publish(config: RunConfig, recipe: Recipe) -> dict[str, Value]:
    """Returns the flat published key names of a recipe: what a stored search file would hold.

    Raises:
        ConfigError: Nothing says how many layers the models have.
        RecipeError: The recipe is not one of the strategy, or the strategy has no such names.
    """
    if isinstance(config.settings, LfsSection):
        groups = len(recipe.slices)
        strategy = strategy_alone(config, map(lfs_names.selection_name, range(groups)))
    else:
        strategy = strategy_alone(config)
    if isinstance(strategy, LayerwiseFusion):
        return lfs_published.publish(strategy.settings, recipe)
    if isinstance(strategy, DepthwiseIntegration):
        return dis_published.publish(strategy.settings, recipe)
    if isinstance(strategy, Pruning):
        return prune_published.publish(strategy.settings, recipe)
    raise RecipeError(f"strategy {config.strategy!r} has no search configurations")


def _lfs(config: RunConfig, cast: Cast) -> Strategy:
    section = config.settings
    assert isinstance(section, LfsSection), "the section of this strategy"
    settings = LfsSettings(
        models=cast.models,
        base=cast.base,
        num_layers=cast.num_layers,
        layer_granularity=section.layer_granularity,
        filters=section.filters,
        ranges=section.ranges,
        slerp_space=section.slerp_space,
        per_source_weights=section.per_source_weights,
        include_base=section.include_base,
        dtype=cast.dtype,
    )
    return LayerwiseFusion(settings)


def _dis(config: RunConfig, cast: Cast) -> Strategy:
    section = config.settings
    assert isinstance(section, DisSection), "the section of this strategy"
    settings = DisSettings(
        models=cast.models,
        base=cast.base,
        num_layers=cast.num_layers,
        max_layers=section.layers or cast.num_layers + math.ceil(cast.num_layers / 4),
        layer_granularity=section.layer_granularity,
        repeat=section.repeat,
        fix_layers=section.fix_layers,
        remain_base=section.remain_base,
        float_block_selection=section.float_block_selection,
        block_selection_threshold=section.block_selection_threshold,
        scale_mode=section.scale_mode,
        missing_permutation=section.missing_permutation,
        dtype=cast.dtype,
    )
    return DepthwiseIntegration(settings)


def _prune(config: RunConfig, cast: Cast) -> Strategy:
    section = config.settings
    assert isinstance(section, PruneSection), "the section of this strategy"
    settings = PruneSettings(
        models=cast.models,
        base=cast.base,
        num_layers=cast.num_layers,
        layers=section.layers,
        merge_scale=section.merge_scale,
        scale_mode=section.scale_mode,
        base_index=section.base_index,
        max_starts=section.start_points,
        dtype=cast.dtype,
    )
    return Pruning(settings)


def _normal_models(config: RunConfig, cast: Cast) -> Strategy:
    section = config.settings
    assert isinstance(section, NormalModelsSection), "the section of this strategy"
    models = {model.name: model.parameters for model in config.models}
    recipe = fixed.models_recipe(section, models, cast.base, cast.num_layers, cast.dtype)
    return fixed.FixedRecipe(recipe)


def _normal_slices(config: RunConfig, cast: Cast) -> Strategy:
    section = config.settings
    assert isinstance(section, NormalSlicesSection), "the section of this strategy"
    roles = (*cast.models, *((cast.base,) if cast.base else ()))
    return fixed.FixedRecipe(fixed.slices_recipe(section, roles, cast.base, cast.dtype))


def _lfs_key(key: str) -> bool:
    return lfs_names.parse_selection(key) is not None or lfs_names.parse_value(key) is not None


def _no_key(key: str) -> bool:
    return False


STRATEGIES: Mapping[str, Row] = {
    "lfs": Row(_lfs, _lfs_key),
    "lfs_multiobj": Row(_lfs, _lfs_key, multi_objective=True),
    "dis": Row(_dis, dis.recognises),
    "prune": Row(_prune, prune.recognises, multi_objective=True),
    "normal_models": Row(_normal_models, _no_key),
    "normal_slices": Row(_normal_slices, _no_key),
}
"""Strategy name in a configuration -> its row."""
