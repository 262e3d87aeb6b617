"""From a recipe of layer-wise fusion back to the flat names of the published search files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from auto_merge.errors import RecipeError
from auto_merge.recipe.model import Parameters, Recipe, Slice
from auto_merge.strategies.lfs_names import OTHER, ValueName, selection_name
from auto_merge.strategies.lfs_settings import METHODS, LfsSettings
from auto_merge.trial import Value


def publish(settings: LfsSettings, recipe: Recipe) -> dict[str, Value]:
    """Returns a published configuration that decodes to ``recipe``: active values only.

    Two scores per module group stand behind a slerp t of the published space, of which only the
    difference acts; the pair around one half is written.

    Args:
        settings: The search space; ``slerp_space`` must be ``"published"`` where slerp occurs.
        recipe: The recipe, one slice per layer group.

    Raises:
        RecipeError: The recipe is not one of this search space.
    """
    granularity = settings.layer_granularity
    found: dict[str, Value] = {}
    for group, part in enumerate(recipe.slices):
        layers = (group * granularity, (group + 1) * granularity)
        if part.method not in METHODS or any(s.layers != layers for s in part.sources):
            raise RecipeError(f"slices[{group}]: not a layer group of layer-wise fusion")
        found[selection_name(group)] = part.method
        for paramset in (*settings.filters, OTHER):
            for name, value in _values(group, paramset, part, settings.models):
                found[str(name)] = value
    return found


def _values(
    group: int, paramset: str, part: Slice, models: Sequence[str]
) -> Iterator[tuple[ValueName, float]]:
    def name(parameter: str, model: str | None = None) -> ValueName:
        return ValueName(group, paramset, part.method, parameter, model)

    if part.method == "linear":
        for source in part.sources:
            yield name("weights", source.model), _value(source.parameters, "weight", paramset)
    elif part.method == "slerp":
        t = _value(part.parameters, "t", paramset)
        if not 1 / (1 + math.e) - 1e-9 <= t <= math.e / (1 + math.e) + 1e-9:
            raise RecipeError(f"slices[{group}]: t = {t:g} is not in the published slerp space")
        difference = min(max(math.log(t / (1.0 - t)), -1.0), 1.0)
        first, second = part.sources
        yield name("slerp_t", first.model), (1.0 - difference) / 2.0
        yield name("slerp_t", second.model), (1.0 + difference) / 2.0
        for model in models:
            if model not in (first.model, second.model):
                yield name("slerp_t", model), 0.0
    else:
        if part.method == "ties":
            density = _value(part.parameters, "density", paramset)
            yield name("param_value_mask_rate"), 1.0 - density
        yield name("scaling_coefficient"), _value(part.parameters, "scale", paramset)


def _value(parameters: Parameters, parameter: str, paramset: str) -> float:
    wanted = None if paramset == OTHER else paramset
    for entry in parameters.get(parameter, ()):
        if entry.filter == wanted:
            return entry.value
    raise RecipeError(f"parameter {parameter!r} has no value for {paramset!r}")
