"""Shared steps of ``simplify``: equal merges get equal calls, float for float."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from auto_merge.methods.base import Arguments, Call

LIMIT = 1e6
"""Largest magnitude of a weight or scale: far beyond use, small enough for float32."""


def number(arguments: Arguments, name: str) -> float:
    """Returns a parameter that belongs to the whole merge."""
    value = arguments[name]
    assert not isinstance(value, tuple), f"{name} is not a per-source parameter"
    return float(value)


def numbers(arguments: Arguments, name: str) -> tuple[float, ...]:
    """Returns a per-source parameter."""
    value = arguments[name]
    assert isinstance(value, tuple), f"{name} is a per-source parameter"
    return tuple(float(item) for item in value)


def significant(value: float) -> float:
    """Rounds to 12 significant digits, so that 2/6 and 1/3 are one number; -0.0 becomes 0.0.

    The change is 4,000 times below the resolution of float32.
    """
    return float(f"{value:.12g}") + 0.0


def combined(sources: Sequence[str], weights: Sequence[float]) -> dict[str, float]:
    """Adds up the weights of equal sources and drops zeros; keys are sorted.

    Sums are correctly rounded (``fsum``), so the order of the sources does not matter.
    """
    groups: dict[str, list[float]] = {}
    for source, weight in zip(sources, weights, strict=True):
        groups.setdefault(source, []).append(weight)
    sums = {source: significant(math.fsum(groups[source])) for source in sorted(groups)}
    return {source: weight for source, weight in sums.items() if weight != 0.0}


def without(sources: dict[str, float], dropped: Iterable[str | None]) -> dict[str, float]:
    """Returns ``sources`` without the ``dropped`` keys."""
    unwanted = set(dropped)
    return {source: weight for source, weight in sources.items() if source not in unwanted}


def passthrough(source: str | None, scale: float = 1.0) -> Call:
    """Returns the call that copies ``source``; ``None`` breaks the caller's promise of a base."""
    assert source is not None, "the method needs a base"
    return Call("passthrough", (source,), None, {"scale": scale})
