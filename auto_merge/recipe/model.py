"""What a merged model is: an ordered stack of slices, each merged by one method from its sources.

Nothing here touches a tensor. Model names in a recipe are *roles*; which folder or hub name plays a
role is the business of whoever holds the recipe (a run's ``models`` section, a recipe file).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

ScaleMode = Literal["mlp", "hidden"]
BaseIndex = Literal["source", "output"]


@dataclass(frozen=True)
class Entry:
    """One value of a parameter, for the tensors that ``filter`` selects.

    Attributes:
        value: The value.
        filter: Module group (``"self_attn"``, ``"mlp"``) or substring of the tensor name;
            ``None`` is the default for every tensor that no other entry of the list selects.
    """

    value: float
    filter: str | None = None


Parameters = Mapping[str, tuple[Entry, ...]]
"""Parameter name -> entries. The first entry whose filter matches wins, else the default entry."""


@dataclass(frozen=True)
class Source:
    """A range of layers of one model.

    Attributes:
        model: Role name of the model.
        layers: Half-open range ``(start, end)`` of its layers.
        parameters: Per-source parameters of the merge method (``weight``).
    """

    model: str
    layers: tuple[int, int]
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True)
class Slice:
    """Consecutive output layers merged by one method.

    Attributes:
        method: Name of the merge method.
        sources: At least one; all layer ranges have the same length.
        parameters: Parameters of the method that belong to the whole merge (``scale``, ``t``).
        output_scale: Factor on the output of every layer of the slice; what that means says
            :attr:`Recipe.scale_mode`.
    """

    method: str
    sources: tuple[Source, ...]
    parameters: Parameters = field(default_factory=dict)
    output_scale: float = 1.0

    @property
    def num_layers(self) -> int:
        """Number of output layers."""
        start, end = self.sources[0].layers
        return end - start


@dataclass(frozen=True)
class Recipe:
    """A merged model.

    Embeddings follow the first slice; the final norm and the output head follow the last one.

    Attributes:
        slices: Output layers from first to last.
        base: Role name of the common ancestor, where a method needs task vectors.
        dtype: Data type of the result (``"bfloat16"``); ``None`` keeps the first source's.
        scale_mode: What an output scale s does to the layer x -> x + attention + mlp: ``"mlp"``
            makes it x + attention + s mlp, ``"hidden"`` makes it s (x + attention + mlp). Both are
            folded into ordinary weights.
        base_index: Which layer of the base a task vector is taken from: ``"source"``, the layer
            that the sources give, or ``"output"``, the layer that is written (what the published
            searches ran; the same as long as no layer moves).
        tokens: Role names of models whose added tokens the result has in any case, beside those of
            the first and the last slice. Without a base, the first one gives configuration and
            tokenizer.
    """

    slices: tuple[Slice, ...]
    base: str | None = None
    dtype: str | None = None
    scale_mode: ScaleMode = "mlp"
    base_index: BaseIndex = "source"
    tokens: tuple[str, ...] = ()

    @property
    def num_layers(self) -> int:
        """Number of output layers."""
        return sum(part.num_layers for part in self.slices)

    def models(self) -> tuple[str, ...]:
        """Role names in order of first use; base and token sources last if no slice uses them."""
        names = [source.model for part in self.slices for source in part.sources]
        if self.base is not None:
            names.append(self.base)
        return tuple(dict.fromkeys((*names, *self.tokens)))

    def renamed(self, names: Mapping[str, str]) -> Recipe:
        """Returns the recipe with other role names; a name that is not in ``names`` stays."""
        slices = tuple(
            replace(
                part,
                sources=tuple(
                    replace(source, model=names.get(source.model, source.model))
                    for source in part.sources
                ),
            )
            for part in self.slices
        )
        base = None if self.base is None else names.get(self.base, self.base)
        tokens = tuple(names.get(role, role) for role in self.tokens)
        return replace(self, slices=slices, base=base, tokens=tokens)
