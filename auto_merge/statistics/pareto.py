"""Points with several costs: dominance, ranks, crowding. Every cost is minimised.

A point dominates another one if no cost of it is larger and one is smaller. Ranks and crowding
distance are those of NSGA-II (Deb et al. 2002).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = Sequence[float]
"""Costs of one point, one per objective, finite."""


def dominates(one: Point, other: Point) -> bool:
    """Whether ``one`` is nowhere worse than ``other`` and somewhere better."""
    return all(mine <= theirs for mine, theirs in zip(one, other, strict=True)) and any(
        mine < theirs for mine, theirs in zip(one, other, strict=True)
    )


def front(points: Sequence[Point]) -> list[int]:
    """Positions of the points that no other one dominates, ascending; of equal ones the first."""
    seen: set[tuple[float, ...]] = set()
    found = []
    for place in _undominated(points, range(len(points))):
        key = tuple(points[place])
        if key not in seen:
            seen.add(key)
            found.append(place)
    return found


def ranks(points: Sequence[Point]) -> list[list[int]]:
    """Positions by rank: the front, the front of what remains without it, and so on.

    Equal points have equal rank.
    """
    left = list(range(len(points)))
    found = []
    while left:
        found.append(_undominated(points, left))
        taken = set(found[-1])
        left = [place for place in left if place not in taken]
    return found


def crowding_distances(points: Sequence[Point]) -> list[float]:
    """How lonely each point of a front is: the larger, the more would be lost without it.

    Sum over the objectives of the distance between the two neighbours, as a share of the range.
    The ends of every objective have infinite distance. An objective in which all points agree
    counts nothing, and a repetition of an earlier point has distance zero.
    """
    first: dict[tuple[float, ...], int] = {}
    for place, point in enumerate(points):
        first.setdefault(tuple(point), place)
    places = list(first.values())
    distances = [0.0] * len(points)
    if len(places) <= 2:
        for place in places:
            distances[place] = math.inf
        return distances
    for objective in range(len(points[0])):
        order = sorted(places, key=lambda place: points[place][objective])
        low, high = points[order[0]][objective], points[order[-1]][objective]
        if low == high:
            continue
        distances[order[0]] = distances[order[-1]] = math.inf
        for before, place, after in zip(order, order[1:], order[2:], strict=False):
            gap = points[after][objective] - points[before][objective]
            distances[place] += gap / (high - low)
    return distances


def ranked(points: Sequence[Point]) -> list[int]:
    """Positions from best to worst: by rank, then the lonelier first, then by position."""
    order: list[int] = []
    for places in ranks(points):
        distances = crowding_distances([points[place] for place in places])
        lonely = dict(zip(places, distances, strict=True))
        order += sorted(places, key=lambda place: (-lonely[place], place))
    return order


def thinned(points: Sequence[Point], size: int) -> list[int]:
    """Positions of at most ``size`` points that spread over a front, ascending.

    The least lonely point goes, then the least lonely of the rest, and so on; of equally lonely
    ones the later.

    Args:
        points: Points of one front.
        size: How many may stay; >= 0.
    """
    places = list(range(len(points)))
    while len(places) > size:
        distances = crowding_distances([points[place] for place in places])
        places.pop(min(range(len(places)), key=lambda index: (distances[index], -index)))
    return places


def _undominated(points: Sequence[Point], places: Sequence[int]) -> list[int]:
    """Those of ``places`` whose points no point of another one of them dominates."""
    return [
        place
        for place in places
        if not any(dominates(points[other], points[place]) for other in places)
    ]
