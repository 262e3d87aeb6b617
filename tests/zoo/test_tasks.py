"""The shipped task files: well-formed, complete, and exactly what the writer writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from auto_merge.zoo import tasks
from auto_merge.zoo.skills import SKILLS, Skill

FOLDER = Path(__file__).parents[2] / "custom_tasks" / "zoo"
SKILL = pytest.mark.parametrize("skill", SKILLS, ids=lambda skill: skill.name)


def test_shipped_files_are_what_the_writer_writes(tmp_path: Path) -> None:
    tasks.write(tmp_path)
    written = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    shipped = {file.name: file.read_bytes() for file in FOLDER.iterdir() if file.is_file()}
    assert shipped == written
    assert sum(map(len, shipped.values())) < 1_000_000


@SKILL
def test_yaml_names_local_splits_and_the_metric(skill: Skill) -> None:
    settings = yaml.safe_load((FOLDER / f"zoo_{skill.name}.yaml").read_text(encoding="utf-8"))
    assert settings["task"] == f"zoo_{skill.name}"
    assert settings["dataset_path"] == "json"
    assert settings["test_split"] == "search"
    assert settings["validation_split"] == "heldout"
    assert settings["num_fewshot"] == 0
    assert settings["metadata"] == {"version": 1.0}
    for split, name in settings["dataset_kwargs"]["data_files"].items():
        assert name == f"zoo_{skill.name}_{split}.jsonl"
        assert (FOLDER / name).is_file()
    metric = {"generate_until": "exact_match", "multiple_choice": "acc"}[skill.output_type]
    assert [entry["metric"] for entry in settings["metric_list"]] == [metric]


@SKILL
@pytest.mark.parametrize(("split", "count"), [("search", 600), ("heldout", 1500)])
def test_documents_are_well_formed_and_distinct(skill: Skill, split: str, count: int) -> None:
    lines = (FOLDER / f"zoo_{skill.name}_{split}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == len({row["question"] for row in rows}) == count
    for row in rows:
        assert len(row["question"]) == 8
        assert row["question"][0] == skill.symbol
        assert row["question"][-1] == "="
        if skill.output_type == "generate_until":
            assert sorted(row) == ["answer", "question"]
            assert len(row["answer"]) == 6
        else:
            assert sorted(row) == ["answer", "choices", "question"]
            assert 0 <= row["answer"] < len(row["choices"]) == 4
