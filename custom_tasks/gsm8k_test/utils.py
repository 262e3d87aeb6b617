"""Target of the tasks with English word problems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from auto_merge.evaluation.filters import number_or_text


def target(doc: Mapping[str, Any]) -> str:
    """The number after the solution, or the whole answer if there is no solution before it."""
    return number_or_text(str(doc["answer"]).rpartition("### ")[2])
