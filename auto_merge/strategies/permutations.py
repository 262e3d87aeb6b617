"""Permutations of items of several kinds, by their number and without listing them.

Items of one kind keep their order, so the permutations of n items number n! / (n_1! ... n_k!).
They are counted in the lexicographic order of their item indices: number 0 is the identity.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Hashable, Sequence


def count(kinds: Sequence[Hashable]) -> int:
    """Number of permutations.

    Args:
        kinds: Kind of every item.
    """
    total = math.factorial(len(kinds))
    for size in Counter(kinds).values():
        total //= math.factorial(size)
    return total


def unrank(rank: int, kinds: Sequence[Hashable]) -> tuple[int, ...]:
    """Returns the permutation with a given number as item indices.

    Args:
        rank: Number in [0, ``count(kinds)``).
        kinds: Kind of every item.
    """
    assert 0 <= rank < count(kinds), f"no permutation {rank} of {len(kinds)} items"
    waiting: dict[Hashable, deque[int]] = {}
    for item, kind in enumerate(kinds):
        waiting.setdefault(kind, deque()).append(item)
    permutations = count(kinds)
    order: list[int] = []
    for left in range(len(kinds), 0, -1):
        for queue in sorted(waiting.values(), key=lambda queue: queue[0]):
            # Of the permutations of the items left, each kind comes first in its share of them.
            starting = permutations * len(queue) // left
            if rank < starting:
                break
            rank -= starting
        permutations = starting
        order.append(queue.popleft())
        waiting = {kind: queue for kind, queue in waiting.items() if queue}
    return tuple(order)


def rank(order: Sequence[int], kinds: Sequence[Hashable]) -> int:
    """Returns the number of a permutation; the inverse of :func:`unrank`.

    Args:
        order: Item indices; items of one kind ascend.
        kinds: Kind of every item.
    """
    number = 0
    left = list(range(len(kinds)))
    for item in order:
        seen: set[Hashable] = set()
        for other in left:
            if other == item:
                break
            if kinds[other] not in seen and kinds[other] != kinds[item]:
                seen.add(kinds[other])
                number += count([kinds[i] for i in left if i != other])
        left.remove(item)
    return number
