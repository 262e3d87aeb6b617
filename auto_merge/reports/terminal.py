"""Tables for the terminal: status, result, failures. Readable at 80 columns, in files and pipes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from auto_merge.reports import summary
from auto_merge.reports.trade_off import floor_text, rival_names
from auto_merge.reports.wording import (
    clean,
    count,
    duration,
    interval,
    percent,
    percent_of_box,
    points,
    signed_points,
    task_label,
    task_score,
)
from auto_merge.runs.view import Front, FrontMember, HeldoutRow, RunView
from auto_merge.trial import Objective

_VERDICT_STYLE = {"better": "green", "worse": "red", "not distinguishable": "yellow"}
_NAME_WIDTH = 26
_MEMBER_WIDTH = 10
_FRONT_CELL = 22


def print_report(view: RunView, console: Console) -> None:
    """Prints headline, status, result and failures; parts without content are left out."""
    console.print(Text(summary.headline(view), style="bold"), soft_wrap=False)
    console.print()
    console.print(status_table(view))
    for part in (result_tables(view, console.width), failures_table(view)):
        if part is not None:
            console.print()
            console.print(part)


def status_table(view: RunView) -> Table:
    """State of a run as name and value; lines that would be empty are left out."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _status_lines(view):
        table.add_row(name, Text(value))
    return table


def result_tables(view: RunView, width: int = 80) -> RenderableType | None:
    """Held-out comparison and, for several tasks, the scores per task.

    Args:
        view: The run.
        width: Columns available; tasks that do not fit go into further tables.

    Returns:
        ``None`` until the search is complete.
    """
    if view.final is None:
        return None
    rows = view.final.heldout
    parts: list[RenderableType] = []
    if view.final.front is not None:
        parts += _front_parts(view, view.final.front, width)
    parts.append(_comparison_table(rows))
    if len(view.objectives) > 1:
        parts += [
            _task_table(view.objectives, columns, rows)
            for columns in _column_groups(view.objectives, width)
        ]
    openings = view.final.num_openings
    opened = "once" if openings == 1 else count(openings, "time")
    note = "gap: search score minus held-out score. best - model: difference with 95 % interval."
    parts.append(Text(f"{note} Held-out documents were opened {opened}.", style="dim"))
    parts += [
        Text(f"best {result.verdict}: {floor_text(view.objectives, result)}")
        for result in view.final.floors
    ]
    parts += [Text(f"left out: {clean(item)}") for item in view.final.left_out]
    return Group(*parts)


def _front_parts(view: RunView, front: Front, width: int) -> list[RenderableType]:
    """Members with their scores, and intervals of the differences to the best sources."""
    groups = _column_groups(view.objectives, width, _MEMBER_WIDTH, _FRONT_CELL)
    parts: list[RenderableType] = [_front_table(view, front, columns) for columns in groups]
    note = (
        "In brackets the difference to the best source of the task; these 95 % intervals hold "
        "for all members and tasks at once."
    )
    parts.append(Text(note, style="dim"))
    if front.size:
        covered = (
            f"held-out hypervolume of {count(front.size, 'member')}: "
            f"{percent_of_box(front.hypervolume)} (on search documents "
            f"{percent_of_box(front.search_hypervolume)}); "
            f"of {count(front.size, 'baseline')}: {percent_of_box(front.baseline_hypervolume)}"
        )
        parts.append(Text(covered))
    return parts + [
        Text(f"{clean(member.row.label)} {result.verdict}: {floor_text(view.objectives, result)}")
        for member in front.members[1:]
        for result in member.floors
        if result.verdict != "kept"
    ]


def _front_table(view: RunView, front: Front, columns: Sequence[int]) -> Table:
    table = _table("Pareto front on held-out documents")
    table.add_column("member", no_wrap=True)
    for place in columns:
        rival = rival_names(view)[place]
        label = task_label(view.objectives[place], view.objectives)
        against = f"\nvs {rival}" if rival else ""
        table.add_column(Text(label + against), justify="right", max_width=_FRONT_CELL)
    for member in front.members:
        cells = [_front_cell(view, member, place) for place in columns]
        style = "bold" if member.trial.index == front.members[0].trial.index else ""
        table.add_row(Text(member.row.label), *cells, style=style)
    return table


def _front_cell(view: RunView, member: FrontMember, place: int) -> Text:
    text = Text(task_score(view.objectives[place], member.row.scores[place]))
    compared = member.comparisons[place]
    if compared is not None:
        text.append(f" ({interval(compared)})", style=_VERDICT_STYLE[compared.verdict])
    return text


def failures_table(view: RunView) -> Table | None:
    """Failures grouped by error; ``None`` without failures."""
    groups = summary.failure_groups(view)
    if not groups:
        return None
    table = _table("Failures")
    table.add_column("trials", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("error", overflow="fold")
    for group in groups:
        shown = ", ".join(str(index) for index in group.trials[:3])
        more = f" +{len(group.trials) - 3}" if len(group.trials) > 3 else ""
        table.add_row(shown + more, Text(group.status.value, style="red"), Text(group.error))
    return table


_OPEN_TRIALS = {"running": "running", "stopped": "interrupted", "complete": "proposed, not run"}


def _status_lines(view: RunView) -> Iterator[tuple[str, str]]:
    yield "run", f"{clean(view.name)} ({view.state})"
    done, failed = len(summary.finished(view)), summary.num_failed(view)
    planned = "" if view.max_trials is None else f" of {view.max_trials}"
    trials = f"{done}{planned} done"
    trials += f", {failed} failed" if failed else ""
    open_trials = len(view.trials) - done
    if open_trials:
        trials += f", {open_trials} {_OPEN_TRIALS[view.state]}"
    yield "trials", trials
    if view.trials:
        yield "rung", summary.rung_text(view, view.trials[-1].trial.fidelity)
    steps = summary.best_so_far(view)
    if steps:
        trial = steps[-1].row.trial
        origin = f", from {clean(trial.origin)}" if trial.origin else ""
        documents = f"{count(trial.fidelity, 'search document')} per task"
        score = points(steps[-1].score)
        yield "incumbent", f"trial {trial.index}: {score} on {documents}{origin}"
    speed = summary.documents_per_second(view)
    if speed is not None:
        yield "speed", f"{speed:.1f} documents/s"
    if view.active_seconds > 0:
        waiting = view.waiting_seconds / view.active_seconds
        spent = f"{count(summary.num_documents(view), 'document')} in "
        yield (
            "spent",
            f"{spent}{duration(view.active_seconds)}, {percent(waiting)} of it waiting",
        )
    left = summary.seconds_left(view)
    if left is not None:
        yield "time left" if view.state == "running" else "if resumed", f"about {duration(left)}"


def _comparison_table(rows: Sequence[HeldoutRow]) -> Table:
    table = _table("Held-out documents")
    table.add_column("model", max_width=_NAME_WIDTH, overflow="fold")
    table.add_column("mean", justify="right", no_wrap=True)
    has_gap = any(row.search_mean is not None for row in rows)
    compared = any(row.comparison is not None for row in rows)
    if has_gap:
        table.add_column("gap", justify="right", no_wrap=True)
    if compared:
        table.add_column("best - model", justify="right", no_wrap=True)
        table.add_column("verdict on best")
    for row in rows:
        cells = [Text(clean(row.label)), Text(points(row.mean))]
        if has_gap:
            cells.append(
                Text("" if row.search_mean is None else signed_points(row.search_mean - row.mean))
            )
        if compared:
            cells += _comparison_cells(row)
        table.add_row(*cells, style="bold" if row.comparison is None else "")
    return table


def _comparison_cells(row: HeldoutRow) -> list[Text]:
    if row.comparison is None:
        return [Text(), Text()]
    verdict = row.comparison.verdict
    difference = f"{signed_points(row.comparison.difference)} ({interval(row.comparison)})"
    return [Text(difference), Text(verdict, style=_VERDICT_STYLE[verdict])]


def _column_groups(
    objectives: tuple[Objective, ...], width: int, names: int = _NAME_WIDTH, least: int = 6
) -> Iterator[list[int]]:
    """Splits tasks into groups whose columns fit beside the model names.

    Args:
        objectives: The tasks.
        width: Columns available.
        names: Columns that names take.
        least: Columns that a cell takes at least.
    """
    group: list[int] = []
    used = names + 4
    for place, objective in enumerate(objectives):
        needed = max(min(cell_len(task_label(objective, objectives)), 20), least) + 2
        if group and used + needed > width:
            yield group
            group, used = [], names + 4
        group.append(place)
        used += needed
    yield group


def _task_table(
    objectives: tuple[Objective, ...], columns: Sequence[int], rows: Sequence[HeldoutRow]
) -> Table:
    table = _table("Held-out score per task")
    table.add_column("model", max_width=_NAME_WIDTH, overflow="fold")
    for place in columns:
        label = Text(task_label(objectives[place], objectives))
        table.add_column(label, justify="right", max_width=20, overflow="fold")
    for row in rows:
        values = [Text(task_score(objectives[place], row.scores[place])) for place in columns]
        style = "bold" if row.comparison is None else ""
        table.add_row(Text(clean(row.label)), *values, style=style)
    return table


def _table(title: str) -> Table:
    return Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
