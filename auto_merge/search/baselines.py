"""The merges that a search has to beat: sources, base, average, one scale for everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from auto_merge.recipe.model import Entry, Parameters, Recipe, Slice, Source

SINGLE_SCALES = tuple(round(0.1 * step, 1) for step in range(1, 13))
"""Scales among which the best single-scale merge is chosen, on search documents."""


@dataclass(frozen=True)
class Cast:
    """Who takes part in a run.

    Attributes:
        models: Role names of the sources.
        base: Role name of the base, if there is one; it gives configuration and tokenizer.
        num_layers: Number of layers of each.
        dtype: Data type of the result.
    """

    models: tuple[str, ...]
    base: str | None
    num_layers: int
    dtype: str

    def single_model(self, model: str) -> Recipe:
        """The unmerged model."""
        return self._whole("passthrough", (model,))

    def uniform_average(self) -> Recipe:
        """The mean of all sources."""
        return self._whole("linear", self.models)

    def single_scale(self, scale: float) -> Recipe:
        """Task arithmetic with one scale for all sources, layers and modules; needs a base."""
        return self._whole("task_arithmetic", self.models, {"scale": (Entry(scale),)})

    def _whole(
        self, method: str, models: Sequence[str], parameters: Parameters | None = None
    ) -> Recipe:
        sources = tuple(Source(model, (0, self.num_layers)) for model in models)
        return Recipe((Slice(method, sources, parameters or {}),), self.base, self.dtype)
