"""Short ways to write the recipes of these tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from auto_merge.checkpoints.checkpoint import Checkpoint, open_checkpoint
from auto_merge.recipe.model import Entry, Parameters, Recipe, Slice, Source

IDS = torch.arange(4, 44).view(2, 20)
"""Two sequences of 20 tokens."""


def opened(models: Mapping[str, Path]) -> dict[str, Checkpoint]:
    return {role: open_checkpoint(folder) for role, folder in models.items()}


def entries(values: Mapping[str, Any]) -> Parameters:
    """A number, or ``{filter: number}`` with ``""`` for the default entry."""
    return {
        name: tuple(Entry(v, f or None) for f, v in value.items())
        if isinstance(value, Mapping)
        else (Entry(value),)
        for name, value in values.items()
    }


def part(
    method: str,
    sources: Mapping[str, Mapping[str, Any]] | list[str],
    layers: tuple[int, int] = (0, 4),
    **parameters: Any,
) -> Slice:
    """A slice: ``part("linear", {"a": {"weight": 0.3}, "b": {"weight": 0.7}})``."""
    given = sources if isinstance(sources, Mapping) else {role: {} for role in sources}
    made = tuple(Source(role, layers, entries(values)) for role, values in given.items())
    return Slice(method, made, entries(parameters))


def recipe(*parts: Slice, base: str | None = "base", dtype: str | None = None) -> Recipe:
    return Recipe(parts, base, dtype)


def linear(**weights: float) -> Recipe:
    """All layers of several models, averaged with these weights."""
    return recipe(part("linear", {role: {"weight": w} for role, w in weights.items()}))
