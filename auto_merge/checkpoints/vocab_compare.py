"""Whether two vocabularies differ in added tokens only, so that rows can be aligned. No torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import islice

from auto_merge.checkpoints.folder import read_json
from auto_merge.checkpoints.vocabulary import TOKENIZER, Vocabulary, read_rules

_SHOWN = 3


def incompatibility(names: tuple[str, str], first: Vocabulary, second: Vocabulary) -> str | None:
    """Says in one line why the rows of two models cannot be brought together, if so.

    Added tokens are found by their string and may differ in any way. A token that is ordinary in
    one model and added in the other must have the same id in both and not be special: special
    tokens never come from text, so their rows mean something else.

    Args:
        names: What to call the two.
        first: Vocabulary of the first model.
        second: Vocabulary of the second model.

    Returns:
        The reason, ``None`` if there is none.
    """
    if first.ordinary_digest == second.ordinary_digest:
        return None
    reason = (
        _kinds(names, first, second)
        or _moved(names, first, second)
        or _meanings(names, first, second)
        or _one_sided(names, first, second)
        or _rules(names, first, second)
    )
    if reason is None:
        return None
    return f"{reason}; only added tokens can be aligned, so only one of the two can take part"


def _kinds(names: tuple[str, str], first: Vocabulary, second: Vocabulary) -> str | None:
    if first.kind == second.kind or not (first.kind and second.kind):
        return None
    return (
        f"models {names[0]!r} and {names[1]!r} have tokenizers of different types, "
        f"{first.kind} and {second.kind}"
    )


def _moved(names: tuple[str, str], first: Vocabulary, second: Vocabulary) -> str | None:
    """Tokens of both that are ordinary in at least one of them and have two ids."""
    moved = {
        token: number
        for token, number in first.items()
        if second.get(token, number) != number
        and not (token in first.added and token in second.added)
    }
    if not moved:
        return None
    return (
        f"models {names[0]!r} and {names[1]!r} have different vocabularies: {len(moved)} tokens "
        f"have different ids, the first are {_first(moved)}"
    )


def _meanings(names: tuple[str, str], first: Vocabulary, second: Vocabulary) -> str | None:
    for (special, ordinary), (one, other) in (
        (names, (first, second)),
        (names[::-1], (second, first)),
    ):
        found = {
            token: entry.id
            for token, entry in one.added.items()
            if entry.special and token in other.ordinary
        }
        if found:
            return (
                f"{_count(found)} special in model {special!r} and ordinary text in "
                f"{ordinary!r}: {_first(found)}"
            )
    return None


def _one_sided(names: tuple[str, str], first: Vocabulary, second: Vocabulary) -> str | None:
    for (owner, other), (one, two) in ((names, (first, second)), (names[::-1], (second, first))):
        found = {token: number for token, number in one.ordinary.items() if token not in two}
        if found:
            return (
                f"models {names[0]!r} and {names[1]!r} have different vocabularies: "
                f"{_count(found)} ordinary in {owner!r} and missing in {other!r}, "
                f"the first are {_first(found)}"
            )
    return None


def _rules(names: tuple[str, str], first: Vocabulary, second: Vocabulary) -> str | None:
    if first.rules_digest == second.rules_digest:
        return None
    one, two = (set(_rules_of(vocabulary)) for vocabulary in (first, second))
    differing = sorted(one ^ two)
    shown = ", ".join(repr(rule) for rule in differing[:_SHOWN])
    return (
        f"models {names[0]!r} and {names[1]!r} cut text into tokens differently: "
        f"{len(differing)} merges or scores are only in one of them, as {shown}"
    )


def _rules_of(vocabulary: Vocabulary) -> list[str]:
    return read_rules(read_json(vocabulary.folder / TOKENIZER)["model"])


def _first(tokens: Mapping[str, int]) -> str:
    found = sorted(tokens, key=lambda token: (tokens[token], token))
    return ", ".join(repr(token) for token in islice(found, _SHOWN))


def _count(tokens: Collection[str]) -> str:
    return "1 token is" if len(tokens) == 1 else f"{len(tokens)} tokens are"
