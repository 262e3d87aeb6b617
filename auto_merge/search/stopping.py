"""Ctrl-C and SIGTERM: the first asks for a clean stop, the second one stops at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether somebody asked the program to stop; a callable that is polled between chunks."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self) -> bool:
        """Returns whether a stop was asked for."""
        return self.requested


@contextmanager
def stop_on_signals(request: StopRequest) -> Iterator[None]:
    """Turns the first SIGINT or SIGTERM into ``request``; a second one ends the process at once."""

    def handle(number: int, frame: FrameType | None) -> None:
        if request.requested:
            # At once: everything of worth is in the databases, and their writes are atomic.
            os._exit(130)
        request.requested = True

    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, handle) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)
