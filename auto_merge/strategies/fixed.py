"""One recipe, no search: ``normal_models`` merges whole models, ``normal_slices`` slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from auto_merge.config.fixed import (
    NormalModelsSection,
    NormalSlicesSection,
    ParameterEntry,
    SliceEntry,
    SliceSource,
)
from auto_merge.errors import ConfigError, RecipeError, UserError, nearest
from auto_merge.methods.base import METHODS, Method
from auto_merge.recipe.model import Entry, Recipe, Slice, Source
from auto_merge.trial import Value

if TYPE_CHECKING:
    from ConfigSpace import ConfigurationSpace

PUBLISHED_PARAMETERS: Mapping[str, Mapping[str, str]] = {
    "linear": {"weights": "weight"},
    "task_arithmetic": {"scaling_coefficient": "scale"},
    "ties": {"scaling_coefficient": "scale", "param_value_mask_rate": "density"},
    "slerp": {"slerp_t": "t"},
}
"""Method -> published name of a parameter -> our name; a mask rate is 1 - density."""

Given = Mapping[str, Sequence[ParameterEntry]]


class FixedRecipe:
    """A strategy whose space holds one configuration, the empty one.

    Args:
        recipe: What it decodes to.
    """

    max_layers: int | None = None

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def space(self) -> ConfigurationSpace:
        """Returns an empty space."""
        from ConfigSpace import ConfigurationSpace

        return ConfigurationSpace()

    def decode(self, configuration: Mapping[str, Value]) -> Recipe:
        """Returns the recipe."""
        return self._recipe

    def encode(self, published: Mapping[str, Any]) -> dict[str, Value]:
        """Returns the empty configuration.

        Raises:
            RecipeError: There is a key, and this space has none.
        """
        for key in published:
            raise RecipeError(f"search configuration key {key!r}: nothing is searched here")
        return {}

    def initial_design(self) -> Sequence[tuple[str, dict[str, Value]]]:
        """Returns the only configuration."""
        return [("the recipe", {})]


def models_recipe(
    section: NormalModelsSection,
    models: Mapping[str, Given],
    base: str | None,
    num_layers: int,
    dtype: str | None,
) -> Recipe:
    """Returns the merge of all layers of all models.

    Args:
        section: The settings.
        models: Role -> parameters that the model has for itself.
        base: Role of the base.
        num_layers: Layers of every model.
        dtype: Data type of the result.

    Raises:
        ConfigError: The method or a parameter does not exist, or a list has the wrong length.
    """
    sources = [
        SliceSource.model_construct(model=role, layer_range=(0, num_layers), parameters=own)
        for role, own in models.items()
    ]
    part = SliceEntry.model_construct(
        sources=tuple(sources), merging_method=section.merging_method, output_scale=1.0
    )
    made = _slice(part, "strategies.normal_models", "models")
    return Recipe((made,), base, dtype, section.scale_mode, section.base_index)


def slices_recipe(
    section: NormalSlicesSection, roles: Sequence[str], base: str | None, dtype: str | None
) -> Recipe:
    """Returns the stack of slices.

    Args:
        section: The settings.
        roles: Names that a source may have.
        base: Role of the base.
        dtype: Data type of the result.

    Raises:
        ConfigError: As for :func:`models_recipe`, or a source has an unknown name.
    """
    slices = []
    for number, part in enumerate(section.slices):
        place = f"strategies.normal_slices.slices.{number}"
        for index, source in enumerate(part.sources):
            if source.model not in roles:
                hint = nearest(source.model, roles)
                raise ConfigError(f"{place}.sources.{index}.model: no model {source.model!r}{hint}")
        slices.append(_slice(part, place, f"{place}.sources"))
    return Recipe(tuple(slices), base, dtype, section.scale_mode, section.base_index)


def _slice(part: SliceEntry, place: str, sources_place: str) -> Slice:
    (name, given), *_ = part.merging_method.items()
    try:
        method = METHODS.get(name)
    except UserError as error:
        raise ConfigError(f"{place}.merging_method: {error}") from None
    count = len(part.sources)
    shared: dict[str, tuple[Entry, ...]] = {}
    own: list[dict[str, tuple[Entry, ...]]] = [{} for _ in range(count)]
    for key, (parameter, entries) in _named(method, given, f"{place}.merging_method.{name}"):
        if method.parameter(parameter).per_source:
            for index in range(count):
                own[index][parameter] = _of_source(entries, index, count, key)
        else:
            shared[parameter] = _numbers(entries, key)
    for index, source in enumerate(part.sources):
        where = f"{sources_place}.{index}.parameters"
        for key, (parameter, entries) in _named(method, source.parameters, where):
            if not method.parameter(parameter).per_source:
                raise ConfigError(
                    f"{key}: {parameter} belongs to the whole merge; set it in merging_method"
                )
            own[index][parameter] = _numbers(entries, key)
    made = tuple(
        Source(source.model, source.layer_range, parameters)
        for source, parameters in zip(part.sources, own, strict=True)
    )
    return Slice(name, made, shared, part.output_scale)


def _named(
    method: Method, given: Given, place: str
) -> list[tuple[str, tuple[str, Sequence[ParameterEntry]]]]:
    """Place, our name and entries of every parameter; a mask rate becomes a density."""
    published = PUBLISHED_PARAMETERS.get(method.name, {})
    known = [parameter.name for parameter in method.parameters]
    found = []
    for key, entries in given.items():
        name = published.get(key, key)
        if name not in known:
            raise ConfigError(
                f"{place}.{key}: {method.name} has no such parameter"
                f"{nearest(key, [*known, *published])}"
            )
        if key == "param_value_mask_rate":
            entries = [_kept(entry) for entry in entries]
        found.append((f"{place}.{key}", (name, entries)))
    return found


def _kept(entry: ParameterEntry) -> ParameterEntry:
    value = entry.value
    turned = tuple(1.0 - v for v in value) if isinstance(value, tuple) else 1.0 - value
    return entry.model_copy(update={"value": turned})


def _of_source(
    entries: Sequence[ParameterEntry], index: int, count: int, place: str
) -> tuple[Entry, ...]:
    made = []
    for number, entry in enumerate(entries):
        value = entry.value
        if isinstance(value, tuple):
            if len(value) != count:
                raise ConfigError(
                    f"{place}.{number}.value: must have one number per source, {count}, "
                    f"got {len(value)}"
                )
            value = value[index]
        made.append(Entry(float(value), entry.filter))
    return tuple(made)


def _numbers(entries: Sequence[ParameterEntry], place: str) -> tuple[Entry, ...]:
    for number, entry in enumerate(entries):
        if isinstance(entry.value, tuple):
            raise ConfigError(f"{place}.{number}.value: must be one number, got a list")
    return tuple(Entry(float(entry.value), entry.filter) for entry in entries)  # type: ignore[arg-type]
