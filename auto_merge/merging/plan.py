"""Plans a merge: an ordered list of tensor steps and a configuration, pure data, no weights read.

A step is identified by *content* (fingerprints of the models, not their paths or roles), after its
method has brought it to its simplest form. So equal merges have equal digests however they were
written down, and a digest is a safe key for scores and for tensors already computed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import auto_merge.methods  # noqa: F401 - registers the merge methods
from auto_merge.checkpoints.checkpoint import Checkpoint
from auto_merge.errors import RecipeError
from auto_merge.merging.configuration import result_config
from auto_merge.merging.layout import Layout, Reference, Slot, build_layout
from auto_merge.merging.parameters import Resolver, checked_method
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
    """

    output: str
    shape: tuple[int, ...]
    call: Call
    inputs: tuple[Reference, ...]
    base: Reference | None
    factor: float
    digest: str

    @property
    def is_copy(self) -> bool:
        """Whether the result has the values of its only input, up to the dtype."""
        return (
            self.call.method == "passthrough"
            and self.call.arguments["scale"] == 1.0
            and self.factor == 1.0
        )


@dataclass(frozen=True)
class Plan:
    """A merged model that could be built.

    Attributes:
        steps: One per output tensor: embedding side, layers in order, head side.
        config: ``config.json`` of the result.
        dtype: Data type of every output tensor, ``"bfloat16"``.
        donor: Role of the model that gives configuration, tokenizer and generation settings: the
            recipe's base, else the first source.
        digest: Identifies weights, configuration and tokenizer (SHA-256, hexadecimal).
    """

    steps: tuple[Step, ...]
    config: Mapping[str, Any]
    dtype: str
    donor: str
    digest: str


def build_plan(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], *, dtype: str | None = None
) -> Plan:
    """Plans a recipe and checks all of it before any weight is read.

    Args:
        recipe: What to build.
        checkpoints: Role -> opened model, at least for the recipe's roles.
        dtype: Data type of the result; default the recipe's, else the first source's.

    Raises:
        RecipeError: The recipe does not fit the methods or the models.
        CheckpointError: The models do not fit each other.
    """
    methods = [
        checked_method(part, f"slices[{number}]") for number, part in enumerate(recipe.slices)
    ]
    layout = build_layout(recipe, checkpoints, tuple(method.needs_base for method in methods))
    donor = recipe.base or recipe.slices[0].sources[0].model
    chosen = _result_dtype(recipe, checkpoints, dtype)
    config = result_config(
        checkpoints[donor], checkpoints, layout.origins, tied=layout.tied, dtype=chosen
    )
    steps = tuple(_steps(recipe, checkpoints, layout, chosen))
    content = [
        [(step.output, step.digest) for step in steps],
        config,
        checkpoints[donor].tokenizer_digest,
    ]
    return Plan(steps, config, chosen, donor, _digest(content))


def _steps(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], layout: Layout, dtype: str
) -> Iterator[Step]:
    family = checkpoints[recipe.slices[0].sources[0].model].family
    resolvers = [Resolver(part, METHODS.get(part.method), family) for part in recipe.slices]
    fingerprints = {role: checkpoints[role].fingerprint for role in recipe.models()}
    for slot in layout.slots:
        yield _step(
            slot, recipe.slices[slot.part].method, resolvers[slot.part], fingerprints, dtype
        )


def _step(
    slot: Slot, method: str, resolver: Resolver, fingerprints: Mapping[str, str], dtype: str
) -> Step:
    keys = {f"{fingerprints[role]}:{name}": (role, name) for role, name in slot.sources}
    sources = tuple(f"{fingerprints[role]}:{name}" for role, name in slot.sources)
    base = None
    if slot.base is not None:
        base = f"{fingerprints[slot.base[0]]}:{slot.base[1]}"
        keys[base] = slot.base
    try:
        call = METHODS.get(method).simplify(
            Call(method, sources, base, resolver.arguments(slot.output))
        )
    except RecipeError as error:
        raise RecipeError(f"slices[{slot.part}], tensor {slot.output}: {error}") from None
    inputs = tuple(keys[key] for key in call.sources)
    reference = None if call.base is None else keys[call.base]
    content: list[Any] = [call.method, call.sources, call.base, dict(call.arguments), dtype]
    # A factor of 1 leaves no trace, so that scores from before there were factors stay valid.
    content += [slot.factor] if slot.factor != 1.0 else []
    return Step(slot.output, slot.shape, call, inputs, reference, slot.factor, _digest(content))


def _result_dtype(recipe: Recipe, checkpoints: Mapping[str, Checkpoint], dtype: str | None) -> str:
    chosen = dtype or recipe.dtype or checkpoints[recipe.slices[0].sources[0].model].dtype
    if chosen not in DTYPES:
        raise RecipeError(
            f"the result cannot have dtype {chosen!r}; set one of {', '.join(DTYPES)}"
        )
    return chosen


def _digest(content: Any) -> str:
    return hashlib.sha256(_ENCODER.encode(content).encode()).hexdigest()
