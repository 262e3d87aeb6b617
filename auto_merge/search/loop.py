"""The search loop.

The next trial is asked for while the current one is evaluated: ask k + 1 sees the tells up to
k - 1. The lag is fixed, so the sequence of trials does not depend on timing. Both are written in
one transaction (ask k + 1, then tell k) when trial k is done, so the log always ends with at most
one untold trial, which a resumed run evaluates again from its last committed chunk.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from auto_merge.errors import AutoMergeError, Interrupted
from auto_merge.optimizers.proposer import SpaceExhaustedError
from auto_merge.recipe.model import Recipe
from auto_merge.runs.reader import CLOCK_FACT, last_clock
from auto_merge.runs.store import RunStore
from auto_merge.seams import Optimizer, Strategy, Worker
from auto_merge.trial import Outcome, Status, Trial

_HOPELESS = 3


class Watcher(Protocol):
    """Is told what happens, for live progress."""

    def trial_started(self, trial: Trial) -> None:
        """A trial begins."""

    def trial_finished(
        self, trial: Trial, outcome: Outcome, incumbent: tuple[Trial, Outcome] | None
    ) -> None:
        """A trial is done; ``incumbent`` is the best one so far."""


@dataclass(frozen=True)
class Limits:
    """When a search ends.

    Attributes:
        max_trials: Trials in all, earlier processes included; ``None`` for no limit.
        max_seconds: Active seconds in all, earlier processes included; ``None`` for no limit.
    """

    max_trials: int | None = None
    max_seconds: float | None = None


class SearchLoop:
    """Drives one run from its first ask, or from where its log ends, to its limits.

    Args:
        store: The run, locked by the caller.
        strategy: Decodes configurations.
        optimizer: Already restored from the store's events.
        worker: Runs trials.
        limits: When to end.
        watcher: Progress.
        should_stop: Polled between trials.
    """

    def __init__(
        self,
        store: RunStore,
        strategy: Strategy,
        optimizer: Optimizer,
        worker: Worker,
        limits: Limits,
        watcher: Watcher,
        should_stop: Callable[[], bool],
    ) -> None:
        self._store = store
        self._strategy = strategy
        self._optimizer = optimizer
        self._worker = worker
        self._limits = limits
        self._watcher = watcher
        self._should_stop = should_stop
        events = store.events()
        self._outcomes = {event.trial: event.told() for event in events if event.kind == "tell"}
        asked = [event.asked() for event in events if event.kind == "ask"]
        self._num_asked = len(asked)
        self._pending = [trial for trial in asked if trial.index not in self._outcomes]
        self.clock = last_clock(store, events)

    def run(self) -> bool:
        """Runs until a limit is reached.

        Returns:
            Whether the search is complete; ``False`` if it was asked to stop between trials.

        Raises:
            AutoMergeError: The first trials all failed with the same error.
            Interrupted: Asked to stop inside a trial.
        """
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ask") as asker:
            trial = self._first(asker)
            while trial is not None:
                if self._should_stop():
                    return False
                trial = self._step(asker, trial)
        return True

    def _first(self, asker: ThreadPoolExecutor) -> Trial | None:
        if self._pending:
            left = self._pending.pop()
            return left if self._may_start(left) else None
        started = time.monotonic()
        future = self._ask_ahead(asker)
        if future is None:
            return None
        trial = self._answer(future)
        if trial is None:
            return None
        seconds = time.monotonic() - started
        self._advance(seconds, seconds, 0)
        self._store.append(self.clock, ask=trial, tell=None)
        return trial

    def _step(self, asker: ThreadPoolExecutor, trial: Trial) -> Trial | None:
        """Evaluates ``trial`` while the next one is asked for; returns the next one."""
        started = time.monotonic()
        future = self._ask_ahead(asker)
        self._watcher.trial_started(trial)
        try:
            outcome = self._worker.run(trial, self._recipe(trial))
        except Interrupted:
            self._advance(time.monotonic() - started, 0.0, 0)
            self._store.set_fact(CLOCK_FACT, asdict(self.clock))
            raise
        worked = time.monotonic()
        following = self._answer(future)
        self._optimizer.tell(trial, outcome)
        self._outcomes[trial.index] = outcome
        done = time.monotonic()
        # Everything around the worker is overhead: decoding, waiting for the ask, telling.
        self._advance(done - started, done - worked, outcome.num_new_documents)
        self._store.append(self.clock, ask=following, tell=(trial, outcome))
        self._watcher.trial_finished(trial, outcome, self._incumbent())
        self._stop_if_hopeless()
        if future is not None and following is None:
            # A small space is used up; with this outcome a promotion may have become due.
            return self._first(asker)
        return following if following is not None and self._may_start(following) else None

    def _answer(self, future: Future[Trial] | None) -> Trial | None:
        """The asked trial; ``None`` if none was asked for or the space is used up."""
        if future is None:
            return None
        try:
            trial = future.result()
        except SpaceExhaustedError:
            return None
        self._num_asked += 1
        return trial

    def _recipe(self, trial: Trial) -> Recipe:
        return self._strategy.decode(trial.configuration)

    def _ask_ahead(self, asker: ThreadPoolExecutor) -> Future[Trial] | None:
        limit = self._limits.max_trials
        if limit is not None and self._num_asked >= limit:
            return None
        if self._out_of_time():
            return None
        return asker.submit(self._optimizer.ask)

    def _may_start(self, trial: Trial) -> bool:
        limit = self._limits.max_trials
        return not self._out_of_time() and (limit is None or trial.index < limit)

    def _out_of_time(self) -> bool:
        limit = self._limits.max_seconds
        return limit is not None and self.clock.active_seconds >= limit

    def _advance(self, active: float, waiting: float, documents: int) -> None:
        self.clock = replace(
            self.clock,
            active_seconds=self.clock.active_seconds + active,
            waiting_seconds=self.clock.waiting_seconds + waiting,
            documents=self.clock.documents + documents,
        )

    def _incumbent(self) -> tuple[Trial, Outcome] | None:
        best = self._optimizer.incumbents()
        return (best[0], self._outcomes[best[0].index]) if best else None

    def _stop_if_hopeless(self) -> None:
        """The same error in every one of the first trials is a mistake, not bad luck.

        They are forgotten, so that the same command starts afresh once the cause is mended.
        """
        if len(self._outcomes) != _HOPELESS:
            return
        outcomes = list(self._outcomes.values())
        # Numbers in a message (seconds, bytes) differ though the cause is one.
        kinds = {(item.status, re.sub(r"[0-9.]+", "#", item.error)) for item in outcomes}
        if all(item.status is not Status.SUCCESS for item in outcomes) and len(kinds) == 1:
            self._store.forget_events()
            raise AutoMergeError(
                f"the first {_HOPELESS} trials all failed with the same error: {outcomes[0].error}"
            )
