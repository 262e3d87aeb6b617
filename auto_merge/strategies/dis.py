"""Depth-wise integration (DIS): which source layers follow each other, and how strongly.

The search space of "Fine, I'll Merge It Myself" (arXiv 2502.04030), made conditional. The layers
between the fixed ones are cut into candidate layers of ``layer_granularity`` layers. A candidate
layer holds blocks, each a single source layer: block j is the layer at offset ``j // (K repeat)``
of model ``j % K``. The chosen blocks follow each other in the chosen order. Names are the
published ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from auto_merge.recipe.model import Recipe, Slice, Source
from auto_merge.strategies import permutations
from auto_merge.strategies.dis_names import (
    BlockName,
    order_name,
    parse_block,
    parse_order,
    parse_scale,
    recognises,
    scale_name,
)
from auto_merge.strategies.dis_settings import DisSettings, check_settings, choice_probability
from auto_merge.strategies.flat import (
    MAX_CONDITIONED,
    OUTPUT_SCALES,
    StartPoint,
    at_least_one,
    at_least_two,
    checked_number,
    checked_whole,
    distinct,
    misfit,
)
from auto_merge.trial import Value

if TYPE_CHECKING:
    from ConfigSpace import ConfigurationSpace

__all__ = ["DepthwiseIntegration", "DisSettings", "recognises"]

MAX_LISTED_ORDERS = 24
"""Up to this many orders of a candidate layer are categories, as published; more are a number."""
MAX_ORDER_VALUES = 2**20
"""Values of such a number. More orders than that are reached at equal distances."""


class DepthwiseIntegration:
    """The DIS strategy.

    A recipe that is deeper than :attr:`max_layers`, or has no layer at all, is infeasible.

    Attributes:
        settings: What defines the space.
        max_layers: Largest number of layers of a result.

    Raises:
        ConfigError: The settings make no space.
    """

    def __init__(self, settings: DisSettings) -> None:
        check_settings(settings)
        self.settings = settings
        self.max_layers = settings.max_layers
        self._kinds = tuple(block % len(settings.models) for block in range(settings.num_blocks))
        self._num_orders = permutations.count(self._kinds)
        self._num_order_values = min(self._num_orders, MAX_ORDER_VALUES)
        self._orders_are_listed = self._num_orders <= MAX_LISTED_ORDERS
        self._conditioned = settings.num_blocks <= MAX_CONDITIONED

    def space(self) -> ConfigurationSpace:
        """Returns a fresh conditional space; by default nothing is chosen.

        Choices are weighted so that most sampled configurations are feasible.
        """
        from ConfigSpace import ConfigurationSpace

        space = ConfigurationSpace()
        probability = choice_probability(self.settings)
        layers = [
            self._hyperparameters(layer, probability)
            for layer in range(self.settings.num_candidates)
        ]
        # All at once: ConfigSpace sorts the whole space after every addition.
        space.add([value for values, _ in layers for value in values])
        space.add([condition for _, conditions in layers for condition in conditions])
        return space

    def decode(self, configuration: Mapping[str, Value]) -> Recipe:
        """Turns a configuration into a recipe of passthrough slices, one per output layer.

        An absent choice is not taken, an absent scale is 1, an absent permutation is the one that
        ``missing_permutation`` says. The output scale stands on the last slice of a candidate
        layer. Where nothing is chosen, all layers of the candidate layer are the base's, or gone.
        """
        settings = self.settings
        first, end = settings.fix_layers, settings.num_layers - settings.fix_layers
        slices = [_copy(settings.models[0], layer) for layer in range(first)]
        for layer in range(settings.num_candidates):
            slices += self._candidate_layer(configuration, layer)
        slices += [_copy(settings.models[0], layer) for layer in range(end, settings.num_layers)]
        mode = "mlp" if settings.scale_mode == "off" else settings.scale_mode
        return Recipe(tuple(slices), settings.base, settings.dtype, scale_mode=mode)

    def encode(self, published: Mapping[str, Any]) -> dict[str, Value]:
        """Turns a flat published configuration into one of this space, inactive values removed.

        What is absent means what it means to :meth:`decode`. Scales are dropped where none are
        searched.

        Raises:
            RecipeError: A key or value does not fit this space, or the configuration was made for
                another number of models or layers.
        """
        self._check_extent(published)
        given = {key: self._checked(key, value) for key, value in published.items()}
        return self._complete(given)

    def initial_design(self) -> Sequence[StartPoint]:
        """Every source alone, then the base if it may remain; no recipe twice, none infeasible."""
        settings = self.settings
        points = [
            (f"source {model}", self._complete(self._pure(number)))
            for number, model in enumerate(settings.models)
        ]
        if settings.remain_base:
            points.append(("base", self._complete({})))
        return [
            (label, point)
            for label, point in distinct(points, self.decode)
            if self.decode(point).num_layers <= self.max_layers
        ]

    def _hyperparameters(self, layer: int, probability: float) -> tuple[list[Any], list[Any]]:
        """Hyperparameters and conditions of one candidate layer."""
        from ConfigSpace import Float

        blocks = [self._choice(name, probability) for name in self._blocks(layer)]
        values, conditions = list(blocks), []
        if self._num_orders > 1:
            order = self._order_choice(layer)
            values.append(order)
            if self._conditioned:
                conditions.append(at_least_two([self._taken(order, block) for block in blocks]))
        if self.settings.scale_mode != "off":
            bounds = OUTPUT_SCALES[self.settings.scale_mode]
            scale = Float(scale_name(layer), bounds, default=1.0)
            values.append(scale)
            if self._conditioned and not self.settings.remain_base:
                conditions.append(at_least_one([self._taken(scale, block) for block in blocks]))
        return values, conditions

    def _order_choice(self, layer: int) -> Any:
        """The hyperparameter of a candidate layer's permutation."""
        from ConfigSpace import Categorical, Integer

        name = order_name(layer)
        if self._orders_are_listed:
            return Categorical(name, [str(n) for n in range(self._num_orders)], default="0")
        return Integer(name, (0, self._num_order_values - 1), default=0)

    def _choice(self, name: str, probability: float) -> Any:
        """The hyperparameter of one block; a sample takes it with the given probability."""
        from ConfigSpace import Categorical
        from ConfigSpace.hyperparameters import BetaFloatHyperparameter

        if not self.settings.float_block_selection:
            weights = [1 - probability, probability]
            return Categorical(name, ["0", "1"], weights=weights, default="0")
        # Beta(1, b) exceeds t with probability (1 - t)^b; ConfigSpace wants b >= 1.
        exponent = math.log(probability) / math.log(1 - self.settings.block_selection_threshold)
        return BetaFloatHyperparameter(
            name, alpha=1.0, beta=max(1.0, exponent), lower=0.0, upper=1.0, default_value=0.0
        )

    def _taken(self, child: Any, block: Any) -> Any:
        """The condition that a block is chosen."""
        from ConfigSpace import EqualsCondition, GreaterThanCondition

        if self.settings.float_block_selection:
            return GreaterThanCondition(child, block, self.settings.block_selection_threshold)
        return EqualsCondition(child, block, "1")

    def _blocks(self, layer: int) -> Iterator[str]:
        return (str(BlockName(layer, block)) for block in range(self.settings.num_blocks))

    def _is_chosen(self, value: Value) -> bool:
        if self.settings.float_block_selection:
            return float(value) > self.settings.block_selection_threshold
        return str(value) == "1"

    def _candidate_layer(self, configuration: Mapping[str, Value], layer: int) -> list[Slice]:
        settings = self.settings
        granularity = settings.layer_granularity
        start = settings.fix_layers + layer * granularity
        names = list(self._blocks(layer))
        origins = [
            (settings.models[self._kinds[block]], start + block // settings.copies)
            for block in self._order(configuration, layer)
            if self._is_chosen(configuration.get(names[block], "0"))
        ]
        if not origins and settings.remain_base:
            assert settings.base is not None, "the settings were checked"
            origins = [(settings.base, start + offset) for offset in range(granularity)]
        scale = 1.0
        if settings.scale_mode != "off":
            scale = float(configuration.get(scale_name(layer), 1.0))
        return [
            _copy(model, source, scale if number == len(origins) else 1.0)
            for number, (model, source) in enumerate(origins, start=1)
        ]

    def _order(self, configuration: Mapping[str, Value], layer: int) -> tuple[int, ...]:
        value = int(configuration.get(order_name(layer), self._missing_order()))
        return permutations.unrank(value * self._num_orders // self._num_order_values, self._kinds)

    def _missing_order(self) -> int:
        return int(self.settings.missing_permutation == "reversed" and self._num_orders > 1)

    def _complete(self, given: Mapping[str, Value]) -> dict[str, Value]:
        """Adds what is absent and removes what does not act."""
        settings = self.settings
        configuration: dict[str, Value] = {}
        absent: Value = 0.0 if settings.float_block_selection else "0"
        for layer in range(settings.num_candidates):
            blocks = {name: given.get(name, absent) for name in self._blocks(layer)}
            chosen = sum(self._is_chosen(value) for value in blocks.values())
            configuration.update(blocks)
            if self._num_orders > 1 and (chosen >= 2 or not self._conditioned):
                name = order_name(layer)
                configuration[name] = given.get(name, self._order_value(self._missing_order()))
            acts = chosen or settings.remain_base or not self._conditioned
            if settings.scale_mode != "off" and acts:
                configuration[scale_name(layer)] = given.get(scale_name(layer), 1.0)
        return configuration

    def _order_value(self, number: int) -> Value:
        return str(number) if self._orders_are_listed else number

    def _pure(self, model: int) -> dict[str, Value]:
        """Chooses the first copy of every layer of one model, in the order of the blocks."""
        settings = self.settings
        chosen: Value = 1.0 if settings.float_block_selection else "1"
        choices: dict[str, Value] = {}
        for layer in range(settings.num_candidates):
            choices[order_name(layer)] = self._order_value(0)
            for offset in range(settings.layer_granularity):
                choices[str(BlockName(layer, offset * settings.copies + model))] = chosen
        return choices

    def _checked(self, key: str, value: Any) -> Value:
        """Returns a published value as this space writes it; the key was checked."""
        settings = self.settings
        if parse_scale(key) is not None:
            return checked_number(key, value, OUTPUT_SCALES[settings.scale_mode])
        if parse_order(key) is not None:
            return self._order_value(checked_whole(key, value, self._num_order_values))
        if settings.float_block_selection and not isinstance(value, str):
            return checked_number(key, value, (0.0, 1.0))
        choice = checked_whole(key, value, 2)
        return float(choice) if settings.float_block_selection else str(choice)

    def _check_extent(self, published: Mapping[str, Any]) -> None:
        """Refuses other keys, and configurations for other numbers of models or layers."""
        settings = self.settings
        depth, width = (-1, ""), (-1, "")
        for key in published:
            block = parse_block(key)
            layer = block.layer if block else parse_scale(key)
            layer = parse_order(key) if layer is None else layer
            if layer is None:
                raise misfit(key, "not a name of depth-wise integration")
            depth = max(depth, (layer, key))
            if block:
                width = max(width, (block.block, key))
        if width[0] not in (-1, settings.num_blocks - 1):
            raise misfit(
                width[1],
                f"the configuration has {width[0] + 1} blocks per layer, "
                f"the {len(settings.models)} configured models make {settings.num_blocks}",
            )
        if depth[0] not in (-1, settings.num_candidates - 1):
            raise misfit(
                depth[1],
                f"the configuration has {depth[0] + 1} candidate layers, "
                f"this space has {settings.num_candidates}",
            )


def _copy(model: str, layer: int, output_scale: float = 1.0) -> Slice:
    return Slice("passthrough", (Source(model, (layer, layer + 1)),), output_scale=output_scale)
