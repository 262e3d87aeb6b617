"""Searches that are killed and go on, in real processes."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from world import make_world

from auto_merge.runs import reader
from auto_merge.runs.store import RunStore
from auto_merge.runs.view import RunView

REPOSITORY = Path(__file__).parents[2]


def start(world: Path, output: str, cache: str, *words: str) -> subprocess.Popen[str]:
    (config,) = world.glob("*.yaml")
    command = [sys.executable, str(REPOSITORY / "merge.py"), "--config", str(config)]
    return subprocess.Popen(
        [*command, "--output", str(world / output), "--quiet", *words],
        env={**os.environ, "AUTO_MERGE_CACHE": str(world / cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, error = process.communicate(timeout=300)
    return process.returncode, error


def view(folder: Path) -> RunView:
    return reader.view(RunStore(folder))


def num_tells(folder: Path) -> int:
    return sum(event.kind == "tell" for event in RunStore(folder).events())


def num_scores(cache: Path) -> int:
    database = sqlite3.connect(f"file:{cache / 'ledger.sqlite'}?mode=ro", uri=True)
    try:
        return int(database.execute("SELECT COUNT(*) FROM scores").fetchone()[0])
    finally:
        database.close()


def wait_for_tells(process: subprocess.Popen[str], folder: Path, wanted: int) -> None:
    """Waits until the run has so many tells, or the process is done."""
    while process.poll() is None:
        if RunStore.exists(folder) and num_tells(folder) >= wanted:
            return
        time.sleep(0.05)


def same_trials(first: RunView, second: RunView) -> None:
    assert [row.trial for row in first.trials] == [row.trial for row in second.trials]
    for one, other in zip(first.trials, second.trials, strict=True):
        assert one.outcome is not None
        assert other.outcome is not None
        assert (one.outcome.scores, one.outcome.cost, one.outcome.digest) == (
            other.outcome.scores,
            other.outcome.cost,
            other.outcome.digest,
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "optimizer", "kills"),
    [
        ("lfs", "random", 3),
        ("lfs", "smac", 3),
        ("lfs_multiobj", "smac", 1),
        ("dis", "smac", 1),
        ("prune", "smac", 1),
    ],
)
def test_killed_equals_uninterrupted(
    tmp_path: Path, strategy: str, optimizer: str, kills: int
) -> None:
    make_world(tmp_path, optimizer=optimizer, strategy=strategy, max_trials=24)
    assert finish(start(tmp_path, "whole", "cache_whole"))[0] == 0
    dice = random.Random(optimizer + strategy)
    moments = sorted(dice.sample(range(1, 22), kills))
    for moment in moments:
        process = start(tmp_path, "broken", "cache_broken")
        wait_for_tells(process, tmp_path / "broken", moment)
        time.sleep(dice.random() * 0.2)
        os.kill(process.pid, signal.SIGKILL)
        finish(process)
    code, error = finish(start(tmp_path, "broken", "cache_broken"))
    assert code == 0, error
    whole, broken = view(tmp_path / "whole"), view(tmp_path / "broken")
    same_trials(whole, broken)
    assert whole.final == broken.final
    # One row per document and candidate, none lost, none twice.
    assert num_scores(tmp_path / "cache_whole") == num_scores(tmp_path / "cache_broken")


@pytest.mark.slow
def test_same_seed_in_two_processes_with_other_hash_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_world(tmp_path, optimizer="smac", max_trials=20)
    for number in ("1", "2"):
        monkeypatch.setenv("PYTHONHASHSEED", number)
        assert finish(start(tmp_path, f"run{number}", f"cache{number}"))[0] == 0
    same_trials(view(tmp_path / "run1"), view(tmp_path / "run2"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_cleanly_and_the_run_goes_on(tmp_path: Path, number: int) -> None:
    make_world(tmp_path, max_trials=300)
    process = start(tmp_path, "run", "cache")
    wait_for_tells(process, tmp_path / "run", 3)
    process.send_signal(number)
    code, error = finish(process)
    assert code == 130
    assert error.strip() == "stopped: the same command goes on from here"
    done = num_tells(tmp_path / "run")
    assert 3 <= done < 300
    assert view(tmp_path / "run").state == "stopped"
    again = start(tmp_path, "run", "cache", "--set", f"search.max_trials={done + 2}")
    code, error = finish(again)
    assert code == 0, error
    assert num_tells(tmp_path / "run") == done + 2


@pytest.mark.slow
def test_a_second_process_on_a_running_search_is_refused(tmp_path: Path) -> None:
    make_world(tmp_path, max_trials=300)
    first = start(tmp_path, "run", "cache")
    try:
        wait_for_tells(first, tmp_path / "run", 1)
        code, error = finish(start(tmp_path, "run", "cache"))
        assert code == 2
        assert "another process works on this run" in error
    finally:
        first.send_signal(signal.SIGTERM)
        finish(first)
