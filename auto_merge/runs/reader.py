"""From a run folder to the frozen picture that reports read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from auto_merge.recipe import files
from auto_merge.recipe.model import Recipe
from auto_merge.runs.store import Clock, Event, RunStore
from auto_merge.runs.view import (
    Final,
    FloorResult,
    Front,
    FrontMember,
    HeldoutRow,
    RunView,
    TrialRow,
)
from auto_merge.statistics import Comparison
from auto_merge.trial import Floor, Objective, TaskScore, Trial

LIMITS_FACT = "limits"
FINAL_FACT = "final"
OPENINGS_FACT = "held-out openings"
INCUMBENT_FACT = "incumbent recipe"
CLOCK_FACT = "clock"
REFERENCE_FACT = "reference point"
DELIVERED_FACT = "delivered"
"""What was delivered last: number of tells and limits. A run is complete if both still hold."""


def view(store: RunStore) -> RunView:
    """Reads a run, also while another process is writing to it."""
    events = store.events()
    limits = store.fact(LIMITS_FACT, {})
    final = store.fact(FINAL_FACT)
    incumbent = store.fact(INCUMBENT_FACT)
    clock = last_clock(store, events)
    told = _num_told(events)
    concluded = final is not None and final["num_trials"] == told
    complete = concluded and store.fact(DELIVERED_FACT) == {"num_trials": told, "limits": limits}
    return RunView(
        name=str(store.manifest["name"]),
        state="complete" if complete else "running" if store.is_locked() else "stopped",
        manifest=store.manifest,
        objectives=objectives(store.manifest),
        trials=_rows(events),
        max_trials=limits.get("max_trials"),
        max_seconds=limits.get("max_seconds"),
        active_seconds=clock.active_seconds,
        waiting_seconds=clock.waiting_seconds,
        final=final_from_data(final) if concluded else None,
        incumbent_recipe=None if incumbent is None else _recipe(incumbent),
        reference=tuple(store.fact(REFERENCE_FACT, ())),
    )


def last_clock(store: RunStore, events: Sequence[Event]) -> Clock:
    """The latest totals: of the last event, or of a trial that was interrupted after it."""
    clock = events[-1].clock if events else Clock()
    stopped = store.fact(CLOCK_FACT)
    if stopped is not None and stopped["active_seconds"] > clock.active_seconds:
        return Clock(**stopped)
    return clock


def objectives(manifest: Mapping[str, Any]) -> tuple[Objective, ...]:
    """The objectives as the manifest records them."""
    return tuple(_objective(item) for item in manifest["objectives"])


def _objective(data: Mapping[str, Any]) -> Objective:
    floor = data.get("floor")
    return Objective(
        **{
            **data,
            "bounds": tuple(data["bounds"]),
            "floor": None if floor is None else Floor(**floor),
        }
    )


def final_to_data(final: Final, num_trials: int) -> dict[str, Any]:
    """JSON-able form of the result; ``num_trials`` is the number of tells it rests on."""
    return {
        "num_trials": num_trials,
        "trial": final.trial.to_json(),
        "recipe": files.to_data(final.recipe),
        "heldout": [asdict(row) for row in final.heldout],
        "num_openings": final.num_openings,
        "left_out": list(final.left_out),
        "floors": [asdict(result) for result in final.floors],
        "front": None if final.front is None else _front_to_data(final.front),
    }


def final_from_data(data: Mapping[str, Any]) -> Final:
    """Restores what :func:`final_to_data` wrote."""
    return Final(
        trial=Trial(**data["trial"]),
        recipe=_recipe(data["recipe"]),
        heldout=tuple(_heldout_row(row) for row in data["heldout"]),
        num_openings=data["num_openings"],
        left_out=tuple(data.get("left_out", ())),
        floors=_floors(data.get("floors", ())),
        front=_front_from_data(data["front"]) if data.get("front") else None,
    )


def _front_to_data(front: Front) -> dict[str, Any]:
    members = [
        {
            "trial": member.trial.to_json(),
            "recipe": files.to_data(member.recipe),
            "row": asdict(member.row),
            "search_scores": [asdict(score) for score in member.search_scores],
            "comparisons": [item and asdict(item) for item in member.comparisons],
            "floors": [asdict(result) for result in member.floors],
        }
        for member in front.members
    ]
    plain = {item.name: getattr(front, item.name) for item in fields(front)}
    return {**plain, "members": members}


def _front_from_data(data: Mapping[str, Any]) -> Front:
    lists = {name: tuple(data[name]) for name in ("rivals", "reference", "baselines")}
    members = tuple(
        FrontMember(
            trial=Trial(**member["trial"]),
            recipe=_recipe(member["recipe"]),
            row=_heldout_row(member["row"]),
            search_scores=tuple(TaskScore(**score) for score in member["search_scores"]),
            comparisons=tuple(_comparison(item) for item in member["comparisons"]),
            floors=_floors(member["floors"]),
        )
        for member in data["members"]
    )
    return Front(**{**data, **lists, "members": members})


def _floors(data: Sequence[Mapping[str, Any]]) -> tuple[FloorResult, ...]:
    return tuple(
        FloorResult(**{**result, "comparison": _comparison(result["comparison"])})
        for result in data
    )


def _comparison(data: Mapping[str, Any] | None) -> Comparison | None:
    return None if data is None else Comparison(**data)


def _heldout_row(row: Mapping[str, Any]) -> HeldoutRow:
    return HeldoutRow(
        label=row["label"],
        scores=tuple(TaskScore(**score) for score in row["scores"]),
        mean=row["mean"],
        search_mean=row["search_mean"],
        comparison=_comparison(row["comparison"]),
    )


def _recipe(data: Mapping[str, Any]) -> Recipe:
    return files.from_data(dict(data), "run.sqlite").recipe


def _num_told(events: list[Event]) -> int:
    return sum(event.kind == "tell" for event in events)


def _rows(events: list[Event]) -> tuple[TrialRow, ...]:
    asked = {event.trial: event for event in events if event.kind == "ask"}
    told = {event.trial: event for event in events if event.kind == "tell"}
    rows = []
    for index in sorted(asked):
        tell = told.get(index)
        clock = (tell or asked[index]).clock
        rows.append(
            TrialRow(
                asked[index].asked(),
                tell.told() if tell else None,
                clock.active_seconds,
                clock.documents,
            )
        )
    return tuple(rows)
