"""From a recipe of depth-wise integration back to the flat names of the published search files."""

from __future__ import annotations

from collections.abc import Sequence

from auto_merge.errors import RecipeError
from auto_merge.recipe.model import Recipe, Slice
from auto_merge.strategies import permutations
from auto_merge.strategies.dis_names import BlockName, order_name, scale_name
from auto_merge.strategies.dis_settings import DisSettings
from auto_merge.trial import Value


def publish(settings: DisSettings, recipe: Recipe) -> dict[str, Value]:
    """Returns a published configuration that decodes to ``recipe``.

    Every block choice is written; permutations and scales where they act.

    Raises:
        RecipeError: The recipe is not one of this search space.
    """
    places: dict[int, list[tuple[int, Slice]]] = {}
    fixed = settings.fix_layers
    middle = recipe.slices[fixed : len(recipe.slices) - fixed]
    for number, part in enumerate(middle, start=fixed):
        layer = part.sources[0].layers[0] - fixed
        if part.method != "passthrough" or part.num_layers != 1 or layer < 0:
            raise RecipeError(f"slices[{number}]: not a layer of depth-wise integration")
        places.setdefault(layer // settings.layer_granularity, []).append((number, part))
    found: dict[str, Value] = {}
    for place in range(settings.num_candidates):
        found.update(_place(settings, place, places.get(place, [])))
    return found


def _place(
    settings: DisSettings, place: int, parts: Sequence[tuple[int, Slice]]
) -> dict[str, Value]:
    start = settings.fix_layers + place * settings.layer_granularity
    origins = [(part.sources[0].model, part.sources[0].layers[0]) for _, part in parts]
    remains = [(settings.base, start + offset) for offset in range(settings.layer_granularity)]
    order = [] if origins == remains else _blocks(settings, start, parts)
    found: dict[str, Value] = {
        str(BlockName(place, block)): "1" if block in order else "0"
        for block in range(settings.num_blocks)
    }
    if len(order) > 1:
        kinds = [block % len(settings.models) for block in range(settings.num_blocks)]
        found[order_name(place)] = str(permutations.rank(_full(order, kinds), kinds))
    if parts and settings.scale_mode != "off":
        found[scale_name(place)] = parts[-1][1].output_scale
    return found


def _blocks(settings: DisSettings, start: int, parts: Sequence[tuple[int, Slice]]) -> list[int]:
    """The block that each slice is, taking a layer's copies one after the other."""
    order: list[int] = []
    for number, part in parts:
        model, layer = part.sources[0].model, part.sources[0].layers[0]
        if model not in settings.models:
            raise RecipeError(f"slices[{number}]: {model!r} is not one of the models")
        first = (layer - start) * settings.copies + settings.models.index(model)
        copies = [first + copy * len(settings.models) for copy in range(settings.repeat)]
        free = [block for block in copies if block not in order]
        if not free:
            raise RecipeError(f"slices[{number}]: layer {layer} of {model!r} occurs too often")
        order.append(free[0])
    return order


def _full(order: Sequence[int], kinds: Sequence[int]) -> list[int]:
    """A permutation of all blocks in which the chosen ones have the given order."""
    if list(order) == sorted(order):
        return list(range(len(kinds)))
    full: list[int] = []
    for block in order:
        # Blocks of one model keep their order, so those before it come first; they are not chosen.
        full += [
            other
            for other in range(block)
            if kinds[other] == kinds[block] and other not in full and other not in order
        ]
        full.append(block)
    return full + [block for block in range(len(kinds)) if block not in full]
