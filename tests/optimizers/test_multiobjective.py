"""Several objectives: promotion, incumbents, scalarisation, exact resume, and that it helps."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Mapping, Sequence

import pytest
from ConfigSpace import ConfigurationSpace, Float
from hypothesis import given, settings
from hypothesis import strategies as st
from optimizer_spaces import STARTS, asks, bowl, conditional_space, drive

from auto_merge.optimizers import build_optimizer
from auto_merge.optimizers.fidelity import hyperband_round
from auto_merge.optimizers.hyperband import Event, HyperbandOptimizer
from auto_merge.optimizers.parego import (
    ParegoProposer,
    augmented_tchebycheff,
    normalised,
    simplex_point,
)
from auto_merge.optimizers.proposer import Observation, Proposal, RandomProposer, child_seed
from auto_merge.optimizers.schedule import Schedule, Slot
from auto_merge.statistics import hypervolume
from auto_merge.trial import (
    FAILURE_COST,
    Objective,
    Outcome,
    Status,
    TaskScore,
    Trial,
    Value,
    scalar_cost,
)

TWO = (Objective("left", "acc,none"), Objective("right", "acc,none", weight=3.0))


def success(costs: Sequence[float], objectives: Sequence[Objective] = TWO) -> Outcome:
    scores = tuple(
        TaskScore(objective.task, objective.metric, 1.0 - cost, 10, 0.0)
        for objective, cost in zip(objectives, costs, strict=True)
    )
    return Outcome(Status.SUCCESS, scores, scalar_cost(objectives, scores))


def line_space(size: int = 5) -> ConfigurationSpace:
    space = ConfigurationSpace()
    space.add(*(Float(f"x{place}", (0.0, 1.0)) for place in range(size)))
    return space


def two_bowls(configuration: Mapping[str, Value]) -> tuple[float, float]:
    """The front is the diagonal from .2 to .8; its ends cost (0, .36) and (.36, 0)."""
    values = [float(value) for value in configuration.values()]
    return tuple(
        min(1.0, statistics.fmean((value - goal) ** 2 for value in values)) for goal in (0.2, 0.8)
    )


def noisy(trial: Trial) -> tuple[float, float]:
    text = repr((trial.config_id, trial.fidelity)).encode()
    error = (hashlib.sha256(text).digest()[0] / 255 - 0.5) / 50
    cost = bowl(trial.configuration)
    return min(max(cost + error, 0.0), 1.0), min(max(1.0 - cost - error, 0.0), 1.0)


def search(
    name: str,
    seed: int = 0,
    objectives: Sequence[Objective] = TWO,
    budgets: tuple[int, int, int] = (10, 90, 3),
) -> HyperbandOptimizer:
    stages = hyperband_round(*budgets)
    return build_optimizer(name, conditional_space(), seed, stages, STARTS, objectives)


def drive_several(optimizer: HyperbandOptimizer, num_tells: int, costs=noisy) -> list[Event]:
    """As :func:`drive`, with costs per objective; ``None`` for a failure."""
    events: list[Event] = []
    untold = list(optimizer.untold())
    for _ in range(num_tells):
        while len(untold) <= 1:
            untold.append(optimizer.ask())
            events.append(("ask", untold[-1]))
        trial = untold.pop(0)
        found = costs(trial)
        result = Outcome(Status.CRASHED, error="planted") if found is None else success(found)
        optimizer.tell(trial, result)
        events.append(("tell", trial.index, result))
    return events


class TestPromotion:
    ROUND = hyperband_round(10, 90, 3)  # nine at 10, three at 30, one at 90

    def promoted(self, costs: Sequence[tuple[float, ...] | None]) -> list[int]:
        schedule = Schedule(self.ROUND)
        for _ in costs:
            schedule.take(schedule.next_slot())
        for number, cost in enumerate(costs):
            schedule.record(0, 0, number, cost)
        found = []
        while (slot := schedule.next_slot()) is not None and slot.bracket == 0:
            schedule.take(slot)
            assert slot == Slot(0, 1, 30, slot.config_id)
            found.append(slot.config_id)
        return found

    def test_front_first_then_its_loneliest_members(self) -> None:
        # The front is 1, 2, 4, 5; the ends 1 and 5 go first, then 4, which is lonelier than 2.
        front = {1: (0.1, 0.9), 2: (0.2, 0.85), 4: (0.5, 0.5), 5: (0.9, 0.1)}
        costs = [front.get(number, (0.95, 0.95)) for number in range(9)]
        assert self.promoted(costs) == [1, 5, 4]

    def test_rank_comes_before_loneliness(self) -> None:
        # Zero alone is the front; of the second rank the ends.
        costs = [(0.1, 0.1), *[(0.2 + n / 20, 0.9 - n / 20) for n in range(8)]]
        assert self.promoted(costs) == [0, 1, 8]

    def test_equal_points_move_up_by_number_and_failures_never(self) -> None:
        assert self.promoted([None, *[(0.5, 0.5)] * 8]) == [1, 2, 3]
        assert self.promoted([None] * 8 + [(1.0, 1.0)]) == [8]

    def test_a_constant_objective_decides_nothing(self) -> None:
        assert self.promoted([(0.9 - n / 10, 0.4) for n in range(9)]) == [8, 7, 6]

    def test_one_objective_is_the_plain_order(self) -> None:
        assert self.promoted([(abs(n - 4) / 10,) for n in range(9)]) == [4, 3, 5]


class TestIncumbents:
    def told(self, *trials: tuple[int, tuple[float, float] | None]) -> list[int]:
        """Numbers of the incumbents after outcomes at the given stages of one bracket."""
        optimizer = search("random", budgets=(10, 90, 3))
        for index, (stage, costs) in enumerate(trials):
            trial = optimizer.ask()
            assert trial.index == index
            assert trial.stage == stage
            result = Outcome(Status.CRASHED) if costs is None else success(costs)
            optimizer.tell(trial, result)
        return [trial.config_id for trial in optimizer.incumbents()]

    def test_the_front_of_the_highest_rung_best_mean_first(self) -> None:
        low = [(0, (0.1 * n, 0.9 - 0.1 * n)) for n in range(9)]
        # Weights 1 and 3: the second objective matters more, so 8 is best in the mean.
        assert self.told(*low) == [8, 7, 6, 5, 4, 3, 2, 1, 0]
        # Promoted were the ends 0 and 8 and number 1; at the next rung 8 dominates 1.
        higher = [(1, (0.2, 0.8)), (1, (0.3, 0.3)), (1, (0.4, 0.4))]
        assert self.told(*low, *higher) == [8, 0]

    def test_failures_and_repeated_points_are_left_out(self) -> None:
        low = [(0, (0.5, 0.5)) if n % 2 else (0, None) for n in range(9)]
        assert self.told(*low) == [1]
        assert self.told(*[(0, None)] * 9) == []


class TestParego:
    def test_values_by_hand(self) -> None:
        assert augmented_tchebycheff((0.5, 0.2), (0.25, 0.75)) == pytest.approx(
            0.15 + 0.05 * (0.125 + 0.15)
        )
        assert augmented_tchebycheff((0.0, 0.0, 0.0), (0.2, 0.3, 0.5)) == 0.0

    def test_normalised_by_hand(self) -> None:
        assert normalised([(0.2, 0.7), (0.6, 0.7), (0.3, 0.7)]) == [
            (0.0, 0.0),
            (1.0, 0.0),
            pytest.approx((0.25, 0.0)),
        ]
        assert normalised([]) == []

    @given(st.integers(1, 6), st.integers(0, 2**31 - 1))
    def test_directions_lie_on_the_simplex(self, size: int, seed: int) -> None:
        direction = simplex_point(size, seed)
        assert min(direction) >= 0
        assert sum(direction) == pytest.approx(1.0)
        assert direction == simplex_point(size, seed)

    def test_directions_are_uniform(self) -> None:
        # On the simplex of three the first weight has the distribution function 1 - (1 - x)^2.
        drawn = [simplex_point(3, child_seed(0, "parego", n)) for n in range(2000)]
        for level in (0.1, 0.3, 0.6):
            for place in range(3):
                share = statistics.fmean(point[place] < level for point in drawn)
                assert share == pytest.approx(1 - (1 - level) ** 2, abs=0.04)

    def test_what_the_wrapped_proposer_sees(self) -> None:
        seen: list[Sequence[Observation]] = []

        class Spy:
            def propose(self, history: Sequence[Observation]) -> Proposal:
                seen.append(history)
                return Proposal({}, "spy")

            def close(self) -> None:
                seen.clear()

        history = (
            Observation(0, {}, 0.3, 10, Status.SUCCESS, (0.2, 0.4)),
            Observation(1, {}, FAILURE_COST, 10, Status.CRASHED),
            Observation(2, {}, 0.5, 30, Status.SUCCESS, (0.6, 0.1)),
            Observation(3, {}),
        )
        proposer = ParegoProposer(Spy(), (1.0, 4.0), 7)
        assert proposer.propose(history) == Proposal({}, "spy")
        (shown,) = seen
        a, b = simplex_point(2, child_seed(7, "parego", 4))
        # Normalised: (0, 1) and (1, 0); the weights make them (0, 1) and (1/4, 0).
        assert shown[0].cost == pytest.approx(1.05 * b)
        assert shown[2].cost == pytest.approx(1.05 * a / 4)
        assert (shown[1], shown[3]) == (history[1], history[3])
        proposer.close()
        assert seen == []

    @settings(max_examples=30)
    @given(
        st.lists(
            st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12
        ),
        st.integers(0, 1000),
    )
    def test_a_dominating_point_is_never_shown_as_worse(self, points, seed: int) -> None:
        direction = simplex_point(3, seed)
        costs = [augmented_tchebycheff(point, direction) for point in normalised(points)]
        for one, mine in zip(points, costs, strict=True):
            for other, theirs in zip(points, costs, strict=True):
                if all(a <= b for a, b in zip(one, other, strict=True)):
                    assert mine <= theirs + 1e-12


def test_a_single_objective_run_is_what_it_was() -> None:
    plain = HyperbandOptimizer(
        hyperband_round(10, 90, 3), STARTS, RandomProposer(conditional_space(), 0)
    )
    built = search("random", objectives=())
    assert drive(plain, 25) == drive(built, 25)
    (best,) = built.incumbents()
    assert [best] == plain.incumbents()
    assert all(not entry.costs for entry in built._history)


@pytest.mark.parametrize("name", ["random", "smac"])
def test_a_restored_optimizer_goes_on_as_if_never_interrupted(name: str) -> None:
    whole = search(name, seed=3)
    events = drive_several(whole, 20)
    whole.close()
    assert sum(trial.origin == name for trial in asks(events)) >= 4
    for cut in (9, 35, len(events)):
        resumed = search(name, seed=3)
        resumed.restore(events[:cut])
        num_tells = sum(event[0] == "tell" for event in events[:cut])
        assert [*events[:cut], *drive_several(resumed, 20 - num_tells)] == events
        assert resumed.incumbents() == whole.incumbents()
        resumed.close()


def test_hostile_values_do_not_stop_the_search() -> None:
    def constant(trial: Trial) -> tuple[float, float] | None:
        return None if trial.config_id % 3 == 0 else (0.5, 0.5)

    optimizer = search("smac", seed=1)
    events = drive_several(optimizer, 18, constant)
    assert sum(trial.origin == "smac" for trial in asks(events)) >= 2
    assert len(optimizer.incumbents()) == 1
    optimizer.close()
    failing = search("smac", seed=1)
    drive_several(failing, 14, lambda trial: None)
    assert failing.incumbents() == []
    failing.close()


def covered(name: str, seed: int, num_tells: int = 32) -> float:
    """Hypervolume of the incumbents on the two bowls; one rung."""
    stages = hyperband_round(20, 20, 3)
    optimizer = build_optimizer(name, line_space(), seed, stages, [], TWO)
    drive_several(optimizer, num_tells, lambda trial: two_bowls(trial.configuration))
    optimizer.close()
    points = [two_bowls(trial.configuration) for trial in optimizer.incumbents()]
    return hypervolume(points, (0.36, 0.36))


def test_the_front_is_covered_better_than_by_chance() -> None:
    ours, chance = ([covered(name, seed) for seed in range(3)] for name in ("smac", "random"))
    assert all(mine > theirs for mine, theirs in zip(ours, chance, strict=True)), (ours, chance)
    # The whole front covers 0.108 of 0.1296.
    assert statistics.median(ours) > 0.085, (ours, chance)
