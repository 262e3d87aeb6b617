"""A name -> thing table that refuses duplicates and suggests the nearest name on a miss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from auto_merge.errors import UserError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps names to things of one kind.

    Args:
        kind: What the things are, in the singular, for error messages (``"merge method"``).
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}

    def add(self, name: str, thing: T) -> T:
        """Registers ``thing`` and returns it.

        Raises:
            ValueError: The name is taken.
        """
        if name in self._things:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._things[name] = thing
        return thing

    def get(self, name: str) -> T:
        """Returns the thing called ``name``.

        Raises:
            UserError: There is none; the message carries the nearest name.
        """
        try:
            return self._things[name]
        except KeyError:
            raise UserError(f"unknown {self.kind} {name!r}{nearest(name, self._things)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)
