"""The tokens of a model, as its ``tokenizer.json`` lists them. No torch.

A vocabulary has two kinds of tokens. *Ordinary* tokens come from training the tokenizer: text is
cut into them by rules (merges, scores) that need all of them, so two models share either all or
none. *Added* tokens are cut out of the text by their string before the rules apply; they can be
added to any tokenizer and may have any id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from auto_merge.checkpoints.folder import read_json
from auto_merge.errors import CheckpointError

TOKENIZER = "tokenizer.json"

Ranges = tuple[tuple[int, int], ...]
"""Ascending half-open ranges of row numbers that do not touch."""

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True)
class AddedToken:
    """A token that is cut out of the text by its string; flags as in ``tokenizer.json``.

    Attributes:
        content: The string.
        id: Number of its row in embedding and output matrix.
        single_word: Whether it is not recognised inside a word.
        lstrip: Whether it takes the blanks before it.
        rstrip: Whether it takes the blanks after it.
        normalized: Whether it is looked for in the normalised text.
        special: Whether decoding may leave it out.
    """

    content: str
    id: int
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    special: bool = False

    def to_json(self) -> dict[str, Any]:
        """The entry of ``tokenizer.json``."""
        return asdict(self)


class Vocabulary(dict[str, int]):
    """Token -> id, added tokens included. Never changed once it is read.

    Args:
        trained: Token -> id of the tokenizer's model.
        added: Added tokens in the order of the file; some may be among the trained ones as well.
        kind: ``"BPE"``, ``"Unigram"``, ...; empty if the file does not say.
        rules: Merges or scores, one text each.
        folder: Where it was read.

    Attributes:
        added: Added tokens by their string.
        kind: As given.
        rules_digest: Equal for equal rules in any order: versions of one converter write merges
            of equal rank in different order.
        folder: As given.
    """

    def __init__(
        self,
        trained: Mapping[str, int],
        added: Iterable[AddedToken],
        kind: str,
        rules: Iterable[str],
        folder: Path,
    ) -> None:
        self.added: Mapping[str, AddedToken] = {entry.content: entry for entry in added}
        super().__init__(trained)
        self.update({token: entry.id for token, entry in self.added.items()})
        self.kind = kind
        self.rules_digest = _digest(rules)
        self.folder = folder
        self._trained_size = len(trained)
        self._both = self.added.keys() & trained.keys()

    @cached_property
    def ordinary(self) -> Mapping[str, int]:
        """The tokens that are not added."""
        return {token: number for token, number in self.items() if token not in self.added}

    @cached_property
    def ordinary_digest(self) -> str:
        """Equal for tokenizers that cut text alike, whatever was added to them."""
        tokens = (f"{number} {token}" for token, number in self.ordinary.items())
        return _digest([self.kind, self.rules_digest, *tokens])

    @cached_property
    def ordinary_ranges(self) -> Ranges:
        """The ids that only ordinary tokens have."""
        return ranges(set(self.ordinary.values()) - {entry.id for entry in self.added.values()})

    @cached_property
    def next_id(self) -> int:
        """The id that a token gets when it is added."""
        return self._number(max((entry.id for entry in self.added.values()), default=-1))

    @cached_property
    def misnumbered(self) -> AddedToken | None:
        """The first added token that is loaded with another id than the file says.

        Loaders pass over the ids in the file and number added tokens in their order.
        """
        highest = -1
        for token, entry in self.added.items():
            if token not in self._both and entry.id != self._number(highest):
                return entry
            highest = max(highest, entry.id)
        return None

    def _number(self, highest: int) -> int:
        """Id of the next added token after added tokens up to ``highest``."""
        return max(self._trained_size, highest + 1)


def read_vocabulary(folder: Path) -> Vocabulary | None:
    """Returns the tokens of ``tokenizer.json``; ``None`` if there is no such file.

    Raises:
        CheckpointError: The file is damaged.
    """
    file = folder / TOKENIZER
    if not file.is_file():
        return None
    data = read_json(file)
    try:
        model = data["model"]
        trained = _trained(model["vocab"])
        added = [_added(entry) for entry in data.get("added_tokens") or ()]
        _check_once(added)
        return Vocabulary(trained, added, str(model.get("type") or ""), read_rules(model), folder)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise CheckpointError(f"{file} holds no readable vocabulary; download it again") from error


def read_rules(model: Mapping[str, Any]) -> list[str]:
    """Returns merges (``"a b"``), or the scores of a unigram model (``"a -1.5"``), sorted."""
    merges = model.get("merges") or ()
    rules = [entry if isinstance(entry, str) else " ".join(entry) for entry in merges]
    if not isinstance(model["vocab"], Mapping):
        rules += [f"{token} {score!r}" for token, score in model["vocab"]]
    return sorted(rules)


def ranges(numbers: Iterable[int]) -> Ranges:
    """Returns the ranges that hold exactly these numbers."""
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and found[-1][1] == number:
            found[-1][1] += 1
        else:
            found.append([number, number + 1])
    return tuple((start, stop) for start, stop in found)


def _trained(entries: Any) -> dict[str, int]:
    if isinstance(entries, dict):
        return {token: _id(number) for token, number in entries.items()}
    # Unigram models list [token, score] pairs in the order of ids.
    return {str(entry[0]): number for number, entry in enumerate(entries)}


def _added(entry: Mapping[str, Any]) -> AddedToken:
    flags = {flag: bool(entry.get(flag, False)) for flag in _FLAGS}
    return AddedToken(str(entry["content"]), _id(entry["id"]), **flags)


def _check_once(added: Iterable[AddedToken]) -> None:
    ids: dict[str, int] = {}
    for entry in added:
        if ids.setdefault(entry.content, entry.id) != entry.id:
            raise ValueError(f"{entry.content!r} has two ids")


def _id(number: Any) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ValueError(f"{number!r} is no id")
    return number


def _digest(texts: Iterable[str]) -> str:
    text = "\n".join(sorted(texts))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def added_token_ids(folder: Path) -> dict[str, int] | None:
    """Returns the added tokens that the small tokenizer files list, ``None`` if none of them does.

    For folders without ``tokenizer.json``: ``added_tokens.json``, else the decoder table of
    ``tokenizer_config.json``.

    Raises:
        CheckpointError: A file is damaged.
    """
    listed = folder / "added_tokens.json"
    if listed.is_file():
        return {str(token): int(number) for token, number in read_json(listed).items()}
    config = folder / "tokenizer_config.json"
    table = read_json(config).get("added_tokens_decoder") if config.is_file() else None
    if not isinstance(table, dict):
        return None
    try:
        return {str(entry["content"]): int(number) for number, entry in table.items()}
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{config}: added_tokens_decoder is damaged") from None
