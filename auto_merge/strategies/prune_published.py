"""From a recipe of pruning back to the flat names of the published search files."""

from __future__ import annotations

from auto_merge.errors import RecipeError
from auto_merge.recipe.model import Recipe
from auto_merge.strategies.prune_names import candidate_name, merge_scale_name, output_scale_name
from auto_merge.strategies.prune_settings import PruneSettings
from auto_merge.trial import Value


def publish(settings: PruneSettings, recipe: Recipe) -> dict[str, Value]:
    """Returns a published configuration that decodes to ``recipe``: active values only.

    Raises:
        RecipeError: The recipe is not one of this search space.
    """
    parts = {}
    for number, part in enumerate(recipe.slices):
        layers = {source.layers for source in part.sources}
        known = part.method in ("passthrough", "task_arithmetic")
        if not known or part.num_layers != 1 or len(layers) != 1:
            raise RecipeError(f"slices[{number}]: not a layer of pruning")
        parts[part.sources[0].layers[0]] = (number, part)
    removed = [layer for layer in range(settings.num_layers) if layer not in parts]
    found: dict[str, Value] = {f"remove_idx_{r}": layer for r, layer in enumerate(removed)}
    for layer, (number, part) in sorted(parts.items()):
        roles = {source.model for source in part.sources}
        chosen = [] if roles == {settings.base} else roles
        unknown = sorted(set(chosen) - set(settings.models))
        if unknown:
            raise RecipeError(f"slices[{number}]: {unknown[0]!r} is not one of the models")
        for index, model in enumerate(settings.models):
            found[candidate_name(layer, index)] = int(model in chosen)
        if len(chosen) > 1:
            (scale,) = part.parameters["scale"]
            found[merge_scale_name(layer)] = scale.value
        if settings.scale_mode != "off":
            found[output_scale_name(layer)] = part.output_scale
    return found
