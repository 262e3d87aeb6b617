"""Writes the skills as lm-eval tasks: one YAML and two JSONL files each.

``python -m auto_merge.zoo.tasks custom_tasks/zoo`` reproduces the shipped folder byte for byte.
"""

from __future__ import annotations

import argparse
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from auto_merge.zoo.skills import (
    LENGTH,
    SKILLS,
    STOP,
    Skill,
    Split,
    answers,
    choices,
    pool,
    prompts,
)

DOCUMENTS: dict[Split, int] = {"search": 600, "heldout": 1500}

_HEAD = """\
task: zoo_{name}
dataset_path: json
dataset_kwargs:
  data_files:
    search: zoo_{name}_search.jsonl
    heldout: zoo_{name}_heldout.jsonl
test_split: search
validation_split: heldout
num_fewshot: 0
doc_to_text: "{{{{question}}}}"
target_delimiter: ""
output_type: {output_type}
"""

_GENERATE = f"""\
doc_to_target: "{{{{answer}}}}"
generation_kwargs:
  until: ["{STOP}"]
  do_sample: false
  max_gen_toks: {LENGTH + 1}
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""

_CHOOSE = """\
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""

_TAIL = """\
metadata:
  version: 1.0
"""


@dataclass(frozen=True)
class Document:
    """One row of a task file.

    Attributes:
        question: the prompt.
        answer: the right answer, without the stop character.
        choices: multiple choice: the candidates, the right one among them; otherwise empty.
    """

    question: str
    answer: str
    choices: tuple[str, ...]

    def as_json(self) -> str:
        """One JSON line; under multiple choice ``answer`` is the index of the right candidate."""
        row: dict[str, object] = {"question": self.question, "answer": self.answer}
        if self.choices:
            row.update(choices=self.choices, answer=self.choices.index(self.answer))
        return json.dumps(row, separators=(",", ":")) + "\n"


def _generator(skill: Skill, split: Split) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(f"{skill.name} {split}".encode()))


def document_numbers(skill: Skill, split: Split) -> npt.NDArray[np.int64]:
    """Operand numbers of the documents of a task split, without repeats, in file order."""
    return _generator(skill, split).permutation(pool(skill, split))[: DOCUMENTS[split]]


def documents(skill: Skill, split: Split) -> list[Document]:
    """The documents of a task split, in file order."""
    numbers = document_numbers(skill, split)
    texts = answers(skill, numbers)
    candidates: list[tuple[str, ...]] = [()] * len(numbers)
    if skill.output_type == "multiple_choice":
        candidates = choices(skill, numbers, _generator(skill, split))
    return [Document(*row) for row in zip(prompts(skill, numbers), texts, candidates, strict=True)]


def task_yaml(skill: Skill) -> str:
    """Text of the task's YAML file."""
    body = _GENERATE if skill.output_type == "generate_until" else _CHOOSE
    return _HEAD.format(name=skill.name, output_type=skill.output_type) + body + _TAIL


def write(folder: Path) -> None:
    """Write the task files of every skill into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for skill in SKILLS:
        (folder / f"zoo_{skill.name}.yaml").write_text(task_yaml(skill), encoding="utf-8")
        for split in DOCUMENTS:
            lines = [document.as_json() for document in documents(skill, split)]
            file = folder / f"zoo_{skill.name}_{split}.jsonl"
            file.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the task files go")
    write(parser.parse_args().folder)
