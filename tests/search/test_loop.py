from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from ConfigSpace import ConfigurationSpace, Float

from auto_merge.errors import AutoMergeError, Interrupted
from auto_merge.optimizers import build_optimizer
from auto_merge.optimizers.fidelity import hyperband_round
from auto_merge.optimizers.hyperband import HyperbandOptimizer
from auto_merge.recipe.model import Recipe, Slice, Source
from auto_merge.runs.store import RunStore
from auto_merge.search.loop import Limits, SearchLoop
from auto_merge.trial import Objective, Outcome, Status, TaskScore, Trial, scalar_cost

GOALS = (Objective("left", "acc,none"), Objective("right", "acc,none"))
RECIPE = Recipe((Slice("passthrough", (Source("a", (0, 1)),)),))


class Line:
    """A strategy with one number."""

    def space(self) -> ConfigurationSpace:
        space = ConfigurationSpace()
        space.add(Float("x", (0.0, 1.0)))
        return space

    def decode(self, configuration: object) -> Recipe:
        return RECIPE

    def encode(self, published: object) -> dict[str, float]:
        return {}

    def initial_design(self) -> list[tuple[str, dict[str, float]]]:
        return [("left", {"x": 0.0}), ("right", {"x": 1.0})]


class Parabola:
    """A worker whose cost is known; may be told to fail or to be interrupted."""

    def __init__(self, act: Callable[[Trial], Outcome | None] = lambda trial: None) -> None:
        self.act = act
        self.ran: list[int] = []

    def run(self, trial: Trial, recipe: Recipe) -> Outcome:
        self.ran.append(trial.index)
        special = self.act(trial)
        if special is not None:
            return special
        cost = (float(trial.configuration["x"]) - 0.3) ** 2
        return Outcome(Status.SUCCESS, (), cost, 0.01, trial.fidelity)


class Silent:
    def trial_started(self, trial: Trial) -> None:
        pass

    def trial_finished(self, trial: Trial, outcome: Outcome, incumbent: Outcome | None) -> None:
        pass


def optimizer(store: RunStore, goals: Sequence[Objective] = ()) -> HyperbandOptimizer:
    stages = hyperband_round(3, 27, 3)
    made = build_optimizer("random", Line().space(), 7, stages, Line().initial_design(), goals)
    events = store.events()
    made.restore(
        ("ask", event.asked()) if event.kind == "ask" else ("tell", event.trial, event.told())
        for event in events
    )
    return made


def loop(
    store: RunStore,
    worker: Parabola,
    limits: Limits,
    stop: bool = False,
    goals: Sequence[Objective] = (),
) -> SearchLoop:
    asked = optimizer(store, goals)
    return SearchLoop(store, Line(), asked, worker, limits, Silent(), should_stop=lambda: stop)


def trials(store: RunStore) -> list[tuple[Trial, float]]:
    asked = {event.trial: event.asked() for event in store.events() if event.kind == "ask"}
    told = {event.trial: event.told() for event in store.events() if event.kind == "tell"}
    return [(asked[index], told[index].cost) for index in sorted(told)]


def new_store(folder: Path) -> RunStore:
    return RunStore.create(folder, {"name": "line", "objectives": []})


def test_runs_exactly_the_allowed_trials(tmp_path: Path) -> None:
    store = new_store(tmp_path / "run")
    worker = Parabola()
    assert loop(store, worker, Limits(max_trials=20)).run()
    assert worker.ran == list(range(20))
    assert [trial.index for trial, _ in trials(store)] == list(range(20))


def test_ask_sees_the_tells_with_a_fixed_lag_of_one(tmp_path: Path) -> None:
    store = new_store(tmp_path / "run")
    loop(store, Parabola(), Limits(max_trials=4)).run()
    order = [(event.kind, event.trial) for event in store.events()]
    assert order == [
        ("ask", 0),
        *(step for k in range(3) for step in (("ask", k + 1), ("tell", k))),
        ("tell", 3),
    ]


def test_interrupted_runs_equal_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = new_store(tmp_path / "whole")
    loop(whole, Parabola(), Limits(max_trials=25)).run()
    broken = new_store(tmp_path / "broken")
    dice = random.Random(5)

    def die(trial: Trial) -> None:
        if dice.random() < 0.3:
            raise Interrupted

    done = False
    for _ in range(100):
        try:
            done = loop(broken, Parabola(die), Limits(max_trials=25)).run()
            break
        except Interrupted:
            continue
    assert done
    assert trials(broken) == trials(whole)


def several(trial: Trial) -> Outcome:
    """Two objectives that want different values."""
    x = float(trial.configuration["x"])
    scores = tuple(
        TaskScore(goal.task, goal.metric, 1 - (x - best) ** 2, trial.fidelity, 0.0)
        for goal, best in zip(GOALS, (0.2, 0.7), strict=True)
    )
    return Outcome(Status.SUCCESS, scores, scalar_cost(GOALS, scores))


def test_interrupted_runs_with_several_objectives_equal_the_uninterrupted_one(
    tmp_path: Path,
) -> None:
    dice = random.Random(6)

    def act(trial: Trial) -> Outcome:
        if dice.random() < 0.3:
            raise Interrupted
        return several(trial)

    whole, broken = new_store(tmp_path / "whole"), new_store(tmp_path / "broken")
    limits = Limits(max_trials=25)
    loop(whole, Parabola(several), limits, goals=GOALS).run()
    done = False
    while not done:
        with contextlib.suppress(Interrupted):
            done = loop(broken, Parabola(act), limits, goals=GOALS).run()
    assert trials(broken) == trials(whole)
    incumbents = optimizer(broken, GOALS).incumbents()
    assert incumbents == optimizer(whole, GOALS).incumbents()
    assert len(incumbents) > 1


def test_more_trials_may_be_asked_for_later(tmp_path: Path) -> None:
    store = new_store(tmp_path / "run")
    loop(store, Parabola(), Limits(max_trials=5)).run()
    worker = Parabola()
    assert loop(store, worker, Limits(max_trials=8)).run()
    assert worker.ran == [5, 6, 7]
    assert loop(store, worker, Limits(max_trials=8)).run(), "nothing left to do"
    assert worker.ran == [5, 6, 7]


def test_time_limit_counts_over_processes(tmp_path: Path) -> None:
    store = new_store(tmp_path / "run")
    worker = Parabola()
    assert loop(store, worker, Limits(max_seconds=1e-9)).run()
    before = len(worker.ran)
    assert loop(store, worker, Limits(max_seconds=1e-9)).run()
    assert len(worker.ran) == before


def test_stop_between_trials(tmp_path: Path) -> None:
    store = new_store(tmp_path / "run")
    worker = Parabola()
    assert not loop(store, worker, Limits(max_trials=5), stop=True).run()
    assert worker.ran == []


def failure(error: str) -> Outcome:
    return Outcome(Status.CRASHED, error=error)


def test_same_error_from_the_start_stops_the_run(tmp_path: Path) -> None:
    store = new_store(tmp_path / "run")
    worker = Parabola(lambda trial: failure("KeyError: 'lm_head'"))
    with pytest.raises(AutoMergeError, match=r"first 3 trials all failed .* KeyError: 'lm_head'"):
        loop(store, worker, Limits(max_trials=9)).run()
    assert worker.ran == [0, 1, 2]
    mended = Parabola()
    assert loop(store, mended, Limits(max_trials=4)).run(), "the failures are forgotten"
    assert mended.ran == [0, 1, 2, 3]


def test_different_errors_do_not_stop_the_run(tmp_path: Path) -> None:
    store = new_store(tmp_path / "run")
    worker = Parabola(lambda trial: failure("abcd"[trial.index]) if trial.index < 4 else None)
    assert loop(store, worker, Limits(max_trials=9)).run()
    costs = [cost for _, cost in trials(store)]
    assert costs[:4] == [2.0] * 4
    assert max(costs[4:]) <= 1.0


def test_waiting_is_told_from_working(tmp_path: Path) -> None:
    store = new_store(tmp_path / "run")
    loop(store, Parabola(), Limits(max_trials=6)).run()
    clock = store.events()[-1].clock
    assert 0 < clock.waiting_seconds <= clock.active_seconds
    assert clock.documents == sum(trial.fidelity for trial, _ in trials(store))
