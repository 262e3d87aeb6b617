"""Recipes as files: YAML or JSON text <-> :class:`~auto_merge.recipe.model.Recipe`.

The format is versioned by its first key, ``recipe: 1``::

    recipe: 1
    base: base
    dtype: float32
    models: {base: zoo:base, sort: zoo:sort}
    slices:
      - method: linear
        sources:
          - model: sort
            layers: [0, 2]
            parameters:
              weight: [{filter: mlp, value: 0.4}, {value: 1.0}]
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import yaml

from auto_merge.errors import RecipeError, nearest
from auto_merge.recipe.model import (
    BaseIndex,
    Entry,
    Parameters,
    Recipe,
    ScaleMode,
    Slice,
    Source,
)

VERSION = 1

_KEYS = ("recipe", "base", "dtype", "scale_mode", "base_index", "tokens", "models", "slices")
_DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class RecipeFile:
    """A recipe with the places where its models are found.

    Attributes:
        recipe: The recipe.
        models: Role name -> folder, hub name or ``zoo:NAME``; may be empty if a configuration
            names the models.
    """

    recipe: Recipe
    models: Mapping[str, str]


def to_data(recipe: Recipe, models: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Returns the JSON-able form of a recipe, read back by :func:`from_data`."""
    data: dict[str, Any] = {"recipe": VERSION}
    if recipe.base is not None:
        data["base"] = recipe.base
    if recipe.dtype is not None:
        data["dtype"] = recipe.dtype
    if recipe.scale_mode != "mlp":
        data["scale_mode"] = recipe.scale_mode
    if recipe.base_index != "source":
        data["base_index"] = recipe.base_index
    if recipe.tokens:
        data["tokens"] = list(recipe.tokens)
    if models:
        data["models"] = dict(models)
    data["slices"] = [_slice_to_data(part) for part in recipe.slices]
    return data


def to_yaml(recipe: Recipe, models: Mapping[str, str] | None = None) -> str:
    """Returns the YAML text of a recipe."""
    return yaml.dump(
        to_data(recipe, models), Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True
    )


def from_data(data: Any, place: str = "recipe") -> RecipeFile:
    """Builds a recipe from parsed YAML or JSON.

    Args:
        data: What :func:`to_data` returns.
        place: File name for error messages.

    Raises:
        RecipeError: Anything is missing, unknown or of the wrong type; the message names the key.
    """
    reader = _Reader(place)
    fields = reader.mapping(data, "", _KEYS)
    if fields.get("recipe") != VERSION:
        reader.fail("recipe", f"must be {VERSION}, the format version", fields.get("recipe"))
    dtype = fields.get("dtype")
    if dtype is not None and dtype not in _DTYPES:
        reader.fail("dtype", f"must be one of {', '.join(_DTYPES)}", dtype)
    models = {
        str(name): reader.text(path, f"models.{name}")
        for name, path in reader.mapping(fields.get("models", {}), "models").items()
    }
    base = fields.get("base")
    slices = tuple(
        reader.slice(part, f"slices[{i}]")
        for i, part in enumerate(reader.non_empty_list(fields.get("slices"), "slices"))
    )
    recipe = Recipe(
        slices,
        None if base is None else reader.text(base, "base"),
        dtype,
        reader.choice(fields, "scale_mode", get_args(ScaleMode)),
        reader.choice(fields, "base_index", get_args(BaseIndex)),
        reader.texts(fields.get("tokens", []), "tokens"),
    )
    return RecipeFile(recipe, models)


def parse(text: str, place: str) -> Any:
    """Parses YAML or JSON text.

    Raises:
        RecipeError: The text is neither.
    """
    try:
        return json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"{place}: not readable as YAML or JSON: {reason}") from None


def _slice_to_data(part: Slice) -> dict[str, Any]:
    data: dict[str, Any] = {"method": part.method}
    if part.parameters:
        data["parameters"] = _parameters_to_data(part.parameters)
    if part.output_scale != 1.0:
        data["output_scale"] = part.output_scale
    sources = []
    for source in part.sources:
        item: dict[str, Any] = {"model": source.model, "layers": list(source.layers)}
        if source.parameters:
            item["parameters"] = _parameters_to_data(source.parameters)
        sources.append(item)
    data["sources"] = sources
    return data


def _parameters_to_data(parameters: Parameters) -> dict[str, Any]:
    return {name: _entries_to_data(entries) for name, entries in parameters.items()}


def _entries_to_data(entries: tuple[Entry, ...]) -> Any:
    if len(entries) == 1 and entries[0].filter is None:
        return entries[0].value
    return [
        {"value": entry.value}
        if entry.filter is None
        else {"filter": entry.filter, "value": entry.value}
        for entry in entries
    ]


class _Dumper(yaml.SafeDumper):
    """Writes short lists and ``{filter, value}`` entries on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_sequence(
        self, tag: str, sequence: Any, flow_style: Any = None
    ) -> yaml.SequenceNode:
        numbers = all(isinstance(item, int | float) for item in sequence)
        return super().represent_sequence(tag, sequence, flow_style=numbers or flow_style)

    def represent_mapping(self, tag: str, mapping: Any, flow_style: Any = None) -> yaml.MappingNode:
        entry = isinstance(mapping, dict) and set(mapping) <= {"filter", "value"}
        return super().represent_mapping(tag, mapping, flow_style=(entry and bool(mapping)) or None)


_Dumper.add_representer(
    dict, lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data)
)
_Dumper.add_representer(
    list, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data)
)


class _Reader:
    """Checks types while reading and names the key when one is wrong."""

    def __init__(self, place: str) -> None:
        self.place = place

    def fail(self, key: str, rule: str, value: Any) -> Any:
        where = f"{self.place}: {key}" if key else self.place
        raise RecipeError(f"{where}: {rule}, got {value!r:.80}")

    def mapping(self, data: Any, key: str, known: tuple[str, ...] = ()) -> dict[str, Any]:
        if not isinstance(data, dict):
            self.fail(key, "must be a mapping", data)
        for name in data:
            if known and name not in known:
                where = f"{key}.{name}" if key else str(name)
                raise RecipeError(f"{self.place}: {where}: unknown key{nearest(str(name), known)}")
        fields: dict[str, Any] = data
        return fields

    def text(self, data: Any, key: str) -> str:
        if not isinstance(data, str) or not data:
            self.fail(key, "must be a non-empty string", data)
        return str(data)

    def non_empty_list(self, data: Any, key: str) -> list[Any]:
        if not isinstance(data, list) or not data:
            self.fail(key, "must be a non-empty list", data)
        items: list[Any] = data
        return items

    def texts(self, data: Any, key: str) -> tuple[str, ...]:
        if not isinstance(data, list):
            self.fail(key, "must be a list of model names", data)
        return tuple(self.text(item, f"{key}[{i}]") for i, item in enumerate(data))

    def choice(self, fields: dict[str, Any], key: str, known: tuple[str, ...]) -> Any:
        """The value of a key; the first of ``known`` if it is not given."""
        value = fields.get(key, known[0])
        if value not in known:
            self.fail(key, f"must be one of {', '.join(known)}", value)
        return value

    def slice(self, data: Any, key: str) -> Slice:
        fields = self.mapping(data, key, ("method", "parameters", "output_scale", "sources"))
        sources = tuple(
            self.source(item, f"{key}.sources[{i}]")
            for i, item in enumerate(self.non_empty_list(fields.get("sources"), f"{key}.sources"))
        )
        method = self.text(fields.get("method"), f"{key}.method")
        output_scale = self.number(fields.get("output_scale", 1.0), f"{key}.output_scale")
        return Slice(method, sources, self.parameters(fields, key), output_scale)

    def source(self, data: Any, key: str) -> Source:
        fields = self.mapping(data, key, ("model", "layers", "parameters"))
        layers: Any = fields.get("layers")
        whole = isinstance(layers, list) and all(type(layer) is int for layer in layers)
        if not whole or len(layers) != 2 or not 0 <= layers[0] < layers[1]:
            self.fail(f"{key}.layers", "must be [start, end] with 0 <= start < end", layers)
        model = self.text(fields.get("model"), f"{key}.model")
        return Source(model, (layers[0], layers[1]), self.parameters(fields, key))

    def parameters(self, fields: dict[str, Any], key: str) -> dict[str, tuple[Entry, ...]]:
        key = f"{key}.parameters"
        return {
            str(name): self.entries(value, f"{key}.{name}")
            for name, value in self.mapping(fields.get("parameters", {}), key).items()
        }

    def entries(self, data: Any, key: str) -> tuple[Entry, ...]:
        if not isinstance(data, list):
            return (Entry(self.number(data, key)),)
        entries = []
        for i, item in enumerate(self.non_empty_list(data, key)):
            place = f"{key}[{i}]"
            fields = self.mapping(item, place, ("filter", "value"))
            name = fields.get("filter")
            selected = None if name is None else self.text(name, f"{place}.filter")
            entries.append(Entry(self.number(fields.get("value"), f"{place}.value"), selected))
        return tuple(entries)

    def number(self, data: Any, key: str) -> float:
        if isinstance(data, str):
            # YAML 1.1 takes 1e-5 for text, because it has no point.
            with contextlib.suppress(ValueError):
                data = float(data)
        if isinstance(data, bool) or not isinstance(data, int | float) or not math.isfinite(data):
            self.fail(key, "must be a finite number", data)
        return float(data)
