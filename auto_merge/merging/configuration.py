"""The ``config.json`` of a result: the donor's, with depth, dtype and per-layer lists adapted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from auto_merge.checkpoints.checkpoint import Checkpoint
from auto_merge.checkpoints.fingerprints import without_volatile
from auto_merge.errors import RecipeError

PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers")
"""Settings that list one value per layer."""


def result_config(
    donor: Checkpoint,
    checkpoints: Mapping[str, Checkpoint],
    origins: Sequence[tuple[str, int]],
    *,
    tied: bool,
    dtype: str,
    num_rows: int | None = None,
) -> dict[str, Any]:
    """Returns the configuration of a result.

    Args:
        donor: Model whose configuration is the starting point.
        checkpoints: Role -> opened model.
        origins: For each output layer, role and layer that it comes from.
        tied: Whether the output matrix is the embedding matrix.
        dtype: Data type of the result, ``"bfloat16"``.
        num_rows: Height of embedding and output matrix; ``None`` if it is the donor's.

    Raises:
        RecipeError: Layers are moved in a model whose layers differ in kind by position, and its
            configuration does not list the kinds.
    """
    config = without_volatile(dict(donor.config))
    config.pop("torch_dtype", None)
    config |= {"num_hidden_layers": len(origins), "tie_word_embeddings": tied, "dtype": dtype}
    if num_rows is not None:
        config["vocab_size"] = num_rows
    moved = [layer for _, layer in origins] != list(range(donor.num_layers))
    if moved and _positional(config) and not config.get("layer_types"):
        raise RecipeError(
            f"{donor.path / 'config.json'} does not list layer_types, and in "
            f"{config['model_type']} the kind of a layer follows from its position, so its layers "
            "cannot be moved; load and save the model with a current transformers first"
        )
    for key in PER_LAYER:
        if isinstance(config.get(key), list):
            lists = {role: checkpoints[role].config.get(key) or config[key] for role, _ in origins}
            config[key] = [lists[role][layer] for role, layer in origins]
    return config


def _positional(config: Mapping[str, Any]) -> bool:
    kind = config["model_type"]
    return kind in ("gemma2", "gemma3_text") or (
        kind in ("qwen2", "qwen3") and bool(config.get("use_sliding_window"))
    )
