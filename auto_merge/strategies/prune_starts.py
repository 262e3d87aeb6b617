"""Start points of pruning: which layers to remove first, and what to make the others from."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

_SEED = 42
_NUM_BLOCKS = 8
_SCALES = (0.5, 0.7, 0.3, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Pattern:
    """What every layer that stays is made from.

    Attributes:
        candidates: Numbers of the models that take part; none means the base.
        merge_scale: Scale of the summed task vectors; acts for two candidates and more.
    """

    candidates: tuple[int, ...]
    merge_scale: float | None = None


def removal_lists(num_layers: int, num_removed: int) -> Mapping[str, frozenset[int]]:
    """Returns label -> layers to remove; the same for every call.

    First come orders in which layers go: from the end, from the middle, and the three random ones
    that the published search starts from, all of which keep the first and the last layer as long
    as there are others. Then come neighbouring layers, at up to eight places from the first to the
    last, the ends included: what is useless may stand anywhere.
    """
    if num_removed == 0:
        return {"all layers": frozenset()}
    rng = random.Random(_SEED)
    middle = num_layers // 2
    upper, lower = list(range(middle, num_layers - 1)), list(range(1, middle))
    central = [layer for layer in range(middle - 3, middle + 4) if 1 <= layer <= num_layers - 2]
    outer = [layer for layer in range(1, num_layers - 1) if layer not in central]
    from_the_end = range(num_layers - 2, -1, -1)
    from_the_middle = sorted(
        range(num_layers - 1), key=lambda layer: abs(2 * layer - (num_layers - 1))
    )
    orders: dict[str, Sequence[int]] = {
        "last layers removed": from_the_end,
        "middle layers removed": from_the_middle,
        "upper half thinned": [*_shuffled(upper, rng), *_shuffled(lower, rng)],
        "both halves thinned": _interleaved(_shuffled(upper, rng), _shuffled(lower, rng)),
        "middle thinned": [*_shuffled(central, rng), *_shuffled(outer, rng)],
    }
    # The ends go when nothing else is left to go.
    ends = (num_layers - 1, 0)
    found = {
        label: frozenset(list(dict.fromkeys([*order, *ends]))[:num_removed])
        for label, order in orders.items()
    }
    last = num_layers - num_removed
    count = min(_NUM_BLOCKS, last + 1)
    for start in sorted({round(number * last / max(1, count - 1)) for number in range(count)}):
        gone = frozenset(range(start, start + num_removed))
        if gone not in found.values():
            end = start + num_removed - 1
            found[
                f"layer {start} removed" if end == start else f"layers {start} to {end} removed"
            ] = gone
    return found


def patterns(num_models: int, merge_scale: tuple[float, float]) -> tuple[list[Pattern], ...]:
    """Returns the patterns to try first, one of each kind, and the others.

    First: the base, every model alone, all models together at two scales. Then: all models and all
    pairs at the other scales. A scale outside the range is left out.

    Args:
        num_models: Number of models.
        merge_scale: Range ``(low, high)`` of the merge scale.
    """
    low, high = merge_scale
    scales = [scale for scale in _SCALES if low <= scale <= high] or [(low + high) / 2]
    everyone = tuple(range(num_models))
    several = dict.fromkeys([everyone, *combinations(everyone, 2)]) if num_models > 1 else {}
    blends = [Pattern(candidates, scale) for candidates in several for scale in scales]
    first = [Pattern(()), *(Pattern((model,)) for model in everyone)]
    leading = blends[:2] if len(scales) > 1 else blends[:1]
    return first + leading, blends[len(leading) :]


def in_useful_order(
    lists: Sequence[str], leading: Sequence[Pattern], others: Sequence[Pattern]
) -> Iterator[tuple[str, Pattern]]:
    """Yields every pair, such that a short prefix holds every list and every leading pattern."""
    for shift in range(len(leading)):
        for number, label in enumerate(lists):
            yield label, leading[(number + shift) % len(leading)]
    for pattern in others:
        for label in lists:
            yield label, pattern


def _shuffled(layers: Sequence[int], rng: random.Random) -> list[int]:
    return rng.sample(layers, len(layers))


def _interleaved(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """Alternates between two lists; the rest of the longer one follows."""
    pairs = [layer for pair in zip(first, second, strict=False) for layer in pair]
    shorter = min(len(first), len(second))
    return [*pairs, *first[shorter:], *second[shorter:]]
