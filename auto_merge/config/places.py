"""Where each value of a configuration was written: file, line and dotted key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KeyPath = tuple[str | int, ...]
"""Keys and list positions from the root of a file layout: ``("global_params", "random_seed")``."""


@dataclass(frozen=True)
class Place:
    """Where a value was written.

    Attributes:
        file: File as people see it, or ``"--set key=value"`` for an override.
        line: Line number from 1; ``None`` for an override.
        folder: Folder that relative paths in the value start from.
    """

    file: str
    line: int | None
    folder: Path

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Tree:
    """A configuration as plain dictionaries, lists and scalars, with the place of every value.

    Attributes:
        data: The root mapping. Nothing in it is shared, so it may be changed in place.
        places: Key path -> place; the root is ``()``.
    """

    data: dict[str, Any]
    places: dict[KeyPath, Place]

    def place(self, path: KeyPath) -> Place:
        """Returns the place of a value, or of the innermost section around it that has one."""
        while path not in self.places:
            path = path[:-1]
        return self.places[path]


def dotted(path: KeyPath) -> str:
    """Returns ``"evaluation.tasks.0.metric"``."""
    return ".".join(str(part) for part in path)


def located(place: Place, path: KeyPath) -> str:
    """Returns the start of an error message: ``"exp_config/x.yaml:12: global_params.name"``."""
    return f"{place}: {dotted(path)}" if path else str(place)


def show(value: Any) -> str:
    """Returns a value as it appears in an error message, at most 60 characters long.

    >>> show("16"), show(16), show({"a": 1})
    ("'16'", '16', 'a section')
    """
    if isinstance(value, Mapping):
        return "a section"
    if isinstance(value, (list, tuple)):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
