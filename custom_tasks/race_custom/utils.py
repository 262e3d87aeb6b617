"""Prompts of the reading comprehension task."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

# Some questions are sentences with a gap at their end.
GAP = "  _  ."


def problems(doc: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The questions on an article; on the hub they are the text of a Python list."""
    value = doc["problems"]
    found: list[dict[str, Any]] = ast.literal_eval(value) if isinstance(value, str) else value
    return found


def answer_index(problem: Mapping[str, Any]) -> int:
    """Position of the right option, from its letter."""
    return "ABCD".index(problem["answer"])


def solved(problem: Mapping[str, Any]) -> str:
    """An answered question, as it stands before the last one."""
    question, answer = problem["question"], problem["options"][answer_index(problem)]
    if question.endswith(GAP):
        return f"{question.removesuffix(GAP[1:])}{answer}\n"
    return f"Question: {question}\nAnswer: {answer}\n"


def prompt(doc: Mapping[str, Any]) -> str:
    """The article, its answered questions, and the last question."""
    *others, last = problems(doc)
    answered = "".join(solved(problem) for problem in others)
    return f"Article: {doc['article']}\n\n{answered}{last['question']}"


def choices(doc: Mapping[str, Any]) -> list[str]:
    """The four options of the last question."""
    return list(problems(doc)[-1]["options"])


def target(doc: Mapping[str, Any]) -> int:
    """Position of the right option."""
    return answer_index(problems(doc)[-1])
