"""Write the documents of the four lm-eval tasks: 300 to search on and 400 held out for each.

The files are small and kept in version control; running this again writes the same bytes.

    python examples/smollm2/make_tasks.py [--output DIR]
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import islice
from pathlib import Path

from facts import facts
from skills import SKILLS, documents

HERE = Path(__file__).resolve().parent
SIZES = {"search": 300, "heldout": 400}
SEED = 1  # training streams use 0; the splits are disjoint whatever the seeds


def skill_rows(skill: str, split: str) -> list[dict[str, object]]:
    """Rows of one skill: `prompt` and the text `answer`, or `choices` and the index `answer`."""
    rows: list[dict[str, object]] = []
    for document in islice(documents(skill, split, SEED), SIZES[split]):
        if document.choices:
            index = document.choices.index(document.answer)
            rows.append({"prompt": document.prompt, "choices": document.choices, "answer": index})
        else:
            rows.append({"prompt": document.prompt, "answer": document.answer})
    return rows


def fact_rows(split: str) -> list[dict[str, object]]:
    """Rows of the common-knowledge task; the facts of the two splits are different facts."""
    found = facts(SEED)
    start = 0 if split == "search" else SIZES["search"]
    return [
        {"prompt": fact.prompt, "choices": fact.choices, "answer": fact.choices.index(fact.answer)}
        for fact in found[start : start + SIZES[split]]
    ]


def write(folder: Path) -> list[Path]:
    """Write one JSONL file per task and split into `folder`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for task in [*SKILLS, "facts"]:
        for split in SIZES:
            rows = fact_rows(split) if task == "facts" else skill_rows(task, split)
            path = folder / f"{task}_{split}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            written.append(path)
    return written


def main(arguments: list[str] | None = None) -> int:
    """Command line; always returns 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=HERE / "tasks")
    options = parser.parse_args(arguments)
    for path in write(options.output):
        sys.stderr.write(f"make_tasks: {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
