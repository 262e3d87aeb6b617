"""The state of open brackets, on hand-worked rounds."""

from hypothesis import given, settings
from hypothesis import strategies as st

from auto_merge.optimizers.fidelity import hyperband_round
from auto_merge.optimizers.schedule import Schedule, Slot

ROUND = hyperband_round(10, 90, 3)  # [9, 3, 1] at 10, 30, 90; [5, 1] at 30, 90; [3] at 90


def fill(schedule: Schedule, config_id: int) -> Slot:
    slot = schedule.next_slot()
    assert slot is not None
    schedule.take(slot)
    return Slot(
        slot.bracket,
        slot.stage,
        slot.fidelity,
        config_id if slot.config_id is None else slot.config_id,
    )


def test_nine_then_the_best_three_then_the_best_one() -> None:
    schedule = Schedule(ROUND)
    for number in range(9):
        assert fill(schedule, number) == Slot(0, 0, 10, number)
    for number in range(9):
        schedule.record(0, 0, number, abs(number - 4) / 10)
    promoted = [fill(schedule, -1) for _ in range(3)]
    assert promoted == [Slot(0, 1, 30, 4), Slot(0, 1, 30, 3), Slot(0, 1, 30, 5)]
    for slot, cost in zip(promoted, (0.3, 0.2, 0.2), strict=True):
        schedule.record(0, 1, slot.config_id, cost)
    assert fill(schedule, -1) == Slot(0, 2, 90, 3)  # equal costs: the smaller number
    schedule.record(0, 2, 3, 0.1)
    assert schedule.next_slot() == Slot(1, 0, 30, None)


def test_a_waiting_stage_sends_the_next_ask_to_the_next_bracket() -> None:
    schedule = Schedule(ROUND)
    for number in range(9):
        fill(schedule, number)
    assert fill(schedule, 9) == Slot(1, 0, 30, 9)
    for number in range(9):
        schedule.record(0, 0, number, 0.5)
    assert fill(schedule, -1) == Slot(0, 1, 30, 0)  # a promotion comes before the new bracket


def test_failures_are_not_promoted() -> None:
    schedule = Schedule(ROUND)
    for number in range(9):
        fill(schedule, number)
    for number in range(9):
        schedule.record(0, 0, number, 0.7 if number in (2, 6) else None)
    assert [fill(schedule, -1).config_id for _ in range(2)] == [2, 6]
    assert schedule.next_slot() == Slot(1, 0, 30, None)
    schedule.record(0, 1, 2, None)
    schedule.record(0, 1, 6, None)
    assert schedule.next_slot() == Slot(1, 0, 30, None)  # the first bracket is over


def test_the_first_stage_grows_to_hold_all_start_points() -> None:
    schedule = Schedule(ROUND, first_stage=12)
    slots = [fill(schedule, number) for number in range(13)]
    assert [slot.bracket for slot in slots] == [0] * 12 + [1]
    for number in range(12):
        schedule.record(0, 0, number, number / 20)
    assert [fill(schedule, -1).config_id for _ in range(3)] == [0, 1, 2]


def test_no_new_configurations_after_the_space_is_exhausted() -> None:
    schedule = Schedule(ROUND)
    for number in range(2):
        fill(schedule, number)
    schedule.record(0, 0, 0, 0.4)
    schedule.close_to_new()
    assert schedule.next_slot() is None  # one result is missing
    schedule.record(0, 0, 1, 0.3)
    assert [fill(schedule, -1).config_id for _ in range(2)] == [1, 0]
    assert schedule.next_slot() is None


@settings(deadline=None, max_examples=60)
@given(st.randoms(use_true_random=False), st.integers(0, 4), st.floats(0, 1))
def test_any_order_of_results_never_repeats_a_place(random, lag, failure_rate) -> None:
    schedule = Schedule(ROUND)
    seen: set[tuple[int, int]] = set()
    highest: dict[int, int] = {}
    untold: list[Slot] = []
    fresh = 0
    for _ in range(150):
        slot = fill(schedule, fresh)
        fresh = max(fresh, slot.config_id + 1)
        assert (slot.config_id, slot.fidelity) not in seen
        assert slot.fidelity > highest.get(slot.config_id, 0)
        seen.add((slot.config_id, slot.fidelity))
        highest[slot.config_id] = slot.fidelity
        untold.append(slot)
        if len(untold) > lag:
            done = untold.pop(random.randrange(len(untold)))
            cost = None if random.random() < failure_rate else random.random()
            schedule.record(done.bracket, done.stage, done.config_id, cost)
