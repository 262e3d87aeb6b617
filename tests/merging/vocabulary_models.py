"""Models whose tokenizers have tokens added, in any order, and whose matrices may be padded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from merge_recipes import part, recipe
from pico import VOCABULARY, make_family, read_tensors, write_tensors

from auto_merge.recipe.model import Recipe

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def make_model(
    folder: Path,
    added: Sequence[str] = (),
    *,
    rows: int | None = None,
    seed: int = 0,
    family: str = "llama",
    flags: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Path:
    """A pico model of ``rows`` rows (default: one per token) with these tokens added."""
    vocabulary = arguments.get("vocabulary", VOCABULARY)
    count = len(vocabulary) + len(added) if rows is None else rows
    config = {"vocab_size": count} | arguments.pop("config", {})
    arguments = {"layers": 2, "seed": seed} | arguments | {"config": config}
    make_family(folder, family, **arguments)
    entries = [entry(token, len(vocabulary) + i, **(flags or {})) for i, token in enumerate(added)]
    edit(folder, lambda data: data["added_tokens"].extend(entries))
    return folder


def entry(content: str, number: int, **flags: Any) -> dict[str, Any]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": number, "content": content} | plain | flags


def edit(folder: Path, change: Any) -> None:
    """Applies a change to the content of ``tokenizer.json``."""
    data = json.loads((folder / "tokenizer.json").read_text())
    change(data)
    (folder / "tokenizer.json").write_text(json.dumps(data))


def cut(folder: Path, out: Path, rows: int = len(VOCABULARY), **arguments: Any) -> Path:
    """The same weights with only the first rows, and the plain tokenizer."""
    make_model(out, rows=rows, **arguments)
    tensors = read_tensors(folder)
    for name, tensor in tensors.items():
        if name.startswith((EMBEDDING, "lm_head.")):
            tensors[name] = tensor[:rows].clone()
    write_tensors(out, tensors)
    return out


def ids_of(folder: Path) -> dict[str, int]:
    from transformers import AutoTokenizer

    return dict(AutoTokenizer.from_pretrained(folder).get_vocab())


def logits(model: Any, ids: Sequence[int] = tuple(range(4, 40))) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([list(ids)])).logits[0]


METHODS: dict[str, dict[str, Any]] = {
    "passthrough": {},
    "linear": {},
    "task_arithmetic": {"scale": 0.7},
    "ties": {"density": 0.5, "scale": 0.8},
    "slerp": {"t": 0.3},
}


def merge(method: str, roles: list[str], **parameters: Any) -> Recipe:
    roles = roles[-1:] if method == "passthrough" else roles
    return recipe(part(method, roles, (0, 2), **(METHODS[method] | parameters)))


def linear(**weights: float) -> Recipe:
    given = {role: {"weight": weight} for role, weight in weights.items()}
    return recipe(part("linear", given, (0, 2)))
