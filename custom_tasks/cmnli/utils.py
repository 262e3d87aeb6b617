"""Labels of the Chinese inference task: numbers on the hub, words in the original files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

# Positions in the task's list of choices: contradiction, neither, entailment.
CHOICES = {0: 1, 1: 2, 2: 0, "neutral": 1, "entailment": 2, "contradiction": 0}


def labelled(documents: Dataset) -> Dataset:
    """Leaves out pairs on which the annotators did not agree (labels -1 and "-")."""
    return documents.filter(lambda doc: doc["label"] in CHOICES)


def target(doc: Mapping[str, Any]) -> int:
    """Position of the right choice."""
    return CHOICES[doc["label"]]
