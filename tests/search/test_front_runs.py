"""Searches with several objectives, and searches that start from an earlier one's history."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoModelForCausalLM
from world import configuration, make_world

from auto_merge.cli import run_command
from auto_merge.runs import reader
from auto_merge.runs.store import RunStore
from auto_merge.runs.view import RunView
from auto_merge.trial import objective_costs


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTO_MERGE_CACHE", str(folder / "cache"))
        yield folder


def search(folder: Path, name: str, data: dict[str, Any], *words: str) -> int:
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(data))
    return run_command(["--config", str(file), "--output", str(folder / name), "--quiet", *words])


def view(folder: Path) -> RunView:
    return reader.view(RunStore(folder))


@pytest.fixture(scope="module")
def finished(world: Path) -> Path:
    """A run with a front and a floor."""
    data = configuration("random", "lfs_multiobj", max_trials=20)
    tasks = data["global_params"]["evaluation"]["tasks"]
    tasks[0]["floor"] = {"model": "left", "margin": 0.9}
    assert search(world, "front", data) == 0
    return world


def test_the_result_is_a_front(finished: Path) -> None:
    seen = view(finished / "front")
    assert seen.multi_objective
    assert seen.final is not None
    assert seen.final.front is not None
    members = seen.final.front.members
    assert members[0].trial == seen.final.trial
    searched = [seen.trials[one.trial.index].outcome for one in members]
    assert all(outcome is not None and outcome.scores for outcome in searched)
    costs = [objective_costs(seen.objectives, one.row.scores) for one in members]
    assert len(costs) == len({one.trial.config_id for one in members})
    assert [floor.verdict for floor in seen.final.floors] == ["kept"]
    assert seen.reference is not None
    assert "<html" in (finished / "front/report.html").read_text("utf-8")


def test_every_member_can_be_exported(finished: Path, tmp_path: Path) -> None:
    seen = view(finished / "front")
    assert seen.final is not None
    assert seen.final.front is not None
    out = tmp_path / "members"
    words = ["export", str(finished / "front"), str(out), "--trial", "pareto", "--quiet"]
    assert run_command(words) == 0
    folders = sorted(out.iterdir())
    assert len(folders) == len(seen.final.front.members)
    for folder in folders:
        AutoModelForCausalLM.from_pretrained(folder)
        assert (folder / "recipe.yaml").is_file()
    assert run_command(words) == 2  # nothing is overwritten


def test_going_on_gives_the_same_front(finished: Path) -> None:
    data = configuration("random", "lfs_multiobj", max_trials=7)
    tasks = data["global_params"]["evaluation"]["tasks"]
    tasks[0]["floor"] = {"model": "left", "margin": 0.9}
    assert search(finished, "front_parts", data) == 0
    assert search(finished, "front_parts", data, "--set", "search.max_trials=20") == 0
    whole, parts = view(finished / "front"), view(finished / "front_parts")
    assert [row.trial for row in whole.trials] == [row.trial for row in parts.trials]
    assert whole.final is not None
    assert parts.final is not None
    assert whole.final.front == parts.final.front


def test_one_objective_has_no_front_to_export(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = configuration("random", "lfs_multiobj", max_trials=5)
    data["global_params"]["evaluation"]["tasks"].pop()
    assert search(world, "single", data) == 0
    assert not view(world / "single").multi_objective
    words = ["export", str(world / "single"), str(world / "x"), "--trial", "pareto"]
    assert run_command(words) == 2
    assert "single objective" in capsys.readouterr().err


def history_of(folder: Path, target: Path) -> None:
    """A finished run, written down as SMAC would have."""
    rows, configs = [], {}
    for row in view(folder).trials:
        assert row.outcome is not None
        config = str(row.trial.config_id + 1)
        configs[config] = dict(row.trial.configuration)
        entry = {"config_id": int(config), "instance": None, "seed": 0, "time": 1.0, "status": 1}
        rows.append({**entry, "budget": float(row.trial.fidelity), "cost": row.outcome.cost})
    target.write_text(json.dumps({"stats": {}, "data": rows, "configs": configs}))


def test_a_warm_start_changes_proposals_and_nothing_else(world: Path) -> None:
    data = configuration("random", max_trials=14)
    assert search(world, "cold", data) == 0
    history_of(world / "cold", world / "runhistory.json")
    data["global_params"]["load_run_history"] = "runhistory.json"
    for name in ("warm", "again"):
        assert search(world, name, data) == 0
    cold, warm, again = (view(world / name) for name in ("cold", "warm", "again"))
    assert [row.trial for row in warm.trials] == [row.trial for row in again.trials]

    def found(seen: RunView, origin: str) -> dict[int, Any]:
        rows = [row.trial for row in seen.trials if row.trial.origin.startswith(origin)]
        return {trial.config_id: trial.configuration for trial in rows}

    assert found(cold, "initial") == found(warm, "initial")
    known, proposed = found(cold, "random").values(), found(warm, "random").values()
    assert proposed
    assert not [values for values in proposed if values in known]
    assert len(warm.trials) == 14


def test_another_history_is_another_run(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = configuration("random", max_trials=5)
    (world / "history.json").write_text('{"data": [], "configs": {}}')
    data["global_params"]["load_run_history"] = "history.json"
    assert search(world, "history", data) == 0
    (world / "history.json").write_text('{"data": [], "configs": {}, "stats": {}}')
    assert search(world, "history", data) == 2
    assert "load_run_history" in capsys.readouterr().err
    data["global_params"]["load_run_history"] = "nowhere.json"
    assert search(world, "nowhere", data) == 2
    assert "nowhere.json: No such file" in capsys.readouterr().err
    assert not (world / "nowhere").exists()
    (world / "bad.json").write_text("{}")
    data["global_params"]["load_run_history"] = "bad.json"
    for words in ([], ["--dry-run"]):
        assert search(world, "bad", data, *words) == 2
        assert "bad.json: not a run history" in capsys.readouterr().err
    assert not (world / "bad").exists()
