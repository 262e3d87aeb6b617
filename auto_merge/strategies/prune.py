"""Pruning: which layers go, and which models the layers that stay are made from.

The search space of GPTailor (arXiv 2506.20480). The published one lists the removed layers as R
different numbers: R! lists mean the same set, and R(R-1)/2 L clauses forbid repetitions. Here every
layer has a score in [0, 1] and the R largest go. Every configuration is feasible, every set of
layers is equally likely, and close scores mean nearly equal sets. All other names are the
published ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from auto_merge.recipe.model import Entry, Recipe, Slice, Source
from auto_merge.strategies.flat import (
    MAX_CONDITIONED,
    OUTPUT_SCALES,
    StartPoint,
    at_least_two,
    checked_number,
    checked_whole,
    distinct,
    misfit,
)
from auto_merge.strategies.prune_names import (
    PruneName,
    candidate_name,
    merge_scale_name,
    output_scale_name,
    parse,
    recognises,
    removal_name,
)
from auto_merge.strategies.prune_settings import MERGE_SCALES, PruneSettings, check_settings
from auto_merge.strategies.prune_starts import Pattern, in_useful_order, patterns, removal_lists
from auto_merge.trial import Value

if TYPE_CHECKING:
    from ConfigSpace import ConfigurationSpace

__all__ = ["PruneSettings", "Pruning", "recognises"]

_MIDDLE = 0.5
_GONE, _KEPT = 0.55, 0.45
"""Scores of a given set: a small step of the optimizer shall be able to exchange two layers."""


class Pruning:
    """The pruning strategy.

    Attributes:
        settings: What defines the space.

    Raises:
        ConfigError: The settings make no space.
    """

    max_layers: int | None = None

    def __init__(self, settings: PruneSettings) -> None:
        check_settings(settings)
        self.settings = settings
        self._conditioned = len(settings.models) <= MAX_CONDITIONED
        low, high = settings.merge_scale
        self._default_merge_scale = min(max(1.0, low), high)

    def space(self) -> ConfigurationSpace:
        """Returns a fresh space; by default the last layers go, the others are the first model's.

        A merge scale is inactive in layers with fewer than two candidates, up to four models.
        """
        from ConfigSpace import ConfigurationSpace

        space = ConfigurationSpace()
        layers = [self._hyperparameters(layer) for layer in range(self.settings.num_layers)]
        # All at once: ConfigSpace sorts the whole space after every addition.
        space.add([value for values, _ in layers for value in values])
        space.add([condition for _, conditions in layers for condition in conditions])
        return space

    def decode(self, configuration: Mapping[str, Value]) -> Recipe:
        """Turns a configuration into a recipe with one slice for each layer that stays.

        The layers with the largest removal scores go, of equal ones the later. No candidate means
        the base's layer, one that model's, several the base plus the scaled sum of their task
        vectors. Absent: score 0.5, candidate 0 alone, merge scale 1 or what is nearest to it in
        its range, output scale 1.
        """
        settings = self.settings
        removed = self._removed(configuration)
        slices = tuple(
            self._slice(configuration, layer)
            for layer in range(settings.num_layers)
            if layer not in removed
        )
        mode = "mlp" if settings.scale_mode == "off" else settings.scale_mode
        return Recipe(
            slices, settings.base, settings.dtype, scale_mode=mode, base_index=settings.base_index
        )

    def encode(self, published: Mapping[str, Any]) -> dict[str, Value]:
        """Turns a flat published configuration into one of this space, inactive values removed.

        ``remove_idx`` values become removal scores; what is absent means what it means to
        :meth:`decode`. Output scales are dropped where none are searched.

        Raises:
            RecipeError: A key or value does not fit this space, or the configuration was made for
                more models, or for another number of layers or of removed ones.
        """
        names = {key: _parsed(key) for key in published}
        self._check_extent(published, names)
        given = {
            key: self._checked(key, names[key], value)
            for key, value in published.items()
            if names[key].kind != "remove_idx"
        }
        return self._complete({**given, **self._scores(published, names)})

    def initial_design(self) -> Sequence[StartPoint]:
        """Five ways to remove layers times the base, each model alone and scaled blends.

        Ordered so that a prefix is a design of its own; no recipe twice.
        """
        settings = self.settings
        lists = removal_lists(settings.num_layers, settings.num_removed)
        leading, others = patterns(len(settings.models), settings.merge_scale)
        points = (
            (f"{label}, {self._label(pattern)}", self._start(lists[label], pattern))
            for label, pattern in in_useful_order(list(lists), leading, others)
        )
        return distinct(points, self.decode)[: settings.max_starts]

    def _hyperparameters(self, layer: int) -> tuple[list[Any], list[Any]]:
        """Hyperparameters and conditions of one layer."""
        from ConfigSpace import Categorical, EqualsCondition, Float

        settings = self.settings
        candidates = [
            Categorical(candidate_name(layer, model), [0, 1], default=_default_choice(model))
            for model in range(len(settings.models))
        ]
        values, conditions = list(candidates), []
        if settings.num_removed:
            values.append(Float(removal_name(layer), (0.0, 1.0), default=_MIDDLE))
        if len(candidates) > 1:
            default = self._default_merge_scale
            scale = Float(merge_scale_name(layer), settings.merge_scale, default=default)
            values.append(scale)
            if self._conditioned:
                taken = [EqualsCondition(scale, candidate, 1) for candidate in candidates]
                conditions.append(at_least_two(taken))
        if settings.scale_mode != "off":
            bounds = OUTPUT_SCALES[settings.scale_mode]
            values.append(Float(output_scale_name(layer), bounds, default=1.0))
        return values, conditions

    def _removed(self, configuration: Mapping[str, Value]) -> frozenset[int]:
        def order(layer: int) -> tuple[float, int]:
            return float(configuration.get(removal_name(layer), _MIDDLE)), layer

        ranked = sorted(range(self.settings.num_layers), key=order, reverse=True)
        return frozenset(ranked[: self.settings.num_removed])

    def _slice(self, configuration: Mapping[str, Value], layer: int) -> Slice:
        settings = self.settings
        chosen = self._chosen(configuration, layer)
        output_scale = 1.0
        if settings.scale_mode != "off":
            output_scale = float(configuration.get(output_scale_name(layer), 1.0))
        assert settings.base is not None, "the settings were checked"
        names = [settings.models[model] for model in chosen] or [settings.base]
        sources = tuple(Source(name, (layer, layer + 1)) for name in names)
        if len(sources) == 1:
            return Slice("passthrough", sources, output_scale=output_scale)
        scale = float(configuration.get(merge_scale_name(layer), self._default_merge_scale))
        return Slice("task_arithmetic", sources, {"scale": (Entry(scale),)}, output_scale)

    def _chosen(self, configuration: Mapping[str, Value], layer: int) -> list[int]:
        return [
            model
            for model in range(len(self.settings.models))
            if int(configuration.get(candidate_name(layer, model), _default_choice(model)))
        ]

    def _complete(self, given: Mapping[str, Value]) -> dict[str, Value]:
        """Adds what is absent and removes what does not act."""
        settings = self.settings
        count = len(settings.models)
        configuration: dict[str, Value] = {}
        for layer in range(settings.num_layers):
            if settings.num_removed:
                configuration[removal_name(layer)] = given.get(removal_name(layer), _MIDDLE)
            chosen = self._chosen(given, layer)
            for model in range(count):
                configuration[candidate_name(layer, model)] = int(model in chosen)
            if len(chosen) > 1 or (count > 1 and not self._conditioned):
                name = merge_scale_name(layer)
                configuration[name] = given.get(name, self._default_merge_scale)
            if settings.scale_mode != "off":
                name = output_scale_name(layer)
                configuration[name] = given.get(name, 1.0)
        return configuration

    def _start(self, removed: frozenset[int], pattern: Pattern) -> dict[str, Value]:
        given = self._given_set(removed)
        for layer in range(self.settings.num_layers):
            for model in range(len(self.settings.models)):
                given[candidate_name(layer, model)] = int(model in pattern.candidates)
            if pattern.merge_scale is not None:
                given[merge_scale_name(layer)] = pattern.merge_scale
        return self._complete(given)

    def _label(self, pattern: Pattern) -> str:
        models = self.settings.models
        if not pattern.candidates:
            return "base"
        if pattern.merge_scale is None:
            return f"source {models[pattern.candidates[0]]}"
        every = len(pattern.candidates) == len(models)
        names = "all" if every else " + ".join(models[model] for model in pattern.candidates)
        return f"{names}, scale {pattern.merge_scale:g}"

    def _given_set(self, removed: frozenset[int]) -> dict[str, Value]:
        return {
            removal_name(layer): _GONE if layer in removed else _KEPT
            for layer in range(self.settings.num_layers)
        }

    def _scores(
        self, published: Mapping[str, Any], names: Mapping[str, PruneName]
    ) -> dict[str, Value]:
        """Removal scores for the ``remove_idx`` values, if there are any."""
        settings = self.settings
        keys = [key for key, name in names.items() if name.kind == "remove_idx"]
        removed: dict[int, str] = {}
        for key in keys:
            layer = checked_whole(key, published[key], settings.num_layers)
            if layer in removed:
                raise misfit(key, f"layer {layer} is removed by {removed[layer]!r} already")
            removed[layer] = key
        scored = any(name.kind == "removal" for name in names.values())
        if keys and scored:
            raise misfit(keys[0], "the configuration has removal scores as well; give one of both")
        if published and not scored and len(keys) != settings.num_removed:
            raise misfit(
                f"remove_idx_{len(keys)}",
                f"the configuration removes {len(keys)} layers, this space {settings.num_removed} "
                f"({settings.num_layers} to {settings.layers} layers)",
            )
        return self._given_set(frozenset(removed)) if keys else {}

    def _checked(self, key: str, name: PruneName, value: Any) -> Value:
        """Returns a published value as this space writes it."""
        if name.kind == "candidate":
            return checked_whole(key, value, 2)
        bounds = {
            "removal": (0.0, 1.0),
            "merge_scale_factor": MERGE_SCALES,
            "output_scale": OUTPUT_SCALES[self.settings.scale_mode],
        }
        return checked_number(key, value, bounds[name.kind])

    def _check_extent(self, published: Mapping[str, Any], names: Mapping[str, PruneName]) -> None:
        """Refuses configurations for more models or another number of layers."""
        settings = self.settings
        depth = (-1, "")
        for key, name in names.items():
            layer = name.layer
            if name.kind == "remove_idx":
                layer = checked_whole(key, published[key], settings.num_layers)
            depth = max(depth, (layer, key))
            if name.kind == "candidate" and name.number >= len(settings.models):
                count = 1 + max(n.number for n in names.values() if n.kind == "candidate")
                raise misfit(
                    key,
                    f"the configuration has {count} candidates per layer, "
                    f"{len(settings.models)} models are configured",
                )
        if depth[0] not in (-1, settings.num_layers - 1):
            raise misfit(
                depth[1],
                f"the configuration has {depth[0] + 1} layers, the models have "
                f"{settings.num_layers}",
            )


def _default_choice(model: int) -> int:
    return int(model == 0)


def _parsed(key: str) -> PruneName:
    name = parse(key)
    if name is None:
        raise misfit(key, "not a name of pruning")
    return name
