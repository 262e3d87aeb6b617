"""The same reports for machines: JSON-able dictionaries, scores as fractions of one."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from auto_merge.reports import summary
from auto_merge.reports.trade_off import current_front, hypervolume_steps
from auto_merge.runs.view import FloorResult, Front, FrontMember, HeldoutRow, RunView
from auto_merge.trial import TaskScore


def status_json(view: RunView) -> dict[str, Any]:
    """State of a run: counts, incumbent, speed, seconds left (``null`` where unknown)."""
    steps = summary.best_so_far(view)
    incumbent = None
    if steps:
        best = steps[-1]
        incumbent = {**best.row.trial.to_json(), "search_score": best.score}
    volumes = hypervolume_steps(view)
    return {
        "name": view.name,
        "multi_objective": view.multi_objective,
        "state": view.state,
        "trials": {
            "finished": len(summary.finished(view)),
            "failed": summary.num_failed(view),
            "asked": len(view.trials),
            "planned": view.max_trials,
            "by_status": summary.status_counts(view),
        },
        "rungs": list(view.manifest.get("rungs", ())),
        "incumbent": incumbent,
        "front": [
            {"trial": row.trial.index, "scores": [_score(score) for score in outcome.scores]}
            for row, outcome in (current_front(view) if view.multi_objective else ())
        ],
        "search_hypervolume": volumes[-1].share if volumes else None,
        "documents": summary.num_documents(view),
        "documents_per_second": summary.documents_per_second(view),
        "active_seconds": view.active_seconds,
        "waiting_seconds": view.waiting_seconds,
        "max_seconds": view.max_seconds,
        "seconds_left": summary.seconds_left(view),
        "headline": summary.headline(view),
    }


def result_json(view: RunView) -> dict[str, Any] | None:
    """Held-out result, winner first; ``None`` until the search is complete."""
    if view.final is None:
        return None
    return {
        "trial": view.final.trial.to_json(),
        "heldout": [_heldout(row) for row in view.final.heldout],
        "num_openings": view.final.num_openings,
        "left_out": list(view.final.left_out),
        "floors": [_floor(view, result) for result in view.final.floors],
        "front": None if view.final.front is None else _front(view, view.final.front),
    }


def failures_json(view: RunView) -> list[dict[str, Any]]:
    """Failures grouped by status and error, the most common first."""
    return [
        {"status": group.status.value, "error": group.error, "trials": list(group.trials)}
        for group in summary.failure_groups(view)
    ]


def report_json(view: RunView) -> dict[str, Any]:
    """Status, result and failures in one dictionary."""
    return {
        "status": status_json(view),
        "result": result_json(view),
        "failures": failures_json(view),
    }


def _front(view: RunView, front: Front) -> dict[str, Any]:
    return {
        "members": [_member(view, member) for member in front.members],
        "best_sources": list(front.rivals),
        "reference_costs": list(front.reference),
        "hypervolume": {
            "num_models": front.size,
            "heldout": front.hypervolume,
            "search": front.search_hypervolume,
            "baselines_heldout": front.baseline_hypervolume,
            "baselines": list(front.baselines),
        },
    }


def _member(view: RunView, member: FrontMember) -> dict[str, Any]:
    return {
        "trial": member.trial.to_json(),
        **_heldout(member.row),
        "search_scores": [_score(score) for score in member.search_scores],
        "against_best_sources": [item and asdict(item) for item in member.comparisons],
        "floors": [_floor(view, result) for result in member.floors],
    }


def _floor(view: RunView, result: FloorResult) -> dict[str, Any]:
    objective = view.objectives[result.place]
    return {
        "task": objective.task,
        "metric": objective.metric,
        "model": result.model,
        "margin": result.margin,
        "comparison": result.comparison and asdict(result.comparison),
        "verdict": result.verdict,
    }


def _heldout(row: HeldoutRow) -> dict[str, Any]:
    gap = None if row.search_mean is None else row.search_mean - row.mean
    return {
        "label": row.label,
        "mean": row.mean,
        "search_mean": row.search_mean,
        "search_minus_heldout": gap,
        "scores": [_score(score) for score in row.scores],
        "comparison": None if row.comparison is None else asdict(row.comparison),
    }


def _score(score: TaskScore) -> dict[str, Any]:
    # JSON has no NaN.
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in asdict(score).items()
    }
