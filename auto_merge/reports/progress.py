"""Live progress of a search: redrawn in a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from auto_merge.reports.summary import time_left
from auto_merge.reports.wording import clean, count, duration, points
from auto_merge.trial import Outcome, Status, Trial

_PLAIN_INTERVAL = 5.0
_INCUMBENT = "best {score} (trial {index}, {documents} per task)"


class SearchProgress:
    """Shows where a running search stands. A context manager.

    Args:
        max_trials: Planned number of trials, if limited.
        max_seconds: Planned active seconds, if limited.
        rungs: Fidelities in ascending order.
        trials_done: Trials finished before this process.
        active_seconds: Active seconds before this process.
        quiet: Show nothing at all.
        console: Where to write; standard error by default.
        clock: Monotonic clock in seconds.
    """

    def __init__(
        self,
        *,
        max_trials: int | None,
        max_seconds: float | None = None,
        rungs: Sequence[int] = (),
        trials_done: int = 0,
        active_seconds: float = 0.0,
        quiet: bool = False,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_trials = max_trials
        self._max_seconds = max_seconds
        self._rungs = tuple(rungs)
        self._done = trials_done
        self._earlier = active_seconds
        self._quiet = quiet
        self._console = console or Console(stderr=True)
        self._clock = clock
        self._start = clock()
        self._failed = 0
        self._scored = 0
        self._phase = ""
        self._trial: Trial | None = None
        self._documents = (0, 0)
        self._incumbent: tuple[Trial, Outcome] | None = None
        self._printed = -_PLAIN_INTERVAL
        self._live: Live | None = None

    def __enter__(self) -> SearchProgress:
        if not self._quiet and self._console.is_terminal:
            self._live = Live(
                console=self._console, get_renderable=self.renderable, refresh_per_second=4
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._trial, self._phase = None, ""
            self._live.stop()
            self._live = None

    def phase(self, text: str) -> None:
        """Says what is going on outside of trials (``"loading models"``); a line of its own."""
        self._phase = clean(text)
        if self._phase:
            self._print(self._phase)

    def trial_started(self, trial: Trial) -> None:
        """A worker begins with a trial."""
        self._trial, self._documents, self._phase = trial, (0, 0), ""

    def documents(self, done: int, total: int) -> None:
        """``done`` of the ``total`` documents that the current trial newly scores are scored."""
        self._documents = (done, total)

    def trial_finished(
        self, trial: Trial, outcome: Outcome, incumbent: tuple[Trial, Outcome] | None
    ) -> None:
        """A trial is told.

        Args:
            trial: The trial.
            outcome: Its outcome.
            incumbent: Best trial so far with its outcome, this one included.
        """
        failed = outcome.status is not Status.SUCCESS
        is_new_best = incumbent is not None and incumbent[0].index == trial.index
        self._done += 1
        self._failed += failed
        self._scored += outcome.num_new_documents
        self._incumbent, self._trial, self._documents = incumbent, None, (0, 0)
        due = self._clock() - self._printed >= _PLAIN_INTERVAL
        if failed and self._live is not None:
            self._live.console.print(Text(self._line(trial, outcome), style="red"))
        elif failed or is_new_best or due or self._done == self._max_trials:
            self._print(self._line(trial, outcome))

    def _print(self, line: str) -> None:
        if not self._quiet and self._live is None:
            self._console.print(Text(line), soft_wrap=True)
            self._printed = self._clock()

    def _line(self, trial: Trial, outcome: Outcome) -> str:
        """One finished trial as one line."""
        parts = [f"trial {self._position(self._done)}", self._rung(trial.fidelity)]
        if outcome.status is Status.SUCCESS:
            parts.append(f"score {points(1.0 - outcome.cost)}")
        else:
            parts.append(f"{outcome.status.value}: {clean(outcome.error)}".rstrip(": "))
        return ", ".join(filter(None, (*parts, *self._summary())))

    def _summary(self) -> list[str]:
        """Incumbent, speed and time left, as far as they are known."""
        parts = []
        if self._incumbent is not None:
            best, outcome = self._incumbent
            parts.append(
                _INCUMBENT.format(
                    score=points(1.0 - outcome.cost),
                    index=best.index,
                    documents=count(best.fidelity, "document"),
                )
            )
        elapsed = self._clock() - self._start
        scored = self._scored + self._documents[0]
        if scored and elapsed > 0:
            parts.append(f"{scored / elapsed:.1f} documents/s")
        left = time_left(self._done, self._max_trials, self._earlier + elapsed, self._max_seconds)
        if left is not None:
            parts.append(f"{duration(left)} left")
        return parts

    def _position(self, place: int) -> str:
        return f"{place}" if self._max_trials is None else f"{place}/{self._max_trials}"

    def _rung(self, fidelity: int) -> str:
        if fidelity in self._rungs:
            return f"rung {self._rungs.index(fidelity) + 1}/{len(self._rungs)}"
        return count(fidelity, "document")

    def renderable(self) -> RenderableType:
        """What a terminal shows at this moment."""
        top = Table.grid(padding=(0, 1))
        failed = f", {self._failed} failed" if self._failed else ""
        cells: list[RenderableType] = [Text(f"{self._position(self._done)} trials{failed}")]
        share = self._share_done()
        if share is not None:
            cells.insert(0, ProgressBar(total=1.0, completed=share, width=24))
        top.add_row(*cells)
        lines: list[RenderableType] = [top]
        activity = self._activity()
        if activity:
            lines.append(Text(activity, style="dim", no_wrap=True, overflow="ellipsis"))
        known = ", ".join(self._summary())
        if known:
            lines.append(Text(known, no_wrap=True, overflow="ellipsis"))
        return Group(*lines)

    def _share_done(self) -> float | None:
        """Part of the budget that is used, by the limit that is nearer."""
        shares = []
        if self._max_trials:
            shares.append(self._done / self._max_trials)
        if self._max_seconds:
            active = self._earlier + self._clock() - self._start
            shares.append(active / self._max_seconds)
        return min(1.0, max(shares)) if shares else None

    def _activity(self) -> str:
        if self._trial is None:
            return self._phase
        text = f"trial {self._trial.index}, {self._rung(self._trial.fidelity)}"
        text += f" ({count(self._trial.fidelity, 'document')} per task)"
        done, total = self._documents
        return f"{text}: {done:,} of {count(total, 'new document')}" if total else text
