"""Plans a merge: an ordered list of tensor steps and a configuration, pure data, no weights read.

A step is identified by *content* (fingerprints of the models, not their paths or roles), after its
method has brought it to its simplest form. So equal merges have equal digests however they were
written down, and a digest is a safe key for scores and for tensors already computed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import auto_merge.methods  # noqa: F401 - registers the merge methods
from auto_merge.checkpoints.checkpoint import Checkpoint
from auto_merge.checkpoints.vocabulary import AddedToken
from auto_merge.errors import RecipeError, nearest
from auto_merge.merging.configuration import result_config
from auto_merge.merging.layout import Layout, Reference, Slot, build_layout
from auto_merge.merging.parameters import Resolver, checked_method
from auto_merge.merging.rows import Block, Matrix, build_blocks
from auto_merge.methods.base import METHODS, Call
from auto_merge.recipe.model import Recipe

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))

DTYPES = ("float32", "bfloat16", "float16")
"""Data types that a result may have."""


@dataclass(frozen=True)
class Step:
    """One output tensor.

    Attributes:
        output: Its name.
        shape: Its shape.
        call: Method and resolved parameters in simplest form; keys are ``fingerprint:tensor``.
        inputs: Role and tensor name of each of the call's sources.
        base: Role and tensor name of the call's base, ``None`` if it has none.
        factor: What the merge is multiplied with, before it is rounded.
        digest: Identifies the values of the result, its dtype included (SHA-256, hexadecimal).
        blocks: How to merge rows that stand for different tokens, see
            :mod:`auto_merge.merging.rows`; none where the inputs fit as they are.
    """

    output: str
    shape: tuple[int, ...]
    call: Call
    inputs: tuple[Reference, ...]
    base: Reference | None
    factor: float
    digest: str
    blocks: tuple[Block, ...] = ()

    @property
    def is_copy(self) -> bool:
        """Whether the result has the values of its only input, up to the dtype."""
        return (
            self.call.method == "passthrough"
            and self.call.arguments["scale"] == 1.0
            and self.factor == 1.0
            and not self.blocks
        )


@dataclass(frozen=True)
class Plan:
    """A merged model that could be built.

    Attributes:
        steps: One per output tensor: embedding side, layers in order, head side.
        config: ``config.json`` of the result.
        dtype: Data type of every output tensor, ``"bfloat16"``.
        donor: Role of the model that gives configuration, tokenizer and generation settings: as
            asked for, else the recipe's base, else the first source.
        digest: Identifies weights, configuration and tokenizer (SHA-256, hexadecimal).
        added_tokens: Tokens that the donor's tokenizer does not have, with their ids.
    """

    steps: tuple[Step, ...]
    config: Mapping[str, Any]
    dtype: str
    donor: str
    digest: str
    added_tokens: tuple[AddedToken, ...] = ()


def build_plan(
    recipe: Recipe,
    checkpoints: Mapping[str, Checkpoint],
    *,
    dtype: str | None = None,
    donor: str | None = None,
    token_sources: Sequence[str] = (),
) -> Plan:
    """Plans a recipe and checks all of it before any weight is read.

    Args:
        recipe: What to build.
        checkpoints: Role -> opened model, at least for the recipe's roles.
        dtype: Data type of the result; default the recipe's, else the first source's.
        donor: Role of the model that gives configuration and tokenizer; default the recipe's base,
            else the first source.
        token_sources: Models whose added tokens the result has in any case, in this order, before
            those of the sources of the first slice and of the last one. Recipes that shall have
            one tokenizer need the same donor, and here all models of their outer slices.

    Raises:
        RecipeError: The recipe does not fit the methods or the models.
        CheckpointError: The models do not fit each other.
    """
    methods = [
        checked_method(part, f"slices[{number}]") for number, part in enumerate(recipe.slices)
    ]
    needs_base = tuple(method.needs_base for method in methods)
    layout = build_layout(recipe, checkpoints, needs_base, donor, token_sources)
    vocabulary = layout.vocabulary
    chosen = _result_dtype(recipe, checkpoints, dtype)
    config = result_config(
        checkpoints[layout.donor],
        checkpoints,
        layout.origins,
        tied=layout.tied,
        dtype=chosen,
        num_rows=vocabulary.height if vocabulary else None,
    )
    steps = tuple(_Steps(recipe, checkpoints, layout, chosen))
    added = vocabulary.added if vocabulary else ()
    content: list[Any] = [
        [(step.output, step.digest) for step in steps],
        config,
        checkpoints[layout.donor].tokenizer_digest,
    ]
    content += [[token.to_json() for token in added]] if added else []
    return Plan(steps, config, chosen, layout.donor, _digest(content), added)


class _Steps:
    """Turns the slots of a layout into steps; holds what all of them share."""

    def __init__(
        self, recipe: Recipe, checkpoints: Mapping[str, Checkpoint], layout: Layout, dtype: str
    ) -> None:
        self._recipe = recipe
        self._checkpoints = checkpoints
        self._layout = layout
        self._dtype = dtype
        self._family = checkpoints[recipe.slices[0].sources[0].model].family
        self._resolvers = [
            Resolver(part, METHODS.get(part.method), self._family) for part in recipe.slices
        ]
        self._check_filters()
        known = layout.vocabulary.known if layout.vocabulary else ()
        roles = (*recipe.models(), *known)
        self._fingerprints = {role: checkpoints[role].fingerprint for role in roles}

    def _check_filters(self) -> None:
        """A filter that selects nothing anywhere is a mistake, and its value would never act."""
        outputs = [slot.output for slot in self._layout.slots]
        for number, resolver in enumerate(self._resolvers):
            for text in resolver.filters:
                if not any(self._family.matches(text, output) for output in outputs):
                    hint = nearest(text, self._family.groups)
                    raise RecipeError(f"slices[{number}]: filter {text!r} selects no tensor{hint}")

    def __iter__(self) -> Iterator[Step]:
        return map(self._step, self._layout.slots)

    def _step(self, slot: Slot) -> Step:
        references = [*slot.sources, *([slot.base] if slot.base else [])]
        keys = {self._key(reference): reference for reference in references}
        try:
            call = self._call(slot.part, slot.output, slot.sources, slot.base)
            blocks = self._blocks(slot, call, keys)
        except RecipeError as error:
            raise RecipeError(f"slices[{slot.part}], tensor {slot.output}: {error}") from None
        inputs = tuple(keys[key] for key in call.sources)
        base = None if call.base is None else keys[call.base]
        merges = [[block.rows, *_content(block.call)] for block in blocks]
        content: list[Any] = [*(merges or _content(call)), self._dtype]
        # A factor of 1 leaves no trace, so that scores from before there were factors stay valid.
        content += [slot.factor] if slot.factor != 1.0 else []
        return Step(
            slot.output, slot.shape, call, inputs, base, slot.factor, _digest(content), blocks
        )

    def _call(
        self, part: int, output: str, sources: Sequence[Reference], base: Reference | None
    ) -> Call:
        """The merge of tensors by the method of a slice, in simplest form."""
        method = self._recipe.slices[part].method
        keys = tuple(self._key(reference) for reference in sources)
        base_key = None if base is None else self._key(base)
        arguments = self._resolvers[part].arguments(output)
        return METHODS.get(method).simplify(Call(method, keys, base_key, arguments))

    def _blocks(self, slot: Slot, call: Call, keys: Mapping[str, Reference]) -> tuple[Block, ...]:
        vocabulary = self._layout.vocabulary
        if vocabulary is None or not slot.peers:
            return ()
        peers = {role: self._matrix((role, name)) for role, name in slot.peers}
        others = [peers[role] for role in self._opposite(slot) if role in peers]
        matrices = {key: self._matrix(reference) for key, reference in keys.items()}
        return build_blocks(call, matrices, others, peers.get(vocabulary.donor), vocabulary)

    def _opposite(self, slot: Slot) -> list[str]:
        """The models that are merged on the other side of the layers."""
        is_head = slot.output != self._family.embedding
        number = 0 if is_head else len(self._recipe.slices) - 1
        output = self._family.embedding if is_head else self._family.heads[0]
        part = self._recipe.slices[number]
        sources = [(source.model, output) for source in part.sources]
        role = self._recipe.base if METHODS.get(part.method).needs_base else None
        call = self._call(number, output, sources, None if role is None else (role, output))
        roles = {self._key(source): source[0] for source in sources}
        return [roles[key] for key in call.sources if key in roles]

    def _matrix(self, reference: Reference) -> Matrix:
        role, name = reference
        height = self._checkpoints[role].tensors[name].shape[0]
        return Matrix(self._key(reference), reference, height)

    def _key(self, reference: Reference) -> str:
        role, name = reference
        return f"{self._fingerprints[role]}:{name}"


def _content(call: Call) -> list[Any]:
    return [call.method, call.sources, call.base, dict(call.arguments)]


def _result_dtype(recipe: Recipe, checkpoints: Mapping[str, Checkpoint], dtype: str | None) -> str:
    chosen = dtype or recipe.dtype or checkpoints[recipe.slices[0].sources[0].model].dtype
    if chosen not in DTYPES:
        raise RecipeError(
            f"the result cannot have dtype {chosen!r}; set one of {', '.join(DTYPES)}"
        )
    return chosen


def _digest(content: Any) -> str:
    return hashlib.sha256(_ENCODER.encode(content).encode()).hexdigest()
