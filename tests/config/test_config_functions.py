"""Task entries that are Python functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from auto_merge.config import load_config
from auto_merge.config.evaluation import TaskFunction
from auto_merge.config.loading import load_resolved
from auto_merge.errors import ConfigError

ENTRY = {"task": "mine", "metric": "score,none", "bounds": [0, 1], "function": "score.py:score"}


def write(folder: Path, **entry: Any) -> Path:
    file = folder / "sub/x.yaml"
    file.parent.mkdir()
    data = {
        "strategy": "normal_models",
        "global_params": {"evaluation": {"tasks": [{**ENTRY, **entry}]}},
        "strategies": {"normal_models": {"models": ["./a"], "merging_method": {"linear": {}}}},
    }
    file.write_text(yaml.safe_dump(data))
    return file


def test_files_are_found_beside_the_configuration(tmp_path: Path) -> None:
    file = write(tmp_path, documents="docs.jsonl", metadata={"stratum": "kind"})
    config = load_config(file)
    folder = tmp_path / "sub"
    expected = TaskFunction(
        folder / "score.py", "score", folder / "docs.jsonl", None, {"stratum": "kind"}
    )
    assert config.functions == (expected,)
    again = load_resolved(config.resolved(), tmp_path)
    assert again.functions == config.functions
    assert not config.allow_code_execution


def test_an_ordinary_task_has_none(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, function=None)).functions == (None,)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "a Python objective needs documents"),
        ({"function": "score.py", "documents": "d"}, "must be FILE.py:NAME, got 'score.py'"),
        ({"function": None, "documents": "d"}, "documents belongs to a Python objective"),
        ({"documents": "d", "num_fewshot": 3}, "'num_fewshot' is a setting of lm-eval tasks"),
        ({"documents": "d", "bounds": None}, "the range of metric 'score,none' is not known"),
    ],
)
def test_mistakes(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, **entry))
