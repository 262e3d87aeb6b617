"""Which tensors of which models meet in which output tensor, checked before any weight is read.

The layout depends on the models and layer ranges of a recipe, not on its numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from auto_merge.checkpoints.checkpoint import Checkpoint
from auto_merge.checkpoints.families import Side
from auto_merge.errors import CheckpointError, RecipeError, nearest
from auto_merge.merging.scales import layer_factors
from auto_merge.merging.vocabularies import MergedVocabulary, merge_vocabularies
from auto_merge.recipe.model import Recipe, Slice

Reference = tuple[str, str]
"""Role of a model and name of one of its tensors."""

_SHAPING_KEYS = ("model_type", "num_attention_heads")
"""Settings that must agree although equal tensor shapes do not enforce it."""


@dataclass(frozen=True)
class Slot:
    """One output tensor and what goes into it.

    Attributes:
        output: Its name.
        shape: Its shape, equal to that of every input except for the rows of ``peers``.
        part: Index of the slice whose method and parameters apply.
        sources: One tensor per source of the slice.
        base: The base model's tensor, ``None`` unless the slice's method needs it.
        factor: What the merged tensor is multiplied with, see :mod:`auto_merge.merging.scales`.
        peers: If the tensor has a row per token and rows may have to be rearranged: the same
            tensor of every model whose tokens the result has, see :mod:`auto_merge.merging.rows`.
    """

    output: str
    shape: tuple[int, ...]
    part: int
    sources: tuple[Reference, ...]
    base: Reference | None
    factor: float = 1.0
    peers: tuple[Reference, ...] = ()


@dataclass(frozen=True)
class Layout:
    """All slots of a result, embedding side first, then layer by layer, then the head side.

    Attributes:
        slots: The output tensors.
        tied: Whether the result has no output matrix of its own.
        origins: For each output layer, role and layer of the first source.
        donor: Role of the model that gives configuration and tokenizer.
        vocabulary: Whose rows go where; ``None`` if all matrices fit as they are.
    """

    slots: tuple[Slot, ...]
    tied: bool
    origins: tuple[tuple[str, int], ...]
    donor: str
    vocabulary: MergedVocabulary | None


def build_layout(
    recipe: Recipe,
    checkpoints: Mapping[str, Checkpoint],
    needs_base: tuple[bool, ...],
    donor: str | None,
    token_sources: Sequence[str],
) -> Layout:
    """Lays out the result of a recipe.

    Args:
        recipe: The recipe; its methods and parameters are already checked.
        checkpoints: Role -> opened model.
        needs_base: For each slice, whether its method needs the base model.
        donor: Role of the model whose tokens come first; default the recipe's base, else the first
            source.
        token_sources: Models whose added tokens come next, before those of the sources of the
            first slice and of the last one.

    Raises:
        RecipeError: An unknown role, a layer range outside its model, ranges of unequal length, a
            missing base, models that differ in layer count, architecture or ordinary tokens.
        CheckpointError: A model lacks a tensor, or tensors differ in shape.
    """
    _check_recipe(recipe, checkpoints, needs_base)
    token_sources = token_sources or recipe.tokens
    first = recipe.tokens[0] if recipe.tokens else recipe.slices[0].sources[0].model
    chosen = donor or recipe.base or first
    vocabulary = _vocabulary(recipe, checkpoints, chosen, token_sources)
    builder = _Builder(recipe, checkpoints, needs_base, vocabulary)
    slots = (*builder.outer("embedding"), *builder.layers(), *builder.outer("head"))
    return Layout(slots, builder.tied, _origins(recipe), chosen, vocabulary)


class _Builder:
    """Enumerates slots; holds what all of them share."""

    def __init__(
        self,
        recipe: Recipe,
        checkpoints: Mapping[str, Checkpoint],
        needs_base: tuple[bool, ...],
        vocabulary: MergedVocabulary | None,
    ) -> None:
        self.recipe = recipe
        self.vocabulary = vocabulary
        self.checkpoints = checkpoints
        self.bases = [recipe.base if needed else None for needed in needs_base]
        ends = {0, len(recipe.slices) - 1}
        roles = {source.model for end in ends for source in recipe.slices[end].sources}
        roles |= {base for end in ends if (base := self.bases[end]) is not None}
        self.tied = all(checkpoints[role].tied for role in roles)
        self.factors = layer_factors(recipe, checkpoints)

    def layers(self) -> Iterator[Slot]:
        output = 0
        for number, part in enumerate(self.recipe.slices):
            for offset in range(part.num_layers):
                yield from self._layer(number, part, offset, output)
                output += 1

    def _layer(self, number: int, part: Slice, offset: int, output: int) -> Iterator[Slot]:
        first = part.sources[0]
        leader = self.checkpoints[first.model]
        tables = [(source.model, source.layers[0] + offset) for source in part.sources]
        base = self.bases[number]
        if base is not None:
            moved = self.recipe.base_index == "output"
            tables.append((base, output if moved else first.layers[0] + offset))
        named = [
            (role, layer, self.checkpoints[role].layer_tensors[layer]) for role, layer in tables
        ]
        rests = named[0][2]
        for role, layer, names in named[1:]:
            if names.keys() != rests.keys():
                raise self._unequal(named[0][:2], (role, layer))
        for rest in rests:
            references = [(role, names[rest]) for role, _, names in named]
            name = leader.family.at_layer(rest, output)
            branch = leader.family.writes(name)
            factor = 1.0 if branch is None else self.factors[output][branch]
            yield self._slot(name, number, references, factor)

    def outer(self, side: Side) -> Iterator[Slot]:
        number = 0 if side == "embedding" else len(self.recipe.slices) - 1
        part = self.recipe.slices[number]
        roles = [source.model for source in part.sources]
        base = self.bases[number]
        if base is not None:
            roles.append(base)
        leader = self.checkpoints[roles[0]]
        for name in leader.outer_tensors:
            if leader.family.side_of(name) == side:
                yield self._slot(name, number, [(role, name) for role in roles])
        if side == "head" and not self.tied:
            name = leader.head or leader.family.heads[0]
            yield self._slot(name, number, [(role, self._head_of(role)) for role in roles])

    def _head_of(self, role: str) -> str:
        """A model whose output matrix is tied takes part with its embedding matrix."""
        checkpoint = self.checkpoints[role]
        if checkpoint.tied or checkpoint.head is None:
            return checkpoint.family.embedding
        return checkpoint.head

    def _slot(
        self, output: str, number: int, references: list[Reference], factor: float = 1.0
    ) -> Slot:
        peers = self._peers(output)
        shapes = []
        for role, name in references:
            info = self.checkpoints[role].tensors.get(name)
            if info is None:
                path = self.checkpoints[role].path
                raise CheckpointError(f"model {role!r} ({path}) lacks the tensor {name}")
            height = self.vocabulary.height if self.vocabulary and peers else 0
            shapes.append((height, *info.shape[1:]) if height else info.shape)
        for (role, name), shape in zip(references, shapes, strict=True):
            if shape != shapes[0]:
                raise CheckpointError(
                    f"tensor {name} has shape {list(shapes[0])} in model {references[0][0]!r} but "
                    f"{list(shape)} in {role!r}; only models of one shape can be merged"
                )
        base = references.pop() if self.bases[number] is not None else None
        fitting = tuple(
            (role, name)
            for role, name in peers
            if self.checkpoints[role].tensors[name].shape[1:] == shapes[0][1:]
        )
        return Slot(output, shapes[0], number, tuple(references), base, factor, fitting)

    def _peers(self, output: str) -> tuple[Reference, ...]:
        """The tensors that rows of an output with a row per token may come from."""
        if self.vocabulary is None:
            return ()
        family = self.checkpoints[self.vocabulary.donor].family
        biases = [head.removesuffix("weight") + "bias" for head in family.heads]
        if output not in (family.embedding, *family.heads, *biases):
            return ()
        found = [
            (role, self._head_of(role) if output in family.heads else output)
            for role in self.vocabulary.known
        ]
        return tuple((role, name) for role, name in found if name in self.checkpoints[role].tensors)

    def _unequal(self, first: tuple[str, int], second: tuple[str, int]) -> CheckpointError:
        tables = [self.checkpoints[role].layer_tensors[layer] for role, layer in (first, second)]
        only = sorted(tables[0].keys() ^ tables[1].keys())[0]
        holder, other = (first, second) if only in tables[0] else (second, first)
        return CheckpointError(
            f"layer {holder[1]} of model {holder[0]!r} has a tensor {only}, "
            f"layer {other[1]} of {other[0]!r} has none"
        )


def _origins(recipe: Recipe) -> tuple[tuple[str, int], ...]:
    firsts = [part.sources[0] for part in recipe.slices]
    return tuple((first.model, layer) for first in firsts for layer in range(*first.layers))


def _check_recipe(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], needs_base: tuple[bool, ...]
) -> None:
    if not recipe.slices:
        raise RecipeError("the recipe has no slices, so the result would have no layers")
    for role in recipe.models():
        if role not in checkpoints:
            hint = nearest(role, checkpoints)
            raise RecipeError(f"the recipe names an unknown model {role!r}{hint}")
    for number, part in enumerate(recipe.slices):
        _check_slice(part, f"slices[{number}]", checkpoints)
        if needs_base[number]:
            _check_base(recipe.base, part, f"slices[{number}]", checkpoints)
    leader = recipe.base or recipe.slices[0].sources[0].model
    for role in recipe.models():
        _check_settings(leader, role, checkpoints)


def _vocabulary(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], donor: str, token_sources: Sequence[str]
) -> MergedVocabulary | None:
    leader = recipe.slices[0].sources[0].model
    for role in (donor, *token_sources):
        if role not in checkpoints:
            hint = nearest(role, checkpoints)
            raise RecipeError(f"tokens are wanted of an unknown model {role!r}{hint}")
        _check_settings(leader, role, checkpoints)
    ends = [source.model for end in (0, -1) for source in recipe.slices[end].sources]
    roles = tuple(dict.fromkeys((*token_sources, *ends)))
    return merge_vocabularies(donor, roles, checkpoints)


def _check_slice(part: Slice, place: str, checkpoints: Mapping[str, Checkpoint]) -> None:
    counts = {source.model: checkpoints[source.model].num_layers for source in part.sources}
    for number, source in enumerate(part.sources):
        start, end = source.layers
        if not 0 <= start < end <= counts[source.model]:
            raise RecipeError(
                f"{place}.sources[{number}]: layers [{start}, {end}] do not lie inside model "
                f"{source.model!r}, which has {counts[source.model]} layers"
            )
        if end - start != part.num_layers:
            raise RecipeError(
                f"{place}: sources give different numbers of layers, {part.num_layers} and "
                f"{end - start} ({source.model!r})"
            )
    _check_counts(counts, place)


def _check_base(
    base: str | None, part: Slice, place: str, checkpoints: Mapping[str, Checkpoint]
) -> None:
    if base is None:
        raise RecipeError(f"{place}: {part.method} needs a base model; add `base` to the recipe")
    first = part.sources[0].model
    _check_counts({role: checkpoints[role].num_layers for role in (first, base)}, place)
    starts = {source.layers for source in part.sources}
    if len(starts) > 1:
        raise RecipeError(
            f"{place}: {part.method} subtracts one base layer from all sources, so they must give "
            f"the same layers, found {sorted(starts)}"
        )


def _check_counts(counts: Mapping[str, int], place: str) -> None:
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{role!r} {count}" for role, count in counts.items())
        raise RecipeError(f"{place}: models with different layer counts cannot be merged: {found}")


def _check_settings(leader: str, role: str, checkpoints: Mapping[str, Checkpoint]) -> None:
    first, second = checkpoints[leader].config, checkpoints[role].config
    for key in _SHAPING_KEYS:
        if first.get(key) != second.get(key):
            raise RecipeError(
                f"models {leader!r} and {role!r} differ in {key}: {first.get(key)!r} and "
                f"{second.get(key)!r}; only models of one architecture can be merged"
            )
