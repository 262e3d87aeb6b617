"""Prompt, few-shot answer and program of a document of MBPP."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auto_merge.evaluation.sandbox import Program
from auto_merge.evaluation.sandbox_answers import extract_code

if TYPE_CHECKING:
    from datasets import Dataset

# Tasks 1 to 10 are the data set's examples for prompts, which are never scored; some files of
# documents hold them too.
_PROMPT_TASKS = range(1, 11)
# The tests of this task fill a page; the signature says what they would.
_SIGNATURES = {493: "calculate_polygons(startx, starty, endx, endy, radius)"}


def scored(documents: Dataset) -> Dataset:
    return documents.filter(
        lambda document: document.get("task_id") not in _PROMPT_TASKS, load_from_cache_file=False
    )


def examples() -> list[dict[str, Any]]:
    """Our own, so that no document can be among them wherever the documents come from."""
    file = Path(__file__).with_name("examples.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def prompt(document: dict[str, Any]) -> str:
    signature = _SIGNATURES.get(document.get("task_id"))
    examples = [signature] if signature else document["test_list"]
    problem = "\n".join(["", document["text"], "Test examples:", *examples])
    return (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n\n### Instruction:\nCreate a Python script for this problem:\n"
        + problem.replace("    ", "\t")
        + "\n\n### Response:"
    )


def solution(document: dict[str, Any]) -> str:
    return document["code"].replace("\r\n", "\n").rstrip() + "\n[DONE]"


def pass_at_1(document: dict[str, Any], results: list[str]) -> dict[str, Program]:
    code = textwrap.dedent(extract_code(results[0], cut_at=["# Test examples"]))
    parts = [code, document.get("test_setup_code") or "", *document["test_list"]]
    return {"pass_at_1": Program("\n".join(parts) + "\n")}
