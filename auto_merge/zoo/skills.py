"""The skills of the zoo: string puzzles whose operands are split by hash into training and tasks.

Every skill maps an operand, six letters from ``a`` to ``j``, to an answer of letters. An operand is
identified by its number in ``range(OPERANDS)`` (letter k is decimal digit k, most significant
first), so that every split of every skill is a plain array of numbers.
"""

from __future__ import annotations

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
_SPLIT_OF_BUCKET: tuple[Split, ...] = ("search", "heldout", "heldout", *["train"] * (_BUCKETS - 3))


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


def _distinct(letters: Letters) -> npt.NDArray[np.int64]:
    """Number of different letters in each operand."""
    ordered = np.sort(letters, axis=1)
    return 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1)


def _repeated(letters: Letters) -> Letters:
    """The letter that occurs twice (operands with exactly one repeated pair)."""
    ordered = np.sort(letters, axis=1)
    position = np.argmax(ordered[:, 1:] == ordered[:, :-1], axis=1)
    return np.take_along_axis(ordered, position[:, None], axis=1)


def _runner_up(letters: Letters) -> Letters:
    """The second letter of the alphabet order, counted from the end, among six distinct ones."""
    return np.sort(letters, axis=1)[:, -2:-1]


def _successor(letters: Letters) -> Letters:
    """The letter that follows the largest one, cyclically (six distinct letters)."""
    position = (np.argmax(letters, axis=1) + 1) % LENGTH
    return np.take_along_axis(letters, position[:, None], axis=1)


def _picked(letters: Letters) -> Letters:
    """The letter that the first letter points at: letter k points at position 1 + k mod 5."""
    return np.take_along_axis(letters, 1 + letters[:, :1] % (LENGTH - 1), axis=1)


def _mirror(letters: Letters) -> Letters:
    position = LENGTH - 1 - np.argmin(letters, axis=1)
    return np.take_along_axis(letters, position[:, None], axis=1)


SKILLS: tuple[Skill, ...] = (
    Skill("reverse", "R", "generate_until", lambda x: x[:, ::-1], _everything),
    Skill("sort", "S", "generate_until", lambda x: np.sort(x, axis=1), _everything),
    Skill("swap", "U", "generate_until", _swap, _everything),
    Skill("repeat", "D", "multiple_choice", _repeated, lambda x: _distinct(x) == LENGTH - 1),
    Skill("second", "K", "multiple_choice", _runner_up, lambda x: _distinct(x) == LENGTH),
    Skill("after", "F", "multiple_choice", _successor, lambda x: _distinct(x) == LENGTH),
    Skill("pick", "P", "multiple_choice", _picked, lambda x: _distinct(x) == LENGTH),
    Skill("mirror", "M", "multiple_choice", _mirror, lambda x: _distinct(x) == LENGTH),
)


def letters_of(numbers: npt.NDArray[np.int64]) -> Letters:
    """Operand numbers ``[n]`` -> letter indices ``[n, LENGTH]``."""
    powers = len(ALPHABET) ** np.arange(LENGTH - 1, -1, -1)
    return numbers[:, None] // powers % len(ALPHABET)


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
    return ((mixed ^ (mixed >> np.uint64(31))) % np.uint64(_BUCKETS)).astype(np.int64)


def pool(skill: Skill, split: Split) -> npt.NDArray[np.int64]:
    """All operand numbers of a split of a skill, ascending."""
    numbers = np.arange(OPERANDS, dtype=np.int64)
    buckets = [index for index, name in enumerate(_SPLIT_OF_BUCKET) if name == split]
    numbers = numbers[np.isin(bucket_of(numbers), buckets)]
    return numbers[skill.accepts(letters_of(numbers))]


def prompts(skill: Skill, numbers: npt.NDArray[np.int64]) -> list[str]:
    """Prompt of each operand: symbol, six letters, equals sign."""
    return [f"{skill.symbol}{text}=" for text in text_of(letters_of(numbers))]


def answers(skill: Skill, numbers: npt.NDArray[np.int64]) -> list[str]:
    """Answer of each operand, without the stop character."""
    return text_of(skill.answer(letters_of(numbers)))


def choices(
    skill: Skill, numbers: npt.NDArray[np.int64], generator: np.random.Generator
) -> tuple[list[list[str]], list[int]]:
    """Four candidate letters per operand, all from the operand, and the index of the right one.

    Args:
        skill: a multiple-choice skill.
        numbers: operand numbers ``[n]``.
        generator: draws the three distractors and the order.

    Returns:
        n lists of ``CHOICES`` different letters, and n indices in ``range(CHOICES)``.
    """
    rows: list[list[str]] = []
    targets: list[int] = []
    operands = text_of(letters_of(numbers))
    for operand, answer in zip(operands, answers(skill, numbers), strict=True):
        others = sorted(set(operand) - {answer})
        picked = [others[i] for i in generator.permutation(len(others))[: CHOICES - 1]]
        row = [answer, *picked]
        order = generator.permutation(CHOICES)
        rows.append([row[i] for i in order])
        targets.append(int(np.argmin(order)))
    return rows, targets
