"""The SMAC child process: how it dies, what it says, that it learns."""

from __future__ import annotations

import io
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from optimizer_spaces import asks, bowl, close_shared, conditional_space, drive, optimizer

from auto_merge.errors import AutoMergeError
from auto_merge.optimizers.proposer import Observation, RandomProposer
from auto_merge.optimizers.smac_proposer import MIN_ROWS, SmacProposer
from auto_merge.trial import FAILURE_COST, Status


@pytest.fixture(autouse=True, scope="module")
def _end_child_processes() -> Iterator[None]:
    yield
    close_shared()


def told(num_rows: int, num_failures: int = 0) -> tuple[Observation, ...]:
    """A history of random configurations with their true costs."""
    proposer = RandomProposer(conditional_space(), 11)
    history: list[Observation] = []
    for number in range(num_rows):
        proposal = proposer.propose(history)
        assert proposal is not None
        status, cost = Status.SUCCESS, bowl(proposal.configuration)
        if number < num_failures:
            status, cost = Status.CRASHED, FAILURE_COST
        history.append(Observation(number, proposal.configuration, cost, 30, status))
    return tuple(history)


def test_importing_the_optimizers_loads_no_smac() -> None:
    code = (
        "import sys, auto_merge.optimizers, auto_merge.optimizers.hyperband;"
        "print(sorted({'smac', 'torch', 'sklearn', 'ConfigSpace'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "[]"


def test_no_process_before_there_are_enough_rows() -> None:
    proposer = SmacProposer(conditional_space(), 0)
    few = proposer.propose(told(MIN_ROWS - 1))
    failed = proposer.propose(told(MIN_ROWS + 2, num_failures=MIN_ROWS))
    assert few is not None
    assert failed is not None
    assert few.origin == failed.origin == "random"
    assert proposer._child is None


def test_a_killed_child_is_replaced_and_answers_the_same() -> None:
    proposer = SmacProposer(conditional_space(), 0)
    history = told(14, num_failures=2)
    first = proposer.propose(history)
    assert first is not None
    assert first.origin == "smac"
    pid = proposer._child._process.pid
    os.kill(pid, signal.SIGKILL)
    assert proposer.propose(history) == first
    assert proposer._child._process.pid != pid
    proposer.close()
    assert proposer._child is None


def test_a_child_that_dies_twice_is_an_error_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = "import sys; sys.exit('no such library')  # {parent}"
    monkeypatch.setattr("auto_merge.optimizers.smac_proposer._COMMAND", command)
    proposer = SmacProposer(conditional_space(), 0)
    with pytest.raises(
        AutoMergeError, match="ended with code 1: no such library; it was restarted"
    ):
        proposer.propose(told(14))


def test_an_error_inside_the_child_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    proposer = SmacProposer(conditional_space(), 0)
    monkeypatch.setattr(proposer, "_space", {"not": "a space"})
    with pytest.raises(AutoMergeError, match="SMAC could not propose a configuration: "):
        proposer.propose(told(14))
    proposer.close()


def test_the_child_ends_when_its_parent_is_killed() -> None:
    code = (
        "import time; from test_smac_process import conditional_space, told\n"
        "from auto_merge.optimizers.smac_proposer import SmacProposer\n"
        "p = SmacProposer(conditional_space(), 0); p.propose(told(14))\n"
        "print(p._child._process.pid, flush=True); time.sleep(60)"
    )
    here = Path(__file__).parent
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])])},
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.kill(child, 0)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while _is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_running(child)


def _is_running(pid: int) -> bool:
    """An orphan that nobody reaps stays visible as a zombie; that counts as ended."""
    try:
        os.kill(pid, 0)
        state = subprocess.run(
            ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
        ).stdout.strip()
    except ProcessLookupError:
        return False
    return bool(state) and not state.startswith("Z")


def test_the_server_survives_a_bad_line() -> None:
    from auto_merge.optimizers.smac_server import serve

    space = json.dumps({"space": conditional_space().to_serialized_dict()})
    answers = io.StringIO()
    serve(io.StringIO(f"not json\n{space}\n{{}}\n"), answers)
    first, second, third = map(json.loads, answers.getvalue().splitlines())
    assert "JSONDecodeError" in first["error"]
    assert second == {"ready": True}
    assert third == {"error": "KeyError: 'rows'"}


def test_smac_finds_the_bottom_of_the_bowl() -> None:
    def best_cost(name: str, seed: int) -> float:
        search = optimizer(name, seed, budgets=(90, 90, 3))
        events = drive(search, 35, lambda trial: bowl(trial.configuration))
        return min(event[2].cost for event in events if event[0] == "tell")

    smac = statistics.median(best_cost("smac", seed) for seed in (0, 1, 2))
    chance = statistics.median(best_cost("random", seed) for seed in (0, 1, 2))
    assert smac < 0.053  # the optimum is .05
    assert smac < chance


def test_failures_and_constant_costs_do_not_break_the_surrogate() -> None:
    events = drive(
        optimizer("smac", seed=1), 24, lambda trial: None if trial.config_id % 2 else 0.3
    )
    assert sum(trial.origin == "smac" for trial in asks(events)) >= 8
