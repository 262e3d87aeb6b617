"""What the flat configurations of depth-wise integration and of pruning have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from numbers import Integral, Real
from typing import Any, Literal

from auto_merge.errors import RecipeError
from auto_merge.recipe.model import Recipe
from auto_merge.trial import Value

ScaleSearch = Literal["mlp", "hidden", "off"]
"""Meaning of an output scale, or that none is searched."""

OUTPUT_SCALES: Mapping[ScaleSearch, tuple[float, float]] = {
    "mlp": (0.0, 2.0),
    # Later layers are divided by the product of these, so none may be 0.
    "hidden": (0.01, 2.0),
    "off": (0.0, 2.0),
}
"""Range of an output scale; with ``"off"`` the values that a stored configuration may hold."""

MAX_CONDITIONED = 4
"""Up to this many on/off choices, a value that needs two of them is inactive without them; the
condition has a term per pair of choices."""

StartPoint = tuple[str, dict[str, Value]]


def misfit(key: str, reason: str) -> RecipeError:
    """Returns the error for a key that does not fit the space."""
    return RecipeError(f"search configuration key {key!r}: {reason}")


def checked_number(key: str, value: Any, bounds: tuple[float, float]) -> float:
    """Returns a number within ``bounds``.

    Raises:
        RecipeError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise misfit(key, f"must be a number, got {value!r:.60}")
    low, high = bounds
    # Compared before it becomes a float, which an integer may be too large for.
    if not low <= value <= high:  # type: ignore[operator]
        raise misfit(key, f"must lie within [{low:g}, {high:g}], got {value!r:.60}")
    return float(value)


def checked_whole(key: str, value: Any, count: int) -> int:
    """Returns a whole number from 0 to ``count - 1``; a string of digits is one as well.

    Raises:
        RecipeError: It is not.
    """
    # Longer strings cannot be in range, and Python refuses to convert very long ones.
    digits = isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 19
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not (digits or whole) or not 0 <= int(value) < count:
        raise misfit(key, f"must be a whole number from 0 to {count - 1}, got {value!r:.60}")
    return int(value)


def at_least_two(conditions: Sequence[Any]) -> Any:
    """Returns the ConfigSpace condition that at least two of the given ones hold.

    Args:
        conditions: At least two conditions on the same child.
    """
    from ConfigSpace import AndConjunction, OrConjunction

    pairs = [AndConjunction(first, second) for first, second in combinations(conditions, 2)]
    return pairs[0] if len(pairs) == 1 else OrConjunction(*pairs)


def at_least_one(conditions: Sequence[Any]) -> Any:
    """Returns the ConfigSpace condition that at least one of the given ones holds.

    Args:
        conditions: Conditions on the same child.
    """
    from ConfigSpace import AndConjunction, OrConjunction

    if len(conditions) == 1:
        return conditions[0]
    # ConfigSpace takes an AND and an OR over the same two parents for equal and evaluates one of
    # them for both children; with a redundant third term the OR is unlike any AND.
    more = [AndConjunction(*conditions)] if len(conditions) == 2 else []
    return OrConjunction(*conditions, *more)


def distinct(
    points: Iterable[StartPoint], decode: Callable[[Mapping[str, Value]], Recipe]
) -> list[StartPoint]:
    """Keeps the first start point of each recipe, in order."""
    first: dict[str, StartPoint] = {}
    for label, configuration in points:
        # A recipe holds dictionaries, so its text stands for it as a key.
        first.setdefault(repr(decode(configuration)), (label, configuration))
    return list(first.values())
