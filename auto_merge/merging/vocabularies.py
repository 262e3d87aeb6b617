"""The vocabulary of a result: the donor's tokens, and tokens that were added to its other sources.

Rows of matrices that have one row per token are found by the token's string:

- The donor's tokens keep their ids, its matrices their height.
- Tokens that were added to another source, in order of appearance (sources of the first slice,
  then of the last one; inside a source by id), get the ids after the donor's last one. Where the
  donor's matrices are taller than its vocabulary, they fill that padding first.
- A token that has no row in the source it was added to does not count.

Everything here follows from headers and ``tokenizer.json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from auto_merge.checkpoints.checkpoint import Checkpoint
from auto_merge.checkpoints.vocab_compare import incompatibility
from auto_merge.checkpoints.vocabulary import (
    AddedToken,
    Ranges,
    Vocabulary,
    added_token_ids,
    ranges,
)
from auto_merge.errors import RecipeError

Run = tuple[int, int, int]
"""Output row, own row and length of rows that lie side by side in both matrices."""


@dataclass(frozen=True)
class MergedVocabulary:
    """The tokens of a result whose sources number their tokens or pad their matrices differently.

    Attributes:
        donor: Role of the model whose tokens come first.
        added: Tokens after the donor's, with their ids in the result.
        height: Rows of the result's matrices.
        known: Role -> vocabulary of every model that takes part.
    """

    donor: str
    added: tuple[AddedToken, ...]
    height: int
    known: Mapping[str, Vocabulary]

    @cached_property
    def tokens(self) -> Ranges:
        """Rows of the result that belong to a token; the others are padding."""
        own = self.known[self.donor]
        extra = {entry.id for entry in own.added.values()} | {entry.id for entry in self.added}
        found = [*own.ordinary_ranges, *ranges(extra)]
        return tuple((a, min(b, self.height)) for a, b in sorted(found) if a < self.height)

    def runs(self, role: str, height: int) -> tuple[Run, ...]:
        """Returns where the rows of a model's tokens stand in the result, by output row.

        Args:
            role: A model that takes part.
            height: Rows of its matrix; tokens beyond have no row.
        """
        own, donor = self.known[role], self.known[self.donor]
        limit = min(height, self.height)
        found = [(a, a, min(b, limit) - a) for a, b in donor.ordinary_ranges if a < limit]
        for entry in (*donor.added.values(), *self.added):
            row = own.get(entry.content)
            if row is not None and row < height and entry.id < self.height:
                found.append((entry.id, row, 1))
        return _joined(sorted(set(found)))

    def is_unchanged(self, role: str, height: int) -> bool:
        """Whether a model's matrix of this height has the result's rows in the result's order."""
        whole = all(target == row for target, row, _ in self.runs(role, height))
        covered = sum(count for _, _, count in self.runs(role, height))
        return whole and height == self.height and covered == sum(b - a for a, b in self.tokens)


def merge_vocabularies(
    donor: str, roles: Sequence[str], checkpoints: Mapping[str, Checkpoint]
) -> MergedVocabulary | None:
    """Brings the vocabularies of models together.

    Args:
        donor: Role whose tokens come first.
        roles: The models that may add tokens, in order of appearance.
        checkpoints: Role -> opened model.

    Returns:
        ``None`` if all matrices fit as they are.

    Raises:
        RecipeError: The models differ in more than added tokens, or there is no ``tokenizer.json``
            to find the tokens in.
    """
    heights = {role: _height(checkpoints[role]) for role in (donor, *roles)}
    first = checkpoints[donor]
    unlike = [role for role in roles if _differs(donor, role, checkpoints)]
    if not unlike and len(set(heights.values())) == 1:
        return None
    known = {role: _vocabulary(role, checkpoints) for role in heights}
    for role in heights:
        _check_numbers(role, checkpoints)
    added = _added(known[donor], [(known[role], heights[role]) for role in roles])
    rowed = {
        entry.id
        for entry in (*known[donor].added.values(), *added)
        for role, height in heights.items()
        if known[role].get(entry.content, height) < height
    }
    height = max(heights[donor], max(rowed, default=-1) + 1)
    merged = MergedVocabulary(donor, added, height, known)
    _check_gap(merged, first, heights[donor])
    if all(merged.is_unchanged(role, count) for role, count in heights.items()):
        return None
    return merged


def _height(checkpoint: Checkpoint) -> int:
    return checkpoint.tensors[checkpoint.family.embedding].shape[0]


def _differs(donor: str, role: str, checkpoints: Mapping[str, Checkpoint]) -> bool:
    """Whether two models have different tokens; without a vocabulary that cannot be said."""
    first, second = checkpoints[donor], checkpoints[role]
    one, two = _read(first), _read(second)
    if role == donor:
        return False
    if one is None or two is None:
        _check_added_files(donor, role, checkpoints)
        return False
    reason = incompatibility((donor, role), one, two)
    if reason is not None:
        raise RecipeError(reason)
    return first.vocabulary_digest != second.vocabulary_digest


def _check_added_files(donor: str, role: str, checkpoints: Mapping[str, Checkpoint]) -> None:
    """Refuses models without tokenizer.json whose lists of added tokens say that they differ."""
    lists = {name: added_token_ids(checkpoints[name].path) for name in (donor, role)}
    one, two = lists[donor], lists[role]
    differing = [] if one is None or two is None else sorted(one.items() ^ two.items())
    if differing:
        tokens = ", ".join(dict.fromkeys(repr(token) for token, _ in differing[:3]))
        raise RecipeError(
            f"models {donor!r} and {role!r} have different added tokens ({tokens}), and without "
            "tokenizer.json they cannot be aligned; load and save both tokenizers with transformers"
        )


def _read(checkpoint: Checkpoint) -> Vocabulary | None:
    found = checkpoint.vocabulary
    assert found is None or isinstance(found, Vocabulary), "read_vocabulary returns nothing else"
    return found


def _vocabulary(role: str, checkpoints: Mapping[str, Checkpoint]) -> Vocabulary:
    found = _read(checkpoints[role])
    if found is None:
        raise RecipeError(
            f"the models have different vocabularies, and model {role!r} "
            f"({checkpoints[role].path}) has no tokenizer.json to find its tokens in; load and "
            "save its tokenizer with transformers"
        )
    return found


def _check_numbers(role: str, checkpoints: Mapping[str, Checkpoint]) -> None:
    wrong = _vocabulary(role, checkpoints).misnumbered
    if wrong is not None:
        raise RecipeError(
            f"{checkpoints[role].path / 'tokenizer.json'} numbers the added token "
            f"{wrong.content!r} {wrong.id}, but loaders give it another id, so it cannot be "
            "aligned; load and save the tokenizer with transformers"
        )


def _added(donor: Vocabulary, others: Sequence[tuple[Vocabulary, int]]) -> tuple[AddedToken, ...]:
    found: dict[str, AddedToken] = {}
    for vocabulary, height in others:
        for entry in sorted(vocabulary.added.values(), key=lambda entry: entry.id):
            if entry.id < height and entry.content not in donor:
                found.setdefault(entry.content, entry)
    return tuple(
        replace(entry, id=donor.next_id + number) for number, entry in enumerate(found.values())
    )


def _check_gap(merged: MergedVocabulary, donor: Checkpoint, rows: int) -> None:
    """New tokens need ids of their own, and the result no rows that nobody knows."""
    taken = set(merged.known[merged.donor].values())
    twice = next((entry for entry in merged.added if entry.id in taken), None)
    beyond = sum(stop - max(start, rows) for start, stop in merged.tokens if stop > rows)
    if twice is None and beyond == merged.height - rows:
        return
    raise RecipeError(
        f"no tokens can be added to the tokenizer of {donor.path}: it numbers its tokens with "
        f"gaps; its model has {rows} rows, and the next token would get id "
        f"{merged.known[merged.donor].next_id}"
    )


def _joined(runs: Sequence[Run]) -> tuple[Run, ...]:
    """Puts neighbours together that lie side by side in both matrices."""
    found: list[Run] = []
    for target, row, count in runs:
        if found and found[-1][0] + found[-1][2] == target and found[-1][1] + found[-1][2] == row:
            found[-1] = (found[-1][0], found[-1][1], found[-1][2] + count)
        else:
            found.append((target, row, count))
    return tuple(found)
