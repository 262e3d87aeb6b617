"""Tables at 80 columns, and progress in and out of a terminal."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from auto_merge.reports.progress import SearchProgress
from auto_merge.reports.terminal import failures_table, print_report, result_tables, status_table
from auto_merge.runs.view import RunView
from auto_merge.trial import Outcome, Status, Trial


def plain(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=False)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def printed(part: object, width: int = 80) -> str:
    console = plain(width)
    console.print(part)
    return text_of(console)


class TestTables:
    def test_every_run_fits_80_columns(self, any_run: RunView) -> None:
        console = plain()
        print_report(any_run, console)
        text = text_of(console)
        assert max(cell_len(line) for line in text.splitlines()) <= 80
        assert "\x1b" not in text
        assert "…" not in text

    def test_result_holds_every_number(self, complete: RunView) -> None:
        assert complete.final is not None
        text = printed(result_tables(complete))
        for row in complete.final.heldout:
            assert f"{100 * row.mean:.1f}" in text
            for score in row.scores:
                assert f"{100 * score.mean:.1f}" in text
        assert "not distinguishable" not in text
        assert "were opened once" in text

    def test_markup_in_names_is_text(self, hostile: RunView) -> None:
        console = plain(200)
        print_report(hostile, console)
        assert "[bold]日本" in text_of(console)

    def test_empty_columns_are_hidden(self, complete: RunView) -> None:
        assert complete.final is not None
        winner = replace(complete.final.heldout[0], search_mean=None)
        alone = replace(complete, final=replace(complete.final, heldout=(winner,)))
        text = printed(result_tables(alone))
        assert "gap " not in text.splitlines()[2]
        assert "verdict" not in text
        assert "gap" in printed(result_tables(complete))

    def test_many_tasks_are_split_over_tables(self, complete: RunView) -> None:
        assert complete.final is not None
        rows = tuple(replace(row, scores=row.scores * 4) for row in complete.final.heldout)
        names = [replace(item, task=f"task_{n}") for n, item in enumerate(complete.objectives * 4)]
        wide = replace(
            complete,
            objectives=tuple(names),
            final=replace(complete.final, heldout=rows),
        )
        text = printed(result_tables(wide))
        assert all(f"task_{number}" in text for number in range(16))
        assert max(map(len, text.splitlines())) <= 80

    def test_parts_without_content(self, running: RunView, empty: RunView) -> None:
        assert result_tables(running) is None
        assert failures_table(empty) is None

    def test_status_lines(self, running: RunView, empty: RunView) -> None:
        text = printed(status_table(running))
        assert "42 of 120 done, 3 failed, 1 running" in text
        assert "time left" in text
        assert "documents/s" in text
        stopped = printed(status_table(replace(running, state="stopped")))
        assert "1 interrupted" in stopped
        assert "if resumed" in stopped
        assert "incumbent" not in printed(status_table(empty))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def success(cost: float, documents: int = 50) -> Outcome:
    return Outcome(Status.SUCCESS, cost=cost, num_new_documents=documents)


def trial(index: int, fidelity: int = 60) -> Trial:
    return Trial(index, index, {}, fidelity)


class TestProgress:
    def test_plain_lines(self) -> None:
        console, clock = plain(), Clock()
        with SearchProgress(max_trials=4, rungs=(60, 180), console=console, clock=clock) as shown:
            shown.phase("loading models")
            shown.trial_started(trial(0))
            shown.documents(25, 50)
            clock.now += 10
            shown.trial_finished(trial(0), success(0.4), (trial(0), success(0.4)))
        assert text_of(console).splitlines() == [
            "loading models",
            "trial 1/4, rung 1/2, score 60.0, best 60.0 (trial 0, 60 documents per task), "
            "5.0 documents/s, 30 s left",
        ]

    def test_uninteresting_trials_wait_their_turn(self) -> None:
        console, clock = plain(), Clock()
        best = (trial(0), success(0.1))
        with SearchProgress(max_trials=100, console=console, clock=clock) as shown:
            shown.trial_finished(*best, best)
            for index in range(1, 30):
                clock.now += 1
                shown.trial_finished(trial(index), success(0.5), best)
        lines = text_of(console).splitlines()
        assert [line.split(",")[0] for line in lines[:3]] == [
            "trial 1/100",
            "trial 6/100",
            "trial 11/100",
        ]

    def test_failures_always_show_with_their_error(self) -> None:
        console, clock = plain(), Clock()
        with SearchProgress(max_trials=None, console=console, clock=clock) as shown:
            for index in range(3):
                error = f"[red]boom[/] {index}"
                shown.trial_finished(trial(index), Outcome(Status.CRASHED, error=error), None)
        lines = text_of(console).splitlines()
        assert [line.split(", ")[2] for line in lines] == [
            f"crashed: [red]boom[/] {index}" for index in range(3)
        ]

    def test_quiet_is_silent(self) -> None:
        console = Console(file=io.StringIO(), force_terminal=True)
        with SearchProgress(max_trials=1, quiet=True, console=console) as shown:
            shown.phase("x")
            shown.trial_started(trial(0))
            shown.trial_finished(trial(0), Outcome(Status.CRASHED, error="e"), None)
        assert text_of(console) == ""

    @pytest.mark.parametrize("limits", [(10, None), (None, 60.0), (None, None)])
    def test_terminal_shows_bar_activity_and_incumbent(
        self, limits: tuple[int | None, float | None]
    ) -> None:
        console, clock = Console(file=io.StringIO(), force_terminal=True, width=100), Clock()
        shown = SearchProgress(
            max_trials=limits[0],
            max_seconds=limits[1],
            rungs=(60, 180),
            trials_done=2,
            active_seconds=20.0,
            console=console,
            clock=clock,
        )
        with shown:
            clock.now += 10
            best = (trial(2), success(0.25))
            shown.trial_finished(*best, best)
            shown.trial_finished(trial(3), Outcome(Status.TIMEOUT, error="too slow"), best)
            shown.trial_started(trial(4, 180))
            shown.documents(120, 720)
            picture = printed(shown.renderable(), 100)
        assert "trial 4, rung 2/2 (180 documents per task): 120 of 720 new documents" in picture
        assert "best 75.0 (trial 2, 60 documents per task)" in picture
        assert "1 failed" in picture
        assert ("━" in picture) == (limits != (None, None))
        assert "timeout: too slow" in text_of(console)

    def test_resume_counts_earlier_trials(self) -> None:
        console, clock = plain(), Clock()
        with SearchProgress(
            max_trials=10, trials_done=5, active_seconds=50.0, console=console, clock=clock
        ) as shown:
            clock.now += 10
            shown.trial_finished(trial(5), success(0.5), None)
        assert text_of(console).startswith("trial 6/10")
        assert "40 s left" in text_of(console)
