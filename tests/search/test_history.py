"""SMAC's run histories as a warm start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from auto_merge.errors import RecipeError, RunError
from auto_merge.search.history import Remembered, check_legal, read_run_history
from auto_merge.strategies.lfs import LayerwiseFusion
from auto_merge.strategies.lfs_settings import LfsSettings
from auto_merge.trial import FAILURE_COST, Objective, Status

STRATEGY = LayerwiseFusion(
    LfsSettings(
        ("a", "b"), None, 2, 2, (), {"linear": {"weights": (0.0, 1.0)}}, per_source_weights=False
    )
)
NAME = "model_{}_layer_0_paramset_base_method_linear_param_weights"


def values(a: float, b: float) -> dict[str, Any]:
    return {"layer_selection_method_0": "linear", NAME.format("a"): a, NAME.format("b"): b}


def entry(config: int, budget: Any, cost: Any, status: int = 1) -> dict[str, Any]:
    keys = {"config_id": config, "instance": None, "seed": 0, "budget": budget, "cost": cost}
    return {**keys, "time": 1.0, "cpu_time": 1.0, "status": status, "additional_info": {}}


def written(folder: Path, rows: list[Any], **configs: dict[str, Any]) -> Path:
    file = folder / "runhistory.json"
    known = {name.removeprefix("c"): value for name, value in configs.items()}
    file.write_text(json.dumps({"stats": {}, "data": rows, "configs": known}))
    return file


def test_the_highest_budget_of_each_configuration_counts(tmp_path: Path) -> None:
    rows = [
        entry(1, 111.1, 0.4),
        entry(2, 111.1, 0.3),
        entry(1, 333.3, 0.5),
        entry(2, 1000.0, 0.2, status=0),
        entry(3, 111.1, 0.1, status=2),
    ]
    file = written(tmp_path, rows, c1=values(1, 0), c2=values(0, 1), c3=values(0.5, 0.5))
    assert read_run_history(file, STRATEGY, (1,)) == (
        Remembered(values(1.0, 0.0), (0.5,), 333, Status.SUCCESS),
        Remembered(values(0.0, 1.0), (0.3,), 111, Status.SUCCESS),
        Remembered(values(0.5, 0.5), (FAILURE_COST,), 111, Status.CRASHED),
    )


@pytest.mark.parametrize("extra", [[], [1.0]], ids=["2.0", "2.3"])
def test_entries_as_lists(tmp_path: Path, extra: list[float]) -> None:
    row = [1, None, 0, 100.0, [0.4, 0.6], 1.0, *extra, 1, 0.0, 0.0, {}]
    file = written(tmp_path, [row], c1=values(1, 0))
    (found,) = read_run_history(file, STRATEGY, (2,))
    assert found == Remembered(values(1.0, 0.0), (0.4, 0.6), 100, Status.SUCCESS)


def test_what_smac_writes_can_be_read(tmp_path: Path) -> None:
    smac = pytest.importorskip("smac.runhistory.runhistory")
    config_space = pytest.importorskip("ConfigSpace")
    status = pytest.importorskip("smac.runhistory.enumerations").StatusType
    space = STRATEGY.space()
    history = smac.RunHistory()
    configuration = config_space.Configuration(space, values=values(0.25, 0.75))
    history.add(configuration, cost=0.25, time=1.0, status=status.SUCCESS, seed=0, budget=100.0)
    history.save(tmp_path / "runhistory.json")
    (found,) = read_run_history(tmp_path / "runhistory.json", STRATEGY, (1,))
    assert found == Remembered(values(0.25, 0.75), (0.25,), 100, Status.SUCCESS)


def test_an_infinite_cost_is_a_failure(tmp_path: Path) -> None:
    file = written(tmp_path, [entry(1, 10, float("inf"))], c1=values(1, 0))
    (found,) = read_run_history(file, STRATEGY, (1,))
    assert (found.costs, found.status) == ((FAILURE_COST,), Status.CRASHED)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (entry(7, 10, 0.5), r"data\[0\]: no configuration 7"),
        (entry(1, None, 0.5), r"needs a budget .* above 0, got None"),
        (entry(1, 10, [0.1, 0.2]), r"has 2 costs; this search needs 1"),
        (entry(1, 10, "low"), r"costs must be numbers"),
        (entry(1, 10, 0.5, status=9), r"unknown status 9"),
        ([1, 2], r"not an entry of a run history"),
        ("x", r"not an entry of a run history"),
    ],
)
def test_mistakes_name_the_entry(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(RunError, match=message):
        read_run_history(written(tmp_path, [row], c1=values(1, 0)), STRATEGY, (1,))


def test_a_foreign_configuration_is_refused_by_key(tmp_path: Path) -> None:
    file = written(tmp_path, [entry(1, 10, 0.5)], c1={"learning_rate": 0.1})
    with pytest.raises(RecipeError, match=r"runhistory\.json: .*'learning_rate'"):
        read_run_history(file, STRATEGY, (1,))


def test_what_an_optimizer_learns() -> None:
    two = [Objective("a", "acc,none"), Objective("b", "acc,none", weight=3.0)]
    known = Remembered(values(1.0, 0.0), (0.4, 0.8), 100, Status.SUCCESS)
    seen = known.observation(-1, two, multi_objective=True)
    assert (seen.cost, seen.costs, seen.fidelity) == (pytest.approx(0.7), (0.4, 0.8), 100)
    assert known.observation(-1, two, multi_objective=False).costs == ()
    single = Remembered(values(1.0, 0.0), (0.5,), 100, Status.SUCCESS)
    assert single.observation(-2, two, multi_objective=True).costs == (0.5, 0.5)
    failed = Remembered(values(1.0, 0.0), (FAILURE_COST,), 100, Status.TIMEOUT)
    assert failed.observation(-3, two, multi_objective=True).cost == FAILURE_COST


def test_values_beyond_the_range_are_refused(tmp_path: Path) -> None:
    known = Remembered(values(7.0, 0.0), (0.5,), 100, Status.SUCCESS)
    with pytest.raises(RecipeError, match="does not fit the search space"):
        check_legal(known, STRATEGY.space(), tmp_path / "x.json")
    check_legal(Remembered(values(1.0, 0.0), (0.5,), 1, Status.SUCCESS), STRATEGY.space(), tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"data": 3}', '{"data": [], "configs": []}'])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(RunError, match=r"not JSON|not a run history"):
        read_run_history(tmp_path / "x.json", STRATEGY, (1,))
    with pytest.raises(RunError, match="No such file"):
        read_run_history(tmp_path / "none.json", STRATEGY, (1,))
