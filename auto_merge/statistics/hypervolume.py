"""Hypervolume: how much of the space between a reference point and zero cost a front covers.

The dominated region of each point that later ones do not cover is added up, slice by slice along
the last objective (While, Bradstreet & Barone 2012, "A Fast Way of Calculating Exact
Hypervolumes"); two objectives are swept. Exact for any number of objectives, exponential in it in
the worst case, and fast for fronts of some dozen points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from auto_merge.statistics.pareto import Point, front

Points = list[tuple[float, ...]]


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Volume of what the points dominate below the reference point.

    Args:
        points: Costs, shape ``[n, m]``, minimised; n >= 0. They may dominate one another; those
            that are not below the reference in every objective add nothing.
        reference: The worst costs that count, shape ``[m]``, m >= 1.

    Returns:
        In [0, prod(reference)] for costs >= 0.

    Raises:
        ValueError: A point has another number of costs, or a number is not finite.
    """
    _check(points, reference)
    return _volume(_inside(points, reference), tuple(reference))


def contribution(point: Point, others: Sequence[Point], reference: Point) -> float:
    """Volume that ``point`` adds to the hypervolume of ``others``.

    Args:
        point: Costs, shape ``[m]``.
        others: Costs of the other points, shape ``[n, m]``.
        reference: As in :func:`hypervolume`.

    Raises:
        ValueError: As in :func:`hypervolume`.
    """
    _check([point, *others], reference)
    inside = _inside([point], reference)
    if not inside:
        return 0.0
    return _exclusive(inside[0], _inside(others, reference), tuple(reference))


def largest_subset(points: Sequence[Point], size: int, reference: Point) -> list[int]:
    """Positions of ``size`` points with a large hypervolume, ascending.

    The point that adds most is taken, then the one that adds most to it, and so on; of equal ones
    the first. That reaches at least 63 % of the best subset of this size (Nemhauser, Wolsey &
    Fisher 1978), as a rule nearly all of it.

    Args:
        points: Costs, shape ``[n, m]``.
        size: How many to take; all if there are no more.
        reference: As in :func:`hypervolume`.

    Raises:
        ValueError: As in :func:`hypervolume`.
    """
    taken: list[int] = []
    left = list(range(len(points)))
    while left and len(taken) < size:
        others = [points[place] for place in taken]
        added = [contribution(points[place], others, reference) for place in left]
        best = left[added.index(max(added))]
        taken.append(best)
        left.remove(best)
    return sorted(taken)


def hypervolume_share(points: Sequence[Point], reference: Point) -> float:
    """Hypervolume as a share of the box between the reference point and zero cost, in [0, 1].

    0.0 if the box is empty, because the reference has no cost left to save in some objective.

    Args:
        points: As in :func:`hypervolume`, with costs >= 0.
        reference: As in :func:`hypervolume`, with costs >= 0.

    Raises:
        ValueError: As in :func:`hypervolume`.
    """
    box = box_volume(reference)
    volume = hypervolume(points, reference)
    return volume / box if box > 0 else 0.0


def box_volume(reference: Point) -> float:
    """Volume between a reference point and zero cost: the largest possible hypervolume."""
    return math.prod(reference)


def _check(points: Sequence[Point], reference: Point) -> None:
    if not reference:
        raise ValueError("a hypervolume needs at least one objective")
    for point in (*points, reference):
        if len(point) != len(reference):
            raise ValueError(f"{point} has {len(point)} costs, the reference {len(reference)}")
        if not all(map(math.isfinite, point)):
            raise ValueError(f"costs must be finite, got {tuple(point)}")


def _inside(points: Sequence[Point], reference: Point) -> Points:
    """The points that are below the reference in every objective."""
    return [
        tuple(point)
        for point in points
        if all(cost < worst for cost, worst in zip(point, reference, strict=True))
    ]


def _volume(points: Points, reference: tuple[float, ...]) -> float:
    """Hypervolume of points that lie below the reference."""
    points = [points[place] for place in front(points)]
    if not points:
        return 0.0
    if len(reference) == 1:
        return reference[0] - points[0][0]
    if len(reference) == 2:
        return _area(points, reference)
    # Worst in the last objective first: all later points cover the slice of a point whole, so that
    # its own part of it is a matter of the other objectives.
    points.sort(key=lambda point: -point[-1])
    parts = []
    for place, point in enumerate(points):
        later = [other[:-1] for other in points[place + 1 :]]
        own = _exclusive(point[:-1], later, reference[:-1])
        parts.append((reference[-1] - point[-1]) * own)
    return math.fsum(parts)


def _area(points: Points, reference: tuple[float, ...]) -> float:
    """Hypervolume of a front of two objectives: strips from the first cost to the next one."""
    points = sorted(points)
    ends = [*(point[0] for point in points[1:]), reference[0]]
    return math.fsum(
        (end - point[0]) * (reference[1] - point[1])
        for point, end in zip(points, ends, strict=True)
    )


def _exclusive(
    point: tuple[float, ...], others: Sequence[tuple[float, ...]], reference: tuple[float, ...]
) -> float:
    """Volume that ``point`` dominates and none of ``others`` does, all below the reference."""
    whole = math.prod(worst - cost for cost, worst in zip(point, reference, strict=True))
    shared = [tuple(map(max, point, other)) for other in others]
    return whole - _volume(shared, reference)
