"""Settings of the pruning space and what must hold for them."""

from __future__ import annotations

from dataclasses import dataclass

from auto_merge.errors import ConfigError
from auto_merge.recipe.model import BaseIndex
from auto_merge.strategies.flat import ScaleSearch
from auto_merge.strategies.lfs_settings import legal_range

MERGE_SCALES = legal_range("task_arithmetic", "scaling_coefficient")
"""Merge scales that make sense in a search."""


@dataclass(frozen=True)
class PruneSettings:
    """What defines a pruning space.

    Attributes:
        models: Role names of the K sources, in the order that candidate numbers refer to.
        base: Role name of the common ancestor.
        num_layers: Number of layers L of every model.
        layers: Number of layers of the result, in [1, L].
        merge_scale: Range ``(low, high)`` of the scale of the summed task vectors.
        scale_mode: Meaning of the output scales; ``"off"``: none are searched.
        base_index: Which layer of the base a task vector is taken from.
        max_starts: Largest number of start points; ``None`` for all.
        dtype: Data type of the merged model.
    """

    models: tuple[str, ...]
    base: str | None
    num_layers: int
    layers: int
    merge_scale: tuple[float, float]
    scale_mode: ScaleSearch = "mlp"
    base_index: BaseIndex = "source"
    max_starts: int | None = None
    dtype: str | None = None

    @property
    def num_removed(self) -> int:
        """Number R of layers that are removed."""
        return self.num_layers - self.layers


def check_settings(settings: PruneSettings) -> None:
    """Refuses settings that make no space.

    Raises:
        ConfigError: One line with the key.
    """
    if settings.base is None:
        _refuse("base_model", "pruning needs a base model for layers without candidates, got none")
    if not settings.models:
        _refuse("models", "at least one model is needed")
    names = [*settings.models, settings.base]
    for name in names:
        if names.count(name) > 1:
            _refuse("models", f"names must differ, {name!r} occurs twice")
    if settings.num_layers < 1:
        _refuse("num_hidden_layers", f"must be at least 1, got {settings.num_layers}")
    if not 1 <= settings.layers <= settings.num_layers:
        _refuse(
            "layers",
            f"must lie within [1, {settings.num_layers}], the number of layers of the models, "
            f"got {settings.layers}",
        )
    key = "merging_method.task_arithmetic.scaling_coefficient"
    low, high = settings.merge_scale
    if not low < high:
        _refuse(key, f"min must be below max, got {low:g} and {high:g}")
    if not MERGE_SCALES[0] <= low < high <= MERGE_SCALES[1]:
        _refuse(
            key,
            f"must lie within [{MERGE_SCALES[0]:g}, {MERGE_SCALES[1]:g}], got [{low:g}, {high:g}]",
        )


def _refuse(key: str, reason: str) -> None:
    raise ConfigError(f"strategies.prune.{key}: {reason}")
