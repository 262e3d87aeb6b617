"""Remembers what methods derive from their inputs alone, within a memory limit."""

from __future__ import annotations

import dataclasses
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from auto_merge.methods.base import Call


class TensorMemo:
    """Memory for one combination of method, sources and base, see :class:`methods.base.Memo`."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self.nbytes = 0

    def __call__(self, key: str, compute: Callable[[], Any]) -> Any:
        """Returns the value stored under ``key``, computing it at most once."""
        if key not in self._values:
            self._values[key] = compute()
        return self._values[key]

    def measure(self) -> int:
        """Updates and returns ``nbytes``; values may grow after they were stored."""
        self.nbytes = _size(self._values)
        return self.nbytes


class MemoStore:
    """One memo per combination; the least recently used go first when memory runs short.

    Args:
        limit: Bytes that all memos together may hold between candidates.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._memos: OrderedDict[tuple[Any, ...], TensorMemo] = OrderedDict()
        self.nbytes = 0

    def of(self, call: Call) -> TensorMemo:
        """Returns the memo of a call's method and inputs, whatever its parameters."""
        key = (call.method, call.sources, call.base)
        memo = self._memos.setdefault(key, TensorMemo())
        self._memos.move_to_end(key)
        return memo

    def settle(self) -> None:
        """Counts what the memos have come to hold and drops old ones beyond the limit."""
        self.nbytes = sum(memo.measure() for memo in self._memos.values())
        while self.nbytes > self._limit and self._memos:
            _, dropped = self._memos.popitem(last=False)
            self.nbytes -= dropped.nbytes


def _size(value: Any) -> int:
    """Bytes held by tensors, arrays, dataclasses and containers of them."""
    if hasattr(value, "nbytes"):
        return int(value.nbytes)
    if dataclasses.is_dataclass(value):
        return sum(_size(getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, Mapping):
        return sum(_size(item) for item in value.values()) + sys.getsizeof(value)
    if isinstance(value, list | tuple):
        return sum(_size(item) for item in value)
    return sys.getsizeof(value)
