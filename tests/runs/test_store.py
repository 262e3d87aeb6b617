from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from auto_merge.errors import RunError
from auto_merge.recipe.model import Recipe, Slice, Source
from auto_merge.runs import reader
from auto_merge.runs.store import Clock, RunStore
from auto_merge.runs.view import Final, FloorResult, Front, FrontMember, HeldoutRow
from auto_merge.statistics import Comparison
from auto_merge.trial import Floor, Outcome, Status, TaskScore, Trial

MANIFEST = {
    "name": "demo",
    "objectives": [
        {"task": "t", "metric": "acc,none", "direction": "maximize", "bounds": [0, 1], "weight": 1}
    ],
}
SCORE = TaskScore("t", "acc,none", 0.5, 10, 0.1)


def trial(index: int) -> Trial:
    return Trial(index, index, {"x": 0.5, "method": "linear"}, 9, origin="random")


def outcome(cost: float = 0.5) -> Outcome:
    return Outcome(Status.SUCCESS, (SCORE,), cost, 1.0, 10, timings={"merge": 0.1}, digest="d")


def test_events_come_back_in_order(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path / "run", MANIFEST)
    store.append(Clock(), ask=trial(0), tell=None)
    store.append(Clock(2.0, 0.5, 10), ask=trial(1), tell=(trial(0), outcome()))
    again = RunStore(tmp_path / "run")
    events = again.events()
    assert [(event.kind, event.trial) for event in events] == [("ask", 0), ("ask", 1), ("tell", 0)]
    assert events[1].asked() == trial(1)
    assert events[2].told() == outcome()
    assert events[2].clock == Clock(2.0, 0.5, 10)


def test_a_trial_is_told_once(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path / "run", MANIFEST)
    store.append(Clock(), ask=trial(0), tell=(trial(0), outcome()))
    with pytest.raises(RunError, match="cannot be written"):
        store.append(Clock(), ask=trial(1), tell=(trial(0), outcome()))
    assert len(store.events()) == 2, "the failed transaction left nothing"


def test_facts_are_replaced(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path / "run", MANIFEST)
    assert store.fact("limits", {}) == {}
    store.set_fact("limits", {"max_trials": 3})
    store.set_fact("limits", {"max_trials": 5})
    assert RunStore(tmp_path / "run").fact("limits") == {"max_trials": 5}


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"holds 'thesis.tex'.*choose another --output"):
        RunStore.create(tmp_path, MANIFEST)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(RunError, match="is a file; choose another --output"):
        RunStore.create(tmp_path / "run", MANIFEST)


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        RunStore(tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", "run.sqlite"])
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    RunStore.create(tmp_path / "run", MANIFEST).close()
    (tmp_path / "run" / name).write_bytes(b"{torn" * 300)
    with pytest.raises(RunError, match=name):
        RunStore(tmp_path / "run")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "not a manifest"),
        ("{}", "not a manifest"),
        ('{"name": "x", "objectives": [], "version": 99}', "format version 99, this program reads"),
    ],
)
def test_a_strange_manifest_is_named(tmp_path: Path, text: str, message: str) -> None:
    RunStore.create(tmp_path / "run", MANIFEST).close()
    (tmp_path / "run/manifest.json").write_text(text)
    with pytest.raises(RunError, match=message):
        RunStore(tmp_path / "run")


def test_a_lost_database_is_not_an_empty_run(tmp_path: Path) -> None:
    RunStore.create(tmp_path / "run", MANIFEST).close()
    (tmp_path / "run/run.sqlite").unlink()
    with pytest.raises(RunError, match="not a readable run database"):
        RunStore(tmp_path / "run")
    assert not (tmp_path / "run/run.sqlite").exists()


def test_second_process_is_refused_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path / "run", MANIFEST)
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom auto_merge.runs.store import RunStore\n"
        "with RunStore(Path(sys.argv[1])).lock():\n print('held', flush=True)\n time.sleep(60)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(store.folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert store.is_locked()
        with pytest.raises(RunError, match="another process works on this run"), store.lock():
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        assert not store.is_locked()
        with store.lock():
            pass
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()


def test_a_reader_sees_rows_while_a_writer_has_the_file_open(tmp_path: Path) -> None:
    writer = RunStore.create(tmp_path / "run", MANIFEST)
    writer.append(Clock(), ask=trial(0), tell=None)
    rows = reader.view(RunStore(tmp_path / "run")).trials
    assert [row.outcome for row in rows] == [None]


def final() -> Final:
    recipe = Recipe((Slice("linear", (Source("a", (0, 2)),)),), "base", "float32")
    rows = (
        HeldoutRow("best", (SCORE,), 0.5, 0.6, None),
        HeldoutRow("base", (SCORE,), 0.4, None, Comparison(0.1, 0.02, 0.18, "better")),
    )
    return Final(trial(0), recipe, rows, 1, ("source: a: out of memory",))


def test_view_of_a_complete_and_of_an_extended_run(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path / "run", MANIFEST)
    store.set_fact(reader.LIMITS_FACT, {"max_trials": 1, "max_seconds": None})
    store.append(Clock(), ask=trial(0), tell=None)
    assert reader.view(store).state == "stopped"
    store.append(Clock(3.0, 1.0, 10), ask=None, tell=(trial(0), outcome()))
    store.set_fact(reader.FINAL_FACT, reader.final_to_data(final(), num_trials=1))
    assert reader.view(store).state == "stopped", "concluded, but nothing is delivered yet"
    limits = {"max_trials": 1, "max_seconds": None}
    store.set_fact(reader.DELIVERED_FACT, {"num_trials": 1, "limits": limits})
    seen = reader.view(store)
    assert seen.state == "complete"
    assert seen.final == final()
    assert (seen.active_seconds, seen.waiting_seconds, seen.max_trials) == (3.0, 1.0, 1)
    assert seen.trials[0].documents == 10
    store.append(Clock(4.0, 1.0, 20), ask=trial(1), tell=(trial(1), outcome()))
    assert reader.view(store).state == "stopped"
    assert reader.view(store).final is None


def front_final() -> Final:
    plain = final()
    compared = Comparison(0.1, 0.02, 0.18, "better")
    floors = (FloorResult(0, "a", 0.05, compared), FloorResult(0, "b", 0.05, None))
    members = (
        FrontMember(trial(0), plain.recipe, plain.heldout[0], (SCORE,), (compared,), floors),
        FrontMember(trial(1), plain.recipe, plain.heldout[1], (SCORE,), (None,)),
    )
    found = Front(members, ("source: a",), (0.7,), 2, ("base",), 0.4, 0.3, 0.5)
    return replace(plain, floors=floors, front=found)


def test_a_front_comes_back_as_it_was_stored(tmp_path: Path) -> None:
    floor = {"model": "a", "margin": 0.02}
    objectives = [{**MANIFEST["objectives"][0], "floor": floor}]
    manifest = {**MANIFEST, "objectives": objectives, "multi_objective": True}
    store = RunStore.create(tmp_path / "run", manifest)
    assert reader.view(store).reference == ()
    store.set_fact(reader.REFERENCE_FACT, (0.7,))
    store.append(Clock(), ask=trial(0), tell=(trial(0), outcome()))
    store.set_fact(reader.FINAL_FACT, reader.final_to_data(front_final(), num_trials=1))
    seen = reader.view(RunStore(tmp_path / "run"))
    assert seen.final == front_final()
    assert seen.multi_objective
    assert seen.reference == (0.7,)
    assert seen.objectives[0].floor == Floor("a", 0.02)


def test_a_result_that_knows_no_fronts_is_read(tmp_path: Path) -> None:
    data = reader.final_to_data(final(), num_trials=1)
    del data["front"], data["floors"]
    assert reader.final_from_data(data) == final()
    store = RunStore.create(tmp_path / "run", MANIFEST)
    assert not reader.view(store).multi_objective


def test_a_locked_run_is_running(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path / "run", MANIFEST)
    with store.lock():
        assert reader.view(RunStore(tmp_path / "run")).state == "running"


def test_database_is_durable(tmp_path: Path) -> None:
    RunStore.create(tmp_path / "run", MANIFEST).close()
    database = sqlite3.connect(tmp_path / "run" / "run.sqlite")
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path / "run", MANIFEST)
    store.append(Clock(), ask=trial(0), tell=None)
    pages = store._database.execute("PRAGMA page_count").fetchone()[0]
    store._database.execute(f"PRAGMA max_page_count = {pages}")
    big = Trial(1, 1, {f"x{i}": 0.5 for i in range(2000)}, 9)
    with pytest.raises(RunError, match="cannot be written: database or disk is full"):
        store.append(Clock(), ask=big, tell=(trial(0), outcome()))
    assert [event.kind for event in RunStore(tmp_path / "run").events()] == ["ask"]
