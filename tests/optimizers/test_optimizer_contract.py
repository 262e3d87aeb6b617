"""What every optimizer promises, whatever proposes its configurations."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from ConfigSpace import Configuration
from optimizer_spaces import (
    asks,
    close_shared,
    conditional_space,
    drive,
    finite_space,
    noisy,
    optimizer,
    outcome,
    start,
)

from auto_merge.errors import RunError
from auto_merge.optimizers.proposer import SpaceExhaustedError, configuration_key
from auto_merge.trial import Outcome, Status

HERE = Path(__file__).parent


@pytest.fixture(autouse=True, scope="module")
def _end_child_processes() -> Iterator[None]:
    yield
    close_shared()


NAMES = pytest.mark.parametrize("name", ["random", "smac"])


@NAMES
def test_trials_are_new_legal_plain_and_numbered(name: str) -> None:
    search = optimizer(name)
    trials = asks(drive(search, 40))
    assert [trial.index for trial in trials] == list(range(41))
    places = Counter((trial.config_id, trial.fidelity) for trial in trials)
    assert max(places.values()) == 1
    by_id = {trial.config_id: configuration_key(trial.configuration) for trial in trials}
    assert len(set(by_id.values())) == len(by_id)
    assert sorted(by_id) == list(range(len(by_id)))
    assert {type(value) for t in trials for value in t.configuration.values()} == {float, int, str}
    for trial in trials:  # raises for an illegal value and for an inactive hyperparameter
        Configuration(conditional_space(), values=dict(trial.configuration))
    origins = {trial.origin for trial in trials}
    assert origins >= {"initial design: half", "initial design: one", name}


@NAMES
def test_start_points_come_first_and_once(name: str) -> None:
    search = optimizer(name)
    first, second, third = (search.ask() for _ in range(3))
    assert dict(first.configuration) == start(0.5)
    assert dict(second.configuration) == start(1.0)
    assert third.origin == "random"  # nothing is known yet


@NAMES
def test_failures_are_survived_and_never_incumbents(name: str) -> None:
    search = optimizer(name)
    events = drive(search, 45, lambda trial: noisy(trial) if trial.config_id % 3 else None)
    assert all(trial.config_id % 3 or trial.stage == 0 for trial in asks(events))
    (best,) = search.incumbents()
    assert best.config_id % 3
    assert best.fidelity == 90


@NAMES
def test_everything_fails(name: str) -> None:
    search = optimizer(name)
    drive(search, 25, lambda _: None)
    assert search.incumbents() == []


@NAMES
def test_results_may_come_out_of_order(name: str) -> None:
    search = optimizer(name)
    places = set()
    for _ in range(8):
        trials = [search.ask() for _ in range(4)]
        places |= {(trial.config_id, trial.fidelity) for trial in trials}
        for trial in reversed(trials):
            search.tell(trial, outcome(noisy(trial)))
    assert len(places) == 32


@NAMES
def test_the_incumbent_is_the_best_of_the_highest_rung(name: str) -> None:
    search = optimizer(name)
    assert search.incumbents() == []
    told = []
    for _ in range(30):
        trial = search.ask()
        search.tell(trial, outcome(noisy(trial)))
        told.append((-trial.fidelity, noisy(trial), trial.config_id))
        (best,) = search.incumbents()
        assert (-best.fidelity, noisy(best), best.config_id) == min(told)


@NAMES
def test_a_restored_optimizer_goes_on_as_if_never_interrupted(name: str) -> None:
    events = drive(optimizer(name, seed=3), 20)
    assert sum(trial.origin == name for trial in asks(events)) >= 4
    for cut in (0, 1, 2, 9, 17, 26, 35, len(events)):
        resumed = optimizer(name, seed=3)
        resumed.restore(events[:cut])
        num_tells = sum(event[0] == "tell" for event in events[:cut])
        rest = drive(resumed, 20 - num_tells)
        assert [*events[:cut], *rest] == events


@NAMES
def test_restoring_does_not_ask_the_proposer(name: str) -> None:
    whole = optimizer(name)
    events = drive(whole, 20)

    class Silent:
        def propose(self, history):
            raise AssertionError("asked while restoring")

        def close(self) -> None:
            pass

    resumed = optimizer("random")
    resumed._proposer = Silent()
    resumed.restore(events)
    assert resumed.incumbents() == whole.incumbents()
    assert resumed.untold() == whole.untold()


@NAMES
def test_two_processes_propose_the_same(name: str) -> None:
    script = (
        "import sys; from optimizer_spaces import asks, drive, optimizer\n"
        f"search = optimizer({name!r}, seed=5)\n"
        "for t in asks(drive(search, 18)): print(t.to_json())"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={
                **os.environ,
                "PYTHONHASHSEED": hash_seed,
                "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])]),
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0].count("\n") == 19
    if name == "smac":
        assert "'origin': 'smac'" in outputs[0]


@NAMES
def test_another_seed_gives_other_trials(name: str) -> None:
    one, other = optimizer(name, seed=0), optimizer(name, seed=1)
    assert asks(drive(one, 6)) != asks(drive(other, 6))


@NAMES
def test_a_small_space_is_searched_completely(name: str) -> None:
    search = optimizer(name, space=finite_space(), budgets=(10, 90, 3))
    trials = []
    for _ in range(8):  # four configurations, three promoted, one promoted again
        trial = search.ask()
        trials.append(trial)
        search.tell(trial, outcome(0.1 * trial.config_id))
    with pytest.raises(SpaceExhaustedError, match="all 4 configurations"):
        search.ask()
    assert [trial.fidelity for trial in trials] == [10] * 4 + [30] * 3 + [90]
    again = optimizer(name, space=finite_space(), budgets=(10, 90, 3))
    events = [
        e for t in trials for e in (("ask", t), ("tell", t.index, outcome(0.1 * t.config_id)))
    ]
    again.restore(events)
    with pytest.raises(SpaceExhaustedError):
        again.ask()


def test_a_start_point_given_twice_is_tried_once() -> None:
    from auto_merge.optimizers import PROPOSERS
    from auto_merge.optimizers.fidelity import hyperband_round
    from auto_merge.optimizers.hyperband import HyperbandOptimizer

    proposer = PROPOSERS.get("random")(conditional_space(), 0)
    design = [("half", start(0.5)), ("middle", start(0.5)), ("one", start(1.0))]
    search = HyperbandOptimizer(hyperband_round(10, 90), design, proposer)
    origins = [search.ask().origin for _ in range(3)]
    assert origins == ["initial design: half", "initial design: one", "random"]


def test_telling_what_was_not_asked_is_refused() -> None:
    search = optimizer("random")
    trial = search.ask()
    search.tell(trial, Outcome(Status.SUCCESS, cost=0.5))
    with pytest.raises(RunError, match="trial 0 was told twice"):
        search.tell(trial, Outcome(Status.SUCCESS, cost=0.5))
    with pytest.raises(RunError, match="trial 7 was told but never asked"):
        optimizer("random").restore([("tell", 7, outcome(0.1))])


def test_a_record_of_other_settings_is_refused() -> None:
    events = drive(optimizer("random"), 15)
    other = optimizer("random", budgets=(5, 45, 3))
    with pytest.raises(RunError, match="does not fit the settings"):
        other.restore(events)
    used = optimizer("random")
    used.ask()
    with pytest.raises(RunError, match="fresh optimizer"):
        used.restore(events)
