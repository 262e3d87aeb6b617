"""What tensors are called, family by family: rows of data and a fallback that infers them.

A new family is a new row. The role of a tensor follows from its name alone: it belongs to a layer,
to the embedding side (before the first layer) or to the head side (after the last layer).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from auto_merge.errors import CheckpointError

Side = Literal["embedding", "head"]

Branch = Literal["self_attn", "mlp"]

_GROUPS = {"self_attn": (".self_attn.",), "mlp": (".mlp.",)}
_OUTPUTS: Mapping[Branch, str] = {"self_attn": ".self_attn.o_proj.", "mlp": ".mlp.down_proj."}


@dataclass(frozen=True, eq=False)
class Family:
    """Naming of one architecture family.

    Attributes:
        name: Name of the row.
        model_types: Values of ``model_type`` in ``config.json`` that it covers.
        layer_prefix: Layer ``l`` holds the tensors that start with ``<layer_prefix><l>.``.
        embedding: Name of the input embedding matrix.
        heads: Names that the output matrix may have, the usual one first; a checkpoint has at most
            one of them, none where the matrix is tied to the embedding.
        before: Starts of all names on the embedding side; any other non-layer tensor is head side.
        groups: Module group -> substrings of the names of its tensors.
        ignored: Ends of names of buffers that older checkpoints carry and no model loads.
        tied_by_default: Whether the head is tied where the configuration does not say.
        outputs: Branch of a layer -> part of the names of the weights that write its result to the
            residual stream; empty where that is not known.
        post_norm: Values of ``model_type`` that normalise what a branch writes, so that scaling
            those weights has no effect.
    """

    name: str
    model_types: tuple[str, ...]
    layer_prefix: str = "model.layers."
    embedding: str = "model.embed_tokens.weight"
    heads: tuple[str, ...] = ("lm_head.weight",)
    before: tuple[str, ...] = ("model.embed_tokens.",)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _GROUPS)
    ignored: tuple[str, ...] = (".rotary_emb.inv_freq",)
    tied_by_default: bool = False
    outputs: Mapping[Branch, str] = field(default_factory=lambda: _OUTPUTS)
    post_norm: tuple[str, ...] = ()

    def layer_of(self, tensor: str) -> int | None:
        """Returns the index of the layer that holds a tensor, ``None`` outside the layers."""
        if not tensor.startswith(self.layer_prefix):
            return None
        number = tensor[len(self.layer_prefix) :].partition(".")[0]
        return int(number) if number.isascii() and number.isdigit() else None

    def side_of(self, tensor: str) -> Side:
        """Returns on which side of the layers a tensor outside them stands."""
        return "embedding" if tensor.startswith(self.before) else "head"

    def rest_of(self, tensor: str) -> str:
        """Returns the part of a layer tensor's name after the number of the layer."""
        return tensor[len(self.layer_prefix) :].partition(".")[2]

    def at_layer(self, rest: str, layer: int) -> str:
        """Returns the full name of a tensor called ``rest`` inside a layer."""
        return f"{self.layer_prefix}{layer}.{rest}"

    def ignores(self, tensor: str) -> bool:
        """Returns whether a tensor is a leftover buffer rather than a weight."""
        return tensor.endswith(self.ignored)

    def writes(self, tensor: str) -> Branch | None:
        """Returns the branch whose result a tensor writes to the residual stream, if it does."""
        return next((branch for branch, part in self.outputs.items() if part in tensor), None)

    @lru_cache(maxsize=100_000)  # noqa: B019 - families are few and live as long as the program
    def matches(self, entry_filter: str, tensor: str) -> bool:
        """Returns whether a parameter entry's filter selects a tensor.

        Args:
            entry_filter: A module group of the family, else any part of a tensor name.
            tensor: Tensor name.
        """
        parts = self.groups.get(entry_filter, (entry_filter,))
        return any(part in tensor for part in parts)


FAMILIES: tuple[Family, ...] = (
    Family("llama", ("llama",)),
    Family("mistral", ("mistral",)),
    Family("qwen2", ("qwen2",)),
    Family("qwen3", ("qwen3",)),
    Family(
        "gemma",
        ("gemma", "gemma2", "gemma3_text"),
        tied_by_default=True,
        post_norm=("gemma2", "gemma3_text"),
    ),
    Family("phi", ("phi",), outputs={"self_attn": ".self_attn.dense.", "mlp": ".mlp.fc2."}),
    Family("phi3", ("phi3",)),
    Family(
        "gpt_neox",
        ("gpt_neox",),
        layer_prefix="gpt_neox.layers.",
        embedding="gpt_neox.embed_in.weight",
        heads=("embed_out.weight", "lm_head.weight"),  # current transformers writes the second
        before=("gpt_neox.embed_in.",),
        groups={"self_attn": (".attention.",), "mlp": (".mlp.",)},
        ignored=(".rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias"),
        outputs={"self_attn": ".attention.dense.", "mlp": ".mlp.dense_4h_to_h."},
    ),
)

_BY_MODEL_TYPE = {kind: family for family in FAMILIES for kind in family.model_types}


def family_of(model_type: str, num_layers: int, tensors: Iterable[str]) -> Family:
    """Returns the row of a ``model_type``, else one inferred from the tensor names.

    Args:
        model_type: ``model_type`` of ``config.json``.
        num_layers: Number of layers by ``config.json``.
        tensors: Names of all tensors.

    Raises:
        CheckpointError: The type is unknown and no name pattern fits ``num_layers``.
    """
    known = _BY_MODEL_TYPE.get(model_type)
    return known if known is not None else _infer(model_type, num_layers, sorted(tensors))


def _infer(model_type: str, num_layers: int, tensors: list[str]) -> Family:
    """Takes the prefix whose numbers are exactly 0 .. L-1 and that covers the most tensors."""
    numbers: dict[str, list[int]] = {}
    for tensor in tensors:
        for match in re.finditer(r"(?<=\.)\d+(?=\.)", tensor):
            numbers.setdefault(tensor[: match.start()], []).append(int(match.group()))
    fitting = [prefix for prefix, found in numbers.items() if set(found) == set(range(num_layers))]
    if not fitting:
        raise CheckpointError(
            f"model_type {model_type!r} is unknown and no tensor names count {num_layers} layers; "
            f"supported: {', '.join(_BY_MODEL_TYPE)}"
        )
    layer_prefix = max(fitting, key=lambda prefix: len(numbers[prefix]))
    outside = [name for name in tensors if not name.startswith(layer_prefix)]
    heads = [name for name in outside if "lm_head" in name or "embed_out" in name]
    before = [
        name
        for name in outside
        if name not in heads and ("embed" in name or re.search(r"\bw[tp]e\b", name))
    ]
    return Family(
        f"{model_type} (inferred)",
        (model_type,),
        layer_prefix=layer_prefix,
        embedding=before[0] if before else "",
        heads=tuple(heads) or ("lm_head.weight",),
        before=tuple(before),
        groups={"self_attn": ("attn", "attention."), "mlp": ("mlp", "feed_forward", "ffn")},
        outputs={},
    )
