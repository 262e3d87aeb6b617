"""Hypervolumes that are known, inclusion and exclusion, Monte Carlo, laws, refusals."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auto_merge.statistics import contribution, hypervolume, hypervolume_share, largest_subset

Points = list[tuple[float, ...]]
CLOUDS = st.integers(1, 5).flatmap(
    lambda size: st.lists(
        st.tuples(*[st.floats(0, 1.2, allow_subnormal=False)] * size), min_size=0, max_size=7
    ).map(lambda points: (size, points))
)


def by_inclusion(points: Points, reference: tuple[float, ...]) -> float:
    """The sum over all subsets of the volume that they share."""
    total = 0.0
    for count in range(1, len(points) + 1):
        for subset in itertools.combinations(points, count):
            corner = [max(column) for column in zip(*subset, strict=True)]
            sides = [max(0.0, r - c) for r, c in zip(reference, corner, strict=True)]
            total += (-1) ** (count + 1) * math.prod(sides)
    return total


def test_known_areas() -> None:
    assert hypervolume([], (1.0, 1.0)) == 0.0
    assert hypervolume([(0.25,), (0.5,)], (1.0,)) == 0.75
    assert hypervolume([(0.5, 0.25)], (1.0, 1.0)) == 0.375
    # A staircase of three: 3 x 1 + 2 x 1 + 1 x 1.
    stairs = [(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]
    assert hypervolume(stairs, (4.0, 4.0)) == 6.0
    assert hypervolume([*stairs, (3.0, 3.0), (2.0, 2.0)], (4.0, 4.0)) == 6.0


def test_known_volumes() -> None:
    # Three boxes of 2 x 2 x 1; each two share 2 x 1 x 1, all three 1 x 1 x 1.
    corners = [(0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)]
    assert hypervolume(corners, (2.0, 2.0, 2.0)) == 3 * 4 - 3 * 2 + 1
    # The staircase times a constant side, in four dimensions.
    stairs = [(1.0, 3.0, 0.5, 0.0), (2.0, 2.0, 0.5, 0.0), (3.0, 1.0, 0.5, 0.0)]
    assert hypervolume(stairs, (4.0, 4.0, 1.0, 3.0)) == pytest.approx(6 * 0.5 * 3)


def test_points_that_are_not_below_the_reference_add_nothing() -> None:
    assert hypervolume([(0.2, 1.0), (1.5, 0.1)], (1.0, 1.0)) == 0.0
    assert hypervolume([(0.5, 0.5), (0.0, 1.2)], (1.0, 1.0)) == 0.25


def test_contribution_by_hand() -> None:
    stairs = [(1.0, 3.0), (3.0, 1.0)]
    assert contribution((2.0, 2.0), stairs, (4.0, 4.0)) == 1.0
    assert contribution((3.0, 3.0), stairs, (4.0, 4.0)) == 0.0
    assert contribution((4.0, 0.0), stairs, (4.0, 4.0)) == 0.0
    assert contribution((0.0, 0.0), stairs, (4.0, 4.0)) == 11.0


def test_share_of_the_box() -> None:
    assert hypervolume_share([(0.0, 0.0)], (0.5, 0.25)) == 1.0
    assert hypervolume_share([(0.25, 0.125)], (0.5, 0.25)) == 0.25
    assert hypervolume_share([(0.0, 0.0)], (0.5, 0.0)) == 0.0, "nothing is left to gain"


def test_subset_by_hand() -> None:
    # The third covers 2 x 3.5; then the second adds 0.5 x 2.5, more than the first with 1 x 1.
    points = [(1.0, 3.0), (1.5, 1.5), (2.0, 0.5), (3.9, 3.9)]
    assert largest_subset(points, 1, (4.0, 4.0)) == [2]
    assert largest_subset(points, 2, (4.0, 4.0)) == [1, 2]
    assert largest_subset(points, 3, (4.0, 4.0)) == [0, 1, 2]
    assert largest_subset(points, 9, (4.0, 4.0)) == [0, 1, 2, 3]
    assert largest_subset([(5.0, 5.0), (6.0, 6.0)], 1, (4.0, 4.0)) == [0]
    assert largest_subset([], 2, (4.0, 4.0)) == []


@settings(max_examples=40, deadline=None)
@given(CLOUDS, st.integers(0, 7))
def test_a_subset_reaches_its_guaranteed_share(cloud: tuple[int, Points], size: int) -> None:
    objectives, points = cloud
    reference = (1.0,) * objectives
    taken = largest_subset(points, size, reference)
    assert len(taken) == min(size, len(points))
    found = hypervolume([points[place] for place in taken], reference)
    best = max(
        hypervolume(subset, reference) for subset in itertools.combinations(points, len(taken))
    )
    assert found >= (1 - 1 / math.e) * best - 1e-9


@settings(max_examples=80, deadline=None)
@given(CLOUDS)
def test_agrees_with_inclusion_and_exclusion(cloud: tuple[int, Points]) -> None:
    size, points = cloud
    reference = (1.0,) * size
    found = hypervolume(points, reference)
    assert found == pytest.approx(by_inclusion(points, reference), abs=1e-9)
    assert -1e-12 <= found <= 1.0 + 1e-12


@settings(max_examples=60, deadline=None)
@given(CLOUDS.filter(lambda cloud: len(cloud[1]) > 0))
def test_laws(cloud: tuple[int, Points]) -> None:
    size, (point, *others) = cloud
    reference = (1.0,) * size
    whole = hypervolume([point, *others], reference)
    rest = hypervolume(others, reference)
    assert whole >= rest - 1e-12, "a point never takes anything away"
    assert whole - rest == pytest.approx(contribution(point, others, reference), abs=1e-9)
    assert hypervolume([*reversed(others), point], reference) == pytest.approx(whole, abs=1e-12)
    turned = [tuple(reversed(item)) for item in (point, *others)]
    assert hypervolume(turned, reference) == pytest.approx(whole, abs=1e-9)


@pytest.mark.parametrize("size", [2, 3, 4, 6])
def test_agrees_with_monte_carlo(size: int) -> None:
    generator = np.random.default_rng(size)
    points = generator.random((12, size)) ** 2
    drawn = generator.random((40_000, size))
    hit = np.zeros(len(drawn), dtype=bool)
    for point in points:
        hit |= (drawn >= point).all(axis=1)
    found = hypervolume([tuple(point) for point in points.tolist()], (1.0,) * size)
    assert found == pytest.approx(hit.mean(), abs=0.012)


def test_a_large_front_is_quick() -> None:
    generator = np.random.default_rng(0)
    directions = np.abs(generator.standard_normal((40, 5)))
    points = 1 - directions / np.linalg.norm(directions, axis=1, keepdims=True)
    assert 0 < hypervolume([tuple(point) for point in points.tolist()], (1.0,) * 5) < 1


@pytest.mark.parametrize(
    ("points", "reference", "text"),
    [
        ([(0.1,)], (1.0, 1.0), "has 1 costs, the reference 2"),
        ([(math.nan, 0.1)], (1.0, 1.0), "must be finite"),
        ([(0.1, 0.1)], (1.0, math.inf), "must be finite"),
        ([], (), "at least one objective"),
    ],
)
def test_refusals(points: Points, reference: tuple[float, ...], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        hypervolume(points, reference)
