"""Layer-wise fusion (LFS): every layer group chooses a merge method and its parameters.

The search space of "Fine, I'll Merge It Myself" (arXiv 2502.04030), made conditional: the
parameters of a method are active only in the groups that chose it. Names are the published ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from auto_merge.errors import RecipeError, nearest
from auto_merge.recipe.model import Entry, Recipe, Slice, Source
from auto_merge.strategies.lfs_names import (
    OTHER,
    ValueName,
    parse_selection,
    parse_value,
    selection_name,
)
from auto_merge.strategies.lfs_settings import (
    GLOBAL_SCALES,
    METHODS,
    TIES_WEIGHT_RANGE,
    LfsSettings,
    Range,
    check_settings,
    legal_range,
)
from auto_merge.trial import Value

if TYPE_CHECKING:
    from ConfigSpace import ConfigurationSpace


class LayerwiseFusion:
    """The LFS strategy.

    Raises:
        ConfigError: The granularity does not divide the layer count, no source is given, a name
            occurs twice, or a method needs a base that is missing.
    """

    max_layers: int | None = None

    def __init__(self, settings: LfsSettings) -> None:
        self.settings = settings
        check_settings(settings)
        self.num_groups = settings.num_layers // settings.layer_granularity
        self.paramsets = (*settings.filters, OTHER)
        self.methods = tuple(method for method in METHODS if method in settings.ranges)
        blend = settings.models
        if settings.include_base and settings.base is not None:
            blend = (*blend, settings.base)
        self._blend = blend

    def space(self) -> ConfigurationSpace:
        """Returns a fresh conditional space; defaults are the middle of each range."""
        from ConfigSpace import Categorical, ConfigurationSpace, EqualsCondition, Float

        hyperparameters: list[Any] = []
        conditions = []
        for group in range(self.num_groups):
            choice = Categorical(
                selection_name(group), self.methods, default=self.methods[0], ordered=False
            )
            hyperparameters.append(choice)
            for method in self.methods:
                for name, bounds in self._values(group, method):
                    value = Float(str(name), bounds)
                    hyperparameters.append(value)
                    conditions.append(EqualsCondition(value, choice, method))
        # All at once: ConfigSpace sorts the whole space after every addition.
        space = ConfigurationSpace()
        space.add(hyperparameters)
        space.add(conditions)
        return space

    def decode(self, configuration: Mapping[str, Value]) -> Recipe:
        """Turns a configuration, or a flat published one, into a recipe.

        Values of methods that a group did not choose are ignored; an absent value is the middle
        of its range, an absent method the first one.
        """
        slices = tuple(self._slice(configuration, group) for group in range(self.num_groups))
        return Recipe(slices, self.settings.base, self.settings.dtype)

    def encode(self, published: Mapping[str, Any]) -> dict[str, Value]:
        """Turns a flat published configuration into one of this space, inactive values removed.

        A coefficient that is shared in the published file is given to every source where this
        space has one per source.

        Raises:
            RecipeError: A key or value does not fit this space.
        """
        self._check_published(published)
        self._check_models(published)
        configuration: dict[str, Value] = {}
        for group in range(self.num_groups):
            method = str(published.get(selection_name(group), self.methods[0]))
            configuration[selection_name(group)] = method
            for name, bounds in self._values(group, method):
                configuration[str(name)] = self._published_value(published, name, bounds)
        return configuration

    def initial_design(self) -> Sequence[tuple[str, dict[str, Value]]]:
        """Every source alone, the base, the uniform average, and global task-arithmetic scales.

        A start point that this space cannot express exactly is left out.
        """
        settings = self.settings
        points: list[tuple[str, dict[str, Value] | None]] = [
            (f"source {model}", self._pure(model)) for model in settings.models
        ]
        points.append(("base", self._pure_base()))
        points.append(("uniform average", self._average()))
        points += [
            (f"task arithmetic, scale {scale:g}", self._global_scale(scale))
            for scale in GLOBAL_SCALES
        ]
        return [(label, point) for label, point in points if point is not None]

    def _values(self, group: int, method: str) -> Iterator[tuple[ValueName, Range]]:
        """Names and ranges of the numbers that act when ``group`` uses ``method``."""
        models = self.settings.models
        ranges = self.settings.ranges[method]
        for paramset in self.paramsets:
            if method in ("linear", "slerp"):
                (parameter, bounds), *_ = ranges.items()
                for model in self._blend:
                    yield ValueName(group, paramset, method, parameter, model), bounds
                continue
            for parameter, bounds in ranges.items():
                if method == "task_arithmetic" and self.settings.per_source_weights:
                    for model in models:
                        yield ValueName(group, paramset, method, parameter, model), bounds
                else:
                    yield ValueName(group, paramset, method, parameter), bounds
            if method == "ties" and self.settings.per_source_weights:
                for model in models:
                    yield ValueName(group, paramset, method, "weights", model), TIES_WEIGHT_RANGE

    def _slice(self, configuration: Mapping[str, Value], group: int) -> Slice:
        method = str(configuration.get(selection_name(group), self.methods[0]))
        values = {
            (name.paramset, name.parameter, name.model): float(
                configuration.get(str(name), (low + high) / 2)
            )
            for name, (low, high) in self._values(group, method)
        }
        start = group * self.settings.layer_granularity
        layers = (start, start + self.settings.layer_granularity)
        build = {
            "linear": self._linear,
            "slerp": self._slerp,
            "task_arithmetic": self._task_arithmetic,
            "ties": self._ties,
        }[method]
        return build(values, layers)

    def _entries(self, value_of: Callable[[str], float]) -> tuple[Entry, ...]:
        return tuple(
            Entry(value_of(paramset), None if paramset == OTHER else paramset)
            for paramset in self.paramsets
        )

    def _linear(self, values: Mapping[Any, float], layers: tuple[int, int]) -> Slice:
        def weight(paramset: str, model: str) -> float:
            # All-zero weights have no normalised form; they mean the average of the sources.
            total = math.fsum(values[paramset, "weights", other] for other in self._blend)
            if total > 0:
                return values[paramset, "weights", model]
            return float(model in self.settings.models)

        sources = tuple(
            Source(model, layers, {"weight": self._entries(lambda p, m=model: weight(p, m))})  # type: ignore[misc]
            for model in self._blend
        )
        return Slice("linear", sources)

    def _slerp(self, values: Mapping[Any, float], layers: tuple[int, int]) -> Slice:
        def total(model: str) -> float:
            return math.fsum(values[paramset, "slerp_t", model] for paramset in self.paramsets)

        # A stable sort keeps the configured order among equals, as published.
        first, second = sorted(self._blend, key=lambda model: -total(model))[:2]

        def position(paramset: str) -> float:
            t_first = values[paramset, "slerp_t", first]
            t_second = values[paramset, "slerp_t", second]
            if self.settings.slerp_space == "published":
                return 1.0 / (1.0 + math.exp(t_first - t_second))
            return t_second / (t_first + t_second) if t_first + t_second > 0 else 0.5

        sources = (Source(first, layers), Source(second, layers))
        return Slice("slerp", sources, {"t": self._entries(position)})

    def _task_arithmetic(self, values: Mapping[Any, float], layers: tuple[int, int]) -> Slice:
        key = "scaling_coefficient"
        if not self.settings.per_source_weights:
            sources = tuple(Source(model, layers) for model in self.settings.models)
            scale = self._entries(lambda paramset: values[paramset, key, None])
            return Slice("task_arithmetic", sources, {"scale": scale})
        sources = tuple(
            Source(model, layers, {"weight": self._entries(lambda p, m=model: values[p, key, m])})  # type: ignore[misc]
            for model in self.settings.models
        )
        return Slice("task_arithmetic", sources)

    def _ties(self, values: Mapping[Any, float], layers: tuple[int, int]) -> Slice:
        sources = tuple(
            Source(
                model,
                layers,
                {"weight": self._entries(lambda p, m=model: values[p, "weights", m])}  # type: ignore[misc]
                if self.settings.per_source_weights
                else {},
            )
            for model in self.settings.models
        )
        parameters = {
            "density": self._entries(lambda p: 1.0 - values[p, "param_value_mask_rate", None]),
            "scale": self._entries(lambda p: values[p, "scaling_coefficient", None]),
        }
        return Slice("ties", sources, parameters)

    def _everywhere(
        self, method: str, value: Callable[[ValueName], float]
    ) -> dict[str, Value] | None:
        """The configuration that uses ``method`` in every group; ``None`` if out of range."""
        if method not in self.methods:
            return None
        configuration: dict[str, Value] = {}
        for group in range(self.num_groups):
            configuration[selection_name(group)] = method
            for name, (low, high) in self._values(group, method):
                number = value(name)
                if not low <= number <= high:
                    return None
                configuration[str(name)] = number
        return configuration

    def _pure(self, model: str) -> dict[str, Value] | None:
        def one_hot(name: ValueName) -> float:
            return float(name.model == model)

        point = self._everywhere("linear", one_hot)
        if point is None and self.settings.slerp_space == "full":
            point = self._everywhere("slerp", one_hot)
        if point is None and self.settings.per_source_weights:
            point = self._everywhere("task_arithmetic", one_hot)
        return point

    def _pure_base(self) -> dict[str, Value] | None:
        base = self.settings.base
        point = self._pure(base) if base in self._blend and base is not None else None
        return point or self._global_scale(0.0)

    def _average(self) -> dict[str, Value] | None:
        # The average of the sources: the base has weight 0 where it takes part.
        models = self.settings.models
        point = self._everywhere("linear", lambda name: float(name.model in models))
        return point or self._global_scale(1.0 / len(models))

    def _global_scale(self, scale: float) -> dict[str, Value] | None:
        return self._everywhere("task_arithmetic", lambda name: scale)

    def _published_value(
        self, published: Mapping[str, Any], name: ValueName, bounds: Range
    ) -> float:
        shared = ValueName(name.group, name.paramset, name.method, name.parameter)
        for key in (str(name), str(shared)):
            if key in published:
                return float(published[key])
        if name.model is not None:
            # Sources that the file does not know: the base adds nothing, TIES weights are equal.
            return 1.0 if name.method == "ties" else 0.0
        return (bounds[0] + bounds[1]) / 2

    def _check_models(self, published: Mapping[str, Any]) -> None:
        """Refuses a file for fewer models: its shared scales would act on the others as well."""
        named = {name.model for key in published if (name := parse_value(key)) and name.model}
        shared = [
            key
            for key in published
            if (name := parse_value(key)) is not None
            and name.model is None
            and name.method == published.get(selection_name(name.group), self.methods[0])
        ]
        extra = [model for model in self.settings.models if model not in named]
        if named and shared and extra and not self.settings.per_source_weights:
            _misfit(shared[0], f"the configuration was made without the model {extra[0]!r}")

    def _check_published(self, published: Mapping[str, Any]) -> None:
        models = (*self._blend, None)
        for key, value in published.items():
            group = parse_selection(key)
            if group is not None:
                if group >= self.num_groups:
                    _misfit(key, f"this space has {self.num_groups} layer groups")
                if value not in self.methods:
                    _misfit(key, f"method {value!r} is not searched{nearest(str(value), METHODS)}")
                continue
            name = parse_value(key)
            if name is None:
                _misfit(key, "not a name of layer-wise fusion")
            elif name.group >= self.num_groups:
                _misfit(key, f"this space has {self.num_groups} layer groups")
            elif name.model not in models:
                hint = nearest(name.model or "", self._blend)
                _misfit(key, f"model {name.model!r} is not configured{hint}")
            elif name.paramset not in self.paramsets:
                _misfit(key, f"no filter {name.paramset!r}{nearest(name.paramset, self.paramsets)}")
            else:
                _check_number(key, value, legal_range(name.method, name.parameter))


def _check_number(key: str, value: Any, legal: Range) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _misfit(key, f"must be a number, got {value!r}")
    if not legal[0] <= value <= legal[1]:
        _misfit(key, f"must lie within [{legal[0]:g}, {legal[1]:g}], got {value!r}")


def _misfit(key: str, reason: str) -> None:
    raise RecipeError(f"search configuration key {key!r}: {reason}")
