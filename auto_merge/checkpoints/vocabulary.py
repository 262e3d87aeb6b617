"""Compares the vocabularies of models: merged embeddings only make sense row by row. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from auto_merge.checkpoints.folder import read_json
from auto_merge.errors import CheckpointError


def read_vocabulary(folder: Path) -> Mapping[str, int] | None:
    """Returns token -> id of ``tokenizer.json``, added tokens included; ``None`` if it is absent.

    Raises:
        CheckpointError: The file is damaged.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        return None
    data = read_json(file)
    try:
        entries = data["model"]["vocab"]
        if isinstance(entries, dict):
            tokens = {str(token): int(number) for token, number in entries.items()}
        else:  # unigram models list [token, score] pairs in the order of ids
            tokens = {str(entry[0]): number for number, entry in enumerate(entries)}
        for added in data.get("added_tokens") or ():
            tokens[str(added["content"])] = int(added["id"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(f"{file} holds no readable vocabulary; download it again") from error
    return tokens


def differing_tokens(first: Mapping[str, int], second: Mapping[str, int]) -> list[str]:
    """Returns the tokens that the two vocabularies number differently, by id."""
    if first == second:
        return []
    tokens = {
        token for token in first.keys() | second.keys() if first.get(token) != second.get(token)
    }
    return sorted(tokens, key=lambda token: (first.get(token, second.get(token, 0)), token))
