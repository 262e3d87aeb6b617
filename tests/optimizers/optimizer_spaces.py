"""Spaces and a small driver shared by the optimizer tests."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping

from ConfigSpace import Categorical, ConfigurationSpace, EqualsCondition, Float, Integer

from auto_merge.optimizers import PROPOSERS
from auto_merge.optimizers.fidelity import hyperband_round
from auto_merge.optimizers.hyperband import Event, HyperbandOptimizer
from auto_merge.optimizers.proposer import Proposer
from auto_merge.trial import Outcome, Status, Trial, Value

Cost = Callable[[Trial], float | None]


def conditional_space() -> ConfigurationSpace:
    """Two groups with a choice of method; one method has two floats, the other an integer."""
    space = ConfigurationSpace()
    for group in range(2):
        method = Categorical(f"method_{group}", ["blend", "layers"], default="blend")
        blend = [Float(f"weight_{group}_{part}", (0.0, 1.0)) for part in ("attention", "mlp")]
        layers = Integer(f"layers_{group}", (1, 9))
        space.add(method, *blend, layers)
        space.add(
            *(EqualsCondition(child, method, "blend") for child in blend),
            EqualsCondition(layers, method, "layers"),
        )
    return space


def finite_space() -> ConfigurationSpace:
    """Four configurations in all."""
    space = ConfigurationSpace()
    space.add(Categorical("left", ["a", "b"]), Categorical("right", ["a", "b"]))
    return space


def start(weight: float) -> dict[str, Value]:
    values: dict[str, Value] = {"method_0": "blend", "method_1": "blend"}
    for group in range(2):
        values |= {f"weight_{group}_{part}": weight for part in ("attention", "mlp")}
    return values


STARTS = [("half", start(0.5)), ("one", start(1.0))]


def bowl(configuration: Mapping[str, Value]) -> float:
    """Smooth cost in [0, 1]; best, 0.05, with both groups blended at .7 and .2."""
    cost = 0.05
    for group in range(2):
        if configuration[f"method_{group}"] == "blend":
            attention = float(configuration[f"weight_{group}_attention"])
            mlp = float(configuration[f"weight_{group}_mlp"])
            cost += 0.35 * ((attention - 0.7) ** 2 + (mlp - 0.2) ** 2)
        else:
            cost += 0.2 + 0.01 * abs(int(configuration[f"layers_{group}"]) - 5)
    return cost


def noisy(trial: Trial) -> float:
    """The bowl plus an error that is a function of the trial and shrinks with its documents."""
    digest = hashlib.sha256(json.dumps([trial.config_id, trial.fidelity]).encode()).digest()
    error = digest[0] / 255 - 0.5
    return min(max(bowl(trial.configuration) + error / trial.fidelity**0.5, 0.0), 1.0)


def outcome(cost: float | None) -> Outcome:
    if cost is None:
        return Outcome(Status.CRASHED, error="planted")
    return Outcome(Status.SUCCESS, cost=cost)


def optimizer(
    name: str,
    seed: int = 0,
    space: ConfigurationSpace | None = None,
    budgets: tuple[int, int, int] = (10, 90, 3),
) -> HyperbandOptimizer:
    design = STARTS if space is None else []
    proposer = shared_proposer(name, seed) if space is None else PROPOSERS.get(name)(space, seed)
    return HyperbandOptimizer(hyperband_round(*budgets), design, proposer)


@functools.cache
def shared_proposer(name: str, seed: int) -> Proposer:
    """Proposers remember nothing, so the tests of a module share one (and its child process)."""
    return PROPOSERS.get(name)(conditional_space(), seed)


def close_shared() -> None:
    for name in PROPOSERS:
        for seed in range(6):
            shared_proposer(name, seed).close()
    shared_proposer.cache_clear()


def drive(
    search: HyperbandOptimizer, num_tells: int, cost: Cost = noisy, lag: int = 1
) -> list[Event]:
    """Asks ``lag`` trials ahead of the tells, as a search loop does; returns what happened."""
    events: list[Event] = []
    untold = list(search.untold())
    for _ in range(num_tells):
        while len(untold) <= lag:
            trial = search.ask()
            untold.append(trial)
            events.append(("ask", trial))
        trial = untold.pop(0)
        result = outcome(cost(trial))
        search.tell(trial, result)
        events.append(("tell", trial.index, result))
    return events


def asks(events: list[Event]) -> list[Trial]:
    return [event[1] for event in events if event[0] == "ask"]
