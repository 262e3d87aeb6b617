"""Prompts and targets of the Japanese word problems."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from auto_merge.evaluation.filters import INVALID, get_answer_ja, number_or_text

QUESTION = "問題："
ANSWER = "ステップごとの答え："


def prompt(doc: Mapping[str, Any]) -> str:
    """The question; some data sets write the word for it themselves."""
    return f"{QUESTION}{doc['question'].removeprefix(QUESTION)}\n{ANSWER}"


def worked_answer(doc: Mapping[str, Any]) -> str:
    """The solution of an example, which ends with its number."""
    return str(doc["answer"]).removeprefix(ANSWER)


def target(doc: Mapping[str, Any]) -> str:
    """The number: ``answer_number``, or where a solution says it."""
    if doc.get("answer_number") is not None:
        return number_or_text(doc["answer_number"])
    announced = get_answer_ja(doc["answer"])
    return number_or_text(doc["answer"]) if announced == INVALID else announced


def examples() -> list[dict[str, Any]]:
    """The worked examples beside this file."""
    file = Path(__file__).with_name("examples.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
