"""Output scales as factors on ordinary weights, so that the result is a plain model.

A pre-norm layer adds two branches to the residual stream: x + attention(norm(x)) + mlp(norm(...)).
Both norms forget the length of their input. So

- ``mlp``: x + attention + s mlp multiplies the weights that write the MLP's result by s;
- ``hidden``: s (x + attention + mlp) is the same function of x / p, where p is the product of the
  scales of the layers below, if both branches of the layer are divided by p. The final norm forgets
  the product of all scales. Exact up to the epsilon of the norms.
"""

from __future__ import annotations

from collections.abc import Mapping

from auto_merge.checkpoints.checkpoint import Checkpoint
from auto_merge.checkpoints.families import Branch
from auto_merge.errors import RecipeError
from auto_merge.recipe.model import Recipe

Factors = Mapping[Branch, float]

_NONE: Factors = {"self_attn": 1.0, "mlp": 1.0}


def layer_factors(recipe: Recipe, checkpoints: Mapping[str, Checkpoint]) -> tuple[Factors, ...]:
    """Returns for every output layer the factors on the weights that write each branch's result.

    Args:
        recipe: The recipe.
        checkpoints: Role -> opened model.

    Raises:
        RecipeError: The architecture has no such weights or normalises what they write, or a scale
            of 0 in mode ``hidden``.
    """
    scales = [part.output_scale for part in recipe.slices for _ in range(part.num_layers)]
    if all(scale == 1.0 for scale in scales):
        return (_NONE,) * len(scales)
    _check_architecture(recipe, checkpoints)
    if recipe.scale_mode == "mlp":
        return tuple({"self_attn": 1.0, "mlp": scale} for scale in scales)
    factors: list[Factors] = []
    below = 1.0
    for layer, scale in enumerate(scales):
        factors.append({"self_attn": 1.0 / below, "mlp": 1.0 / below})
        if scale <= 0.0:
            raise RecipeError(
                f"output layer {layer}: scale_mode 'hidden' needs output scales above 0, "
                f"got {scale:g}"
            )
        below *= scale
    return tuple(factors)


def _check_architecture(recipe: Recipe, checkpoints: Mapping[str, Checkpoint]) -> None:
    checkpoint = checkpoints[recipe.slices[0].sources[0].model]
    kind = checkpoint.config["model_type"]
    if not checkpoint.family.outputs:
        raise RecipeError(
            f"output scales: it is not known which weights of a {kind!r} model write to the "
            "residual stream"
        )
    if kind in checkpoint.family.post_norm:
        raise RecipeError(
            f"output scales: a {kind!r} model normalises what its branches write, so a scale "
            "cannot be folded into weights"
        )
