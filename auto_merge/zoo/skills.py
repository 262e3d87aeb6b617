"""The skills of the zoo: string puzzles whose operands are split by hash into training and tasks.

Every skill maps an operand, six letters from ``a`` to ``j``, to an answer of letters. An operand is
identified by its number in ``range(OPERANDS)`` (letter k is decimal digit k, most significant
first), so that every split of every skill is a plain array of numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Letters = npt.NDArray[np.int64]
Split = Literal["train", "search", "heldout"]

ALPHABET = "abcdefghij"
LENGTH = 6
OPERANDS = len(ALPHABET) ** LENGTH
STOP = ";"
CHOICES = 4

# Sixteen buckets: one for search documents, two for held-out documents, the rest for training.
_BUCKETS = 16
_BUCKETS_OF_SPLIT: dict[Split, tuple[int, ...]] = {
    "search": (0,),
    "heldout": (1, 2),
    "train": tuple(range(3, _BUCKETS)),
}


@dataclass(frozen=True)
class Skill:
    """One skill.

    Attributes:
        name: lower-case word; names the specialist and, as ``zoo_<name>``, the task.
        symbol: the capital letter that opens every prompt of the skill.
        output_type: how lm-eval asks for it.
        answer: operands ``[n, LENGTH]`` -> answers ``[n, k]``, both letter indices in
            ``range(len(ALPHABET))``; k is 1 for multiple choice.
        accepts: operands ``[n, LENGTH]`` -> bool ``[n]``, the operands that have an answer.
    """

    name: str
    symbol: str
    output_type: Literal["generate_until", "multiple_choice"]
    answer: Callable[[Letters], Letters]
    accepts: Callable[[Letters], npt.NDArray[np.bool_]]


def _everything(letters: Letters) -> npt.NDArray[np.bool_]:
    return np.ones(len(letters), dtype=np.bool_)


def _swap(letters: Letters) -> Letters:
    return letters[:, [1, 0, 3, 2, 5, 4]]


def _all_different(letters: Letters) -> npt.NDArray[np.bool_]:
    ordered = np.sort(letters, axis=1)
    different: npt.NDArray[np.bool_] = (ordered[:, 1:] != ordered[:, :-1]).all(axis=1)
    return different


def _successor(letters: Letters) -> Letters:
    """The letter that follows the largest one, cyclically (six distinct letters)."""
    position = (np.argmax(letters, axis=1) + 1) % LENGTH
    return np.take_along_axis(letters, position[:, None], axis=1)


def _predecessor(letters: Letters) -> Letters:
    """The letter that precedes the smallest one, cyclically (six distinct letters)."""
    position = (np.argmin(letters, axis=1) - 1) % LENGTH
    return np.take_along_axis(letters, position[:, None], axis=1)


SKILLS: tuple[Skill, ...] = (
    Skill("reverse", "R", "generate_until", lambda x: x[:, ::-1], _everything),
    Skill("sort", "S", "generate_until", lambda x: np.sort(x, axis=1), _everything),
    Skill("swap", "U", "generate_until", _swap, _everything),
    Skill("after", "F", "multiple_choice", _successor, _all_different),
    Skill("before", "B", "multiple_choice", _predecessor, _all_different),
)


def letters_of(numbers: npt.NDArray[np.int64]) -> Letters:
    """Operand numbers ``[n]`` -> letter indices ``[n, LENGTH]``."""
    powers = len(ALPHABET) ** np.arange(LENGTH - 1, -1, -1)
    letters: Letters = numbers[:, None] // powers % len(ALPHABET)
    return letters


def text_of(letters: Letters) -> list[str]:
    """Letter indices ``[n, k]`` -> n strings of k letters."""
    return ["".join(ALPHABET[index] for index in row) for row in letters]


def bucket_of(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Hash of operand numbers ``[n]`` into ``range(16)`` (finaliser of splitmix64).

    The bucket does not depend on the skill: a string seen in training under one skill is never a
    document of another.
    """
    mixed = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    buckets: npt.NDArray[np.uint64] = (mixed ^ (mixed >> np.uint64(31))) % np.uint64(_BUCKETS)
    return buckets.astype(np.int64)


@functools.cache
def pool(skill: Skill, split: Split) -> npt.NDArray[np.int64]:
    """All operand numbers of a split of a skill, ascending; read-only, computed once."""
    numbers = np.arange(OPERANDS, dtype=np.int64)
    numbers = numbers[np.isin(bucket_of(numbers), _BUCKETS_OF_SPLIT[split])]
    numbers = numbers[skill.accepts(letters_of(numbers))]
    numbers.flags.writeable = False
    return numbers


def prompts(skill: Skill, numbers: npt.NDArray[np.int64]) -> list[str]:
    """Prompt of each operand: symbol, six letters, equals sign."""
    return [f"{skill.symbol}{text}=" for text in text_of(letters_of(numbers))]


def answers(skill: Skill, numbers: npt.NDArray[np.int64]) -> list[str]:
    """Answer of each operand, without the stop character."""
    return text_of(skill.answer(letters_of(numbers)))


def choices(
    skill: Skill, numbers: npt.NDArray[np.int64], generator: np.random.Generator
) -> list[tuple[str, ...]]:
    """Candidate answers of a multiple-choice skill: the right letter and three of the operand.

    Args:
        skill: a multiple-choice skill.
        numbers: operand numbers ``[n]``.
        generator: draws the three distractors and the order.

    Returns:
        n tuples of ``CHOICES`` different letters.
    """
    rows: list[tuple[str, ...]] = []
    operands = text_of(letters_of(numbers))
    for operand, answer in zip(operands, answers(skill, numbers), strict=True):
        others = generator.permutation(sorted(set(operand) - {answer}))[: CHOICES - 1]
        rows.append(tuple(str(letter) for letter in generator.permutation([answer, *others])))
    return rows
