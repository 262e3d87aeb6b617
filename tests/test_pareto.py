"""Dominance, ranks and crowding on hand-worked fronts, and their laws."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auto_merge.statistics.pareto import (
    crowding_distances,
    dominates,
    front,
    ranked,
    ranks,
    thinned,
)

COST = st.integers(0, 6).map(float)
CLOUDS = st.integers(1, 4).flatmap(
    lambda size: st.lists(st.tuples(*[COST] * size), min_size=1, max_size=14)
)


def test_dominance() -> None:
    assert dominates((0.1, 0.2), (0.1, 0.3))
    assert not dominates((0.1, 0.2), (0.1, 0.2))
    assert not dominates((0.1, 0.3), (0.2, 0.2))


def test_front_and_ranks_by_hand() -> None:
    points = [(1.0, 5.0), (2.0, 2.0), (3.0, 3.0), (5.0, 1.0), (4.0, 4.0), (2.0, 2.0)]
    assert front(points) == [0, 1, 3], "the second (2, 2) is a repetition"
    assert ranks(points) == [[0, 1, 3, 5], [2], [4]]
    assert front([]) == []
    assert ranks([]) == []


def test_crowding_by_hand() -> None:
    # Ranges 10 and 8. Second point: (4 - 0) / 10 + (8 - 3) / 8; third: (10 - 1) / 10 + (4 - 0) / 8.
    points = [(0.0, 8.0), (1.0, 4.0), (4.0, 3.0), (10.0, 0.0)]
    assert crowding_distances(points) == pytest.approx([math.inf, 1.025, 1.4, math.inf])


def test_crowding_of_odd_fronts() -> None:
    assert crowding_distances([]) == []
    assert crowding_distances([(1.0, 2.0)]) == [math.inf]
    assert crowding_distances([(1.0, 2.0)] * 3) == [math.inf, 0.0, 0.0]
    # The second objective is constant: only the first one counts.
    flat = [(0.0, 1.0), (1.0, 1.0), (4.0, 1.0)]
    assert crowding_distances(flat) == [math.inf, 1.0, math.inf]


def test_order_of_promotion_by_hand() -> None:
    points = [(2.0, 2.0), (0.0, 8.0), (1.0, 4.0), (10.0, 0.0), (9.0, 9.0), (2.0, 2.0)]
    # Ends, then (1, 4): 2 / 10 + 6 / 8, after (2, 2): 9 / 10 + 4 / 8; its repetition is the last.
    assert ranked(points) == [1, 3, 0, 2, 5, 4]


def test_thinning_by_hand() -> None:
    # Without the second point the fourth is the least lonely one of the rest.
    points = [(0.0, 10.0), (1.0, 9.0), (2.0, 7.0), (6.0, 6.0), (7.0, 2.0), (10.0, 0.0)]
    assert crowding_distances(points)[1:-1] == pytest.approx([0.5, 0.8, 1.0, 1.0])
    assert thinned(points, 5) == [0, 2, 3, 4, 5]
    assert thinned(points, 4) == [0, 2, 3, 5]
    assert thinned(points, 9) == [0, 1, 2, 3, 4, 5]
    assert thinned(points, 1) == [0]
    assert thinned(points, 0) == []


@given(CLOUDS)
def test_laws(points: list[tuple[float, ...]]) -> None:
    best = front(points)
    assert len({points[place] for place in best}) == len(best)
    for place, point in enumerate(points):
        beaten = any(dominates(other, point) for other in points)
        equal_earlier = point in points[:place]
        assert (place in best) == (not beaten and not equal_earlier)
    layers = ranks(points)
    assert sorted(place for layer in layers for place in layer) == list(range(len(points)))
    for upper, lower in itertools.pairwise(layers):
        for place in lower:
            assert any(dominates(points[other], points[place]) for other in upper)
    order = ranked(points)
    assert sorted(order) == list(range(len(points)))
    depth = {place: level for level, layer in enumerate(layers) for place in layer}
    assert [depth[place] for place in order] == sorted(depth.values())


@given(CLOUDS, st.integers(0, 8))
def test_thinning_keeps_members_and_the_size(points: list[tuple[float, ...]], size: int) -> None:
    kept = thinned(points, size)
    assert kept == sorted(set(kept))
    assert len(kept) == min(size, len(points))


@given(CLOUDS, st.randoms(use_true_random=False))
def test_the_front_does_not_depend_on_the_order(points: list[tuple[float, ...]], dice) -> None:
    shuffled = list(points)
    dice.shuffle(shuffled)
    assert {points[place] for place in front(points)} == {
        shuffled[place] for place in front(shuffled)
    }
