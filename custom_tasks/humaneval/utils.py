"""Prompt and program of a document of HumanEval."""

from __future__ import annotations

from typing import Any

from auto_merge.evaluation.sandbox import Program
from auto_merge.evaluation.sandbox_answers import extract_code


def prompt(document: dict[str, Any]) -> str:
    return (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n\n### Instruction:\nCreate a Python script for this problem:\n"
        + document["prompt"].replace("    ", "\t")
        + "\n\n### Response:"
    )


def tests(document: dict[str, Any]) -> str:
    return f"{document['test']}\ncheck({document['entry_point']})\n"


def build_predictions(
    responses: list[list[str]], documents: list[dict[str, Any]]
) -> list[list[str]]:
    """The stub, then the code: a function of the same name replaces it, a body completes it."""
    return [
        [document["prompt"].rstrip() + "\n" + extract_code(answer) for answer in answers]
        for answers, document in zip(responses, documents, strict=True)
    ]


def continue_prompts(
    responses: list[list[str]], documents: list[dict[str, Any]]
) -> list[list[str]]:
    """The stub and what follows it, as they are."""
    return [
        [document["prompt"] + answer for answer in answers]
        for answers, document in zip(responses, documents, strict=True)
    ]


def pass_at_1(document: dict[str, Any], results: list[list[str]]) -> dict[str, Program]:
    [[prediction]] = results
    return {"pass_at_1": Program(f"{prediction}\n\n{tests(document)}")}
