"""Heat map of a recipe: what each source contributes to each slice and module group, and how.

The *effective weight* of a source is the factor on what it contributes (its weights for linear and
slerp, its task vector for task arithmetic and TIES), with the parameters of the recipe resolved;
for TIES it is a summary, since signs are elected per element.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from auto_merge.recipe.model import Entry, Parameters, Recipe, Slice
from auto_merge.reports.svg import (
    AMBER,
    BLUE,
    GREEN,
    GREY,
    GRID,
    INK,
    MUTED,
    ON_ACCENT,
    ORANGE,
    PURPLE,
    drawing,
)
from auto_merge.reports.wording import clean, number, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_METHOD_COLOURS = (GREEN, ORANGE, PURPLE, AMBER, GREY)
_MAX_LABELLED = 60
REST = "rest"


@dataclass(frozen=True)
class Cell:
    """One row of the heat map: a module group of a slice.

    Attributes:
        slice_index: Position of the slice in the recipe.
        layers: Half-open range of output layers.
        group: Module group; :data:`REST` for tensors that no filter selects, ``""`` if the recipe
            has no filters.
        method: Merge method of the slice.
        weights: Effective weight per source role; roles that take no part are absent.
        detail: Other parameters of the method, ``"density 0.6"``.
    """

    slice_index: int
    layers: tuple[int, int]
    group: str
    method: str
    weights: Mapping[str, float]
    detail: str


def recipe_cells(recipe: Recipe) -> list[Cell]:
    """Resolves a recipe into the rows of its heat map, from the first output layer to the last."""
    filters = _filters(recipe)
    cells: list[Cell] = []
    start = 0
    for index, part in enumerate(recipe.slices):
        layers = (start, start + part.num_layers)
        start = layers[1]
        for group in (*filters, None):
            name = group if group is not None else (REST if filters else "")
            shown = {
                parameter: _value(entries, group)
                for parameter, entries in part.parameters.items()
                if parameter not in ("scale", "t")
            }
            detail = ", ".join(f"{key} {number(value)}" for key, value in shown.items())
            cells.append(Cell(index, layers, name, part.method, _weights(part, group), detail))
    return cells


def recipe_heatmap(recipe: Recipe) -> str:
    """Effective weights by slice, module group and source; colours at the left tell methods."""
    cells = recipe_cells(recipe)
    roles = [role for role in recipe.models() if any(role in cell.weights for cell in cells)]
    labelled = len(cells) <= _MAX_LABELLED
    names = [short(role, 20) for role in roles]
    column = max(0.75, 0.2 + 0.075 * max(map(len, names)))
    width = 3.6 + column * len(roles)
    height = 0.5 + (0.25 if labelled else 0.1) * len(cells)
    with drawing("recipe", "Effective weight per layer and source", width, height) as picture:
        axes = picture.axes
        _draw_tiles(axes, cells, roles, labelled)
        _draw_slices(axes, cells, len(roles), labelled)
        axes.set_xticks(range(len(roles)), names)
        axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
        axes.tick_params(axis="x", labelcolor=INK)
        ticks = [row + 0.5 for row in range(len(cells))] if labelled else []
        axes.set_yticks(ticks, [short(cell.group, 24) for cell in cells][: len(ticks)])
        axes.tick_params(axis="y", labelcolor=MUTED)
        axes.spines[:].set_visible(False)
        axes.set_xlim(-0.75, len(roles) - 0.5)
        axes.set_ylim(len(cells), 0)
    return picture.svg


def _draw_tiles(axes: Axes, cells: Sequence[Cell], roles: Sequence[str], labelled: bool) -> None:
    from matplotlib.patches import Rectangle

    largest = max([1.0, *(abs(value) for cell in cells for value in cell.weights.values())])
    for row, cell in enumerate(cells):
        for column, role in enumerate(roles):
            if role not in cell.weights:
                continue
            value = cell.weights[role]
            share = abs(value) / largest
            tile = Rectangle((column - 0.48, row + 0.04), 0.96, 0.92, linewidth=0)
            tile.set(facecolor=BLUE if value >= 0 else ORANGE, alpha=0.06 + 0.94 * share)
            axes.add_patch(tile)
            if labelled:
                ink = ON_ACCENT if share > 0.55 else INK
                axes.text(column, row + 0.54, f"{value:.2f}", ha="center", va="center", color=ink)


def _draw_slices(axes: Axes, cells: Sequence[Cell], num_roles: int, labelled: bool) -> None:
    """Colour strip, layers, method and its other parameters beside the rows of each slice."""
    from matplotlib.patches import Rectangle

    methods = sorted({cell.method for cell in cells})
    right = num_roles - 0.42
    for index in range(cells[-1].slice_index + 1):
        rows = [row for row, cell in enumerate(cells) if cell.slice_index == index]
        first = cells[rows[0]]
        colour = _METHOD_COLOURS[methods.index(first.method) % len(_METHOD_COLOURS)]
        strip = (-0.68, rows[0] + 0.04), 0.1, len(rows) - 0.08
        axes.add_patch(Rectangle(*strip, facecolor=colour, linewidth=0))
        if index:
            axes.axhline(rows[0], color=GRID, linewidth=0.8)
        texts = [f"{_layers_text(first.layers)} · {clean(first.method)}", *[""] * (len(rows) - 1)]
        if labelled:
            texts = [
                " · ".join(filter(None, (text, cells[row].detail)))
                for text, row in zip(texts, rows, strict=True)
            ]
        for row, text in zip(rows, texts, strict=True):
            if text:
                ink = colour if row == rows[0] else MUTED
                axes.annotate(
                    text, (right, row + 0.54), va="center", color=ink, annotation_clip=False
                )


def _layers_text(layers: tuple[int, int]) -> str:
    start, end = layers
    return f"layer {start}" if end - start == 1 else f"layers {start} to {end - 1}"


def _filters(recipe: Recipe) -> tuple[str, ...]:
    """All filters of a recipe in order of first use."""
    lists = [entries for part in recipe.slices for entries in part.parameters.values()]
    lists += [
        entries
        for part in recipe.slices
        for source in part.sources
        for entries in source.parameters.values()
    ]
    found = [entry.filter for entries in lists for entry in entries if entry.filter is not None]
    return tuple(dict.fromkeys(found))


def _value(entries: Sequence[Entry], group: str | None, default: float = 1.0) -> float:
    """Value of a parameter for a module group, the default entry where none selects it."""
    by_filter = {entry.filter: entry.value for entry in reversed(entries)}
    return by_filter.get(group, by_filter.get(None, default))


def _parameter(parameters: Parameters, name: str, group: str | None, default: float) -> float:
    return _value(parameters.get(name, ()), group, default)


def _weights(part: Slice, group: str | None) -> dict[str, float]:
    """Effective weight per role; a role that occurs twice in a slice gets the sum."""
    raw = [_parameter(source.parameters, "weight", group, 1.0) for source in part.sources]
    if part.method == "slerp":
        position = _parameter(part.parameters, "t", group, 0.5)
        raw = [1.0 - position, position]
    elif part.method in ("linear", "ties"):
        total = math.fsum(raw)
        raw = [value / total for value in raw] if total else raw
    if part.method in ("task_arithmetic", "ties"):
        scale = _parameter(part.parameters, "scale", group, 1.0)
        raw = [value * scale for value in raw]
    weights: dict[str, float] = {}
    for source, value in zip(part.sources, raw, strict=True):
        weights[source.model] = weights.get(source.model, 0.0) + value
    return weights
