"""Documents as token tensors, training batches, and accuracies that need one forward pass each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from auto_merge.zoo.models import VOCABULARY
from auto_merge.zoo.skills import LENGTH, STOP, Skill, Split, letters_of, pool
from auto_merge.zoo.tasks import document_numbers, documents

# A row is: symbol, operand, equals sign, answer, stop, padding.
PROMPT = LENGTH + 2
WIDTH = PROMPT + LENGTH + 1
IGNORED = -100


def encode(skill: Skill, numbers: npt.NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
    """Examples of a skill as padded token rows.

    Args:
        skill: the skill.
        numbers: operand numbers ``[n]``.

    Returns:
        Tokens and labels, both int64 ``[n, WIDTH]``; labels are ``IGNORED`` outside the answer and
        its stop character.
    """
    operands = letters_of(numbers)
    answer = skill.answer(operands)
    end = PROMPT + answer.shape[1]
    tokens = np.full((len(numbers), WIDTH), VOCABULARY["<pad>"], dtype=np.int64)
    tokens[:, 0] = VOCABULARY[skill.symbol]
    tokens[:, 1 : 1 + LENGTH] = operands + VOCABULARY["a"]
    tokens[:, PROMPT - 1] = VOCABULARY["="]
    tokens[:, PROMPT:end] = answer + VOCABULARY["a"]
    tokens[:, end] = VOCABULARY[STOP]
    labels = np.full_like(tokens, IGNORED)
    labels[:, PROMPT : end + 1] = tokens[:, PROMPT : end + 1]
    return torch.from_numpy(tokens), torch.from_numpy(labels)


class Mixture:
    """Endless stream of training batches over several skills.

    Args:
        weights: skill -> share of the examples; the shares sum to 1.
        batch_size: examples per batch.
        generator: draws the skills and the operands.
    """

    def __init__(
        self, weights: Mapping[Skill, float], batch_size: int, generator: np.random.Generator
    ) -> None:
        self._skills = list(weights)
        self._shares = np.array([weights[skill] for skill in self._skills])
        self._pools = [pool(skill, "train") for skill in self._skills]
        self._batch_size = batch_size
        self._generator = generator

    def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and labels of one batch, both int64 ``[batch_size, WIDTH]``."""
        counts = self._generator.multinomial(self._batch_size, self._shares)
        parts = [
            encode(skill, numbers[self._generator.integers(len(numbers), size=count)])
            for skill, numbers, count in zip(self._skills, self._pools, counts, strict=True)
            if count
        ]
        return torch.cat([tokens for tokens, _ in parts]), torch.cat([mask for _, mask in parts])


def logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Next-token logits ``[n, length, vocabulary]`` without gradients."""
    with torch.no_grad():
        result: torch.Tensor = model(tokens, use_cache=False).logits
    return result


def exact_matches(model: Any, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Which examples the model answers right when it decodes greedily.

    A greedy answer is right exactly when, with the right answer as input, every answer token and
    the stop character is the argmax at its place; hence one forward pass and no generation.

    Returns:
        bool ``[n]``.
    """
    guesses = logits(model, tokens[:, :-1]).argmax(-1)
    targets = labels[:, 1:]
    return ((guesses == targets) | (targets == IGNORED)).all(dim=1)


@dataclass(frozen=True)
class Exam:
    """The first documents of a task split, ready to be scored as lm-eval scores them.

    Attributes:
        tokens: int64 ``[n, WIDTH]``, the right answer included.
        labels: int64 ``[n, WIDTH]``, see ``encode``.
        choices: multiple choice: token of each candidate ``[n, CHOICES]``; otherwise None.
        targets: multiple choice: index of the right candidate ``[n]``; otherwise None.
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    choices: torch.Tensor | None
    targets: torch.Tensor | None

    @classmethod
    def of(cls, skill: Skill, split: Split, count: int) -> Exam:
        """The first ``count`` documents of a split."""
        tokens, labels = encode(skill, document_numbers(skill, split)[:count])
        if skill.output_type == "generate_until":
            return cls(tokens, labels, None, None)
        rows = documents(skill, split)[:count]
        candidates = [[VOCABULARY[letter] for letter in row.choices] for row in rows]
        targets = [row.choices.index(row.answer) for row in rows]
        return cls(tokens, labels, torch.tensor(candidates), torch.tensor(targets))

    def correct(self, model: Any) -> torch.Tensor:
        """Which documents the model answers right, bool ``[n]``."""
        if self.choices is None or self.targets is None:
            return exact_matches(model, self.tokens, self.labels)
        last = logits(model, self.tokens[:, :PROMPT])[:, -1]
        return last.gather(1, self.choices).argmax(dim=1).eq(self.targets)

    def accuracy(self, model: Any) -> float:
        """Share of documents answered right, in [0, 1]."""
        return float(self.correct(model).double().mean())
