"""Hyperband arithmetic against the published table and against its own laws."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auto_merge.errors import ConfigError
from auto_merge.optimizers.fidelity import hyperband_round, num_trials_for_total_budget, rungs


def table(*arguments: float) -> list[list[tuple[int, int]]]:
    return [
        [(stage.size, stage.fidelity) for stage in bracket.stages]
        for bracket in hyperband_round(*arguments)
    ]


def test_published_table_100_1000_3() -> None:
    brackets = hyperband_round(100, 1000, 3)
    assert table(100, 1000, 3) == [
        [(9, 111), (3, 333), (1, 1000)],
        [(5, 333), (1, 1000)],
        [(3, 1000)],
    ]
    stages = [stage for bracket in brackets for stage in bracket.stages]
    assert stages[0].budget == pytest.approx(1000 / 9)
    assert sum(stage.size for stage in stages) == 22
    assert math.fsum(stage.size * stage.budget for stage in stages) == pytest.approx(8666.667, 1e-6)
    assert rungs(brackets) == (111, 333, 1000)


def test_published_table_3_81_3() -> None:
    assert table(3, 81, 3) == [
        [(27, 3), (9, 9), (3, 27), (1, 81)],
        [(12, 9), (4, 27), (1, 81)],
        [(6, 27), (2, 81)],
        [(4, 81)],
    ]


@pytest.mark.parametrize(
    ("low", "high", "eta", "depth"),
    [(1, 243, 3, 5), (3, 729, 3, 5), (1, 1000, 10, 3), (1, 125, 5, 3)],
)
def test_an_exact_power_of_eta_keeps_its_lowest_rung(
    low: int, high: int, eta: int, depth: int
) -> None:
    brackets = hyperband_round(low, high, eta)
    assert len(brackets) == depth + 1
    assert rungs(brackets)[0] == low
    assert [stage.size for stage in brackets[0].stages] == [eta**k for k in range(depth, -1, -1)]


def test_equal_budgets_are_a_plain_search() -> None:
    assert table(50, 50, 3) == [[(1, 50)]]


@given(st.integers(1, 500), st.integers(0, 5000), st.integers(2, 6))
def test_rungs_are_distinct_ascending_and_within_the_budgets(
    low: int, extra: int, eta: int
) -> None:
    brackets = hyperband_round(low, low + extra, eta)
    levels = rungs(brackets)
    assert levels[0] >= low
    assert levels[-1] == low + extra
    assert len(levels) == len(brackets)
    for bracket in brackets:
        sizes = [stage.size for stage in bracket.stages]
        fidelities = [stage.fidelity for stage in bracket.stages]
        assert all(size >= 1 for size in sizes)
        assert sizes == sorted(sizes, reverse=True)
        assert fidelities == sorted(set(fidelities))
        assert fidelities[-1] == low + extra


@pytest.mark.parametrize(
    ("total", "trials"),
    [
        (0, 0),
        (111, 0),
        (112, 1),
        (1000, 9),  # nine at 111.1 exhaust it
        (1999, 11),  # nine at 111.1, then 999 / 333.3 = 2.997
        (8666 + 2 / 3, 22),
        (2 * 8666.667 + 1000, 53),
        # Eleven rounds leave 4666.67: 9 (1000), 3 (1000), 1 (1000), 5 (1666.67).
        (100_000, 11 * 22 + 18),
    ],
)
def test_trials_for_a_total_budget(total: float, trials: int) -> None:
    assert num_trials_for_total_budget(total, 100, 1000, 3) == trials


@given(st.floats(0, 1e6), st.integers(1, 200), st.integers(0, 2000), st.integers(2, 5))
def test_more_budget_never_buys_fewer_rounds(total: float, low: int, extra: int, eta: int) -> None:
    stages = [s for b in hyperband_round(low, low + extra, eta) for s in b.stages]
    per_round = sum(stage.size for stage in stages)
    cost = math.fsum(stage.size * stage.budget for stage in stages)
    trials = num_trials_for_total_budget(total, low, low + extra, eta)
    assert per_round * math.floor(total / cost) <= trials
    assert num_trials_for_total_budget(total + 1.001 * cost, low, low + extra, eta) >= per_round


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, 10, 3), "min_budget = 0"),
        ((20, 10, 3), "1 <= min_budget <= max_budget"),
        ((math.nan, 10, 3), "min_budget = nan"),
        ((1, 10, 1), "eta must be at least 2"),
    ],
)
def test_impossible_arguments_are_refused(arguments: tuple[float, ...], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        hyperband_round(*arguments)


def test_a_negative_total_is_refused() -> None:
    with pytest.raises(ConfigError, match="total_budget must not be negative"):
        num_trials_for_total_budget(-1, 1, 10)
