"""One HTML file per run that opens offline: no scripts, no links to other files, light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from auto_merge.recipe.files import to_yaml
from auto_merge.reports import plots, summary
from auto_merge.reports.front_plots import front_plot, hypervolume_curve
from auto_merge.reports.heatmap import recipe_heatmap
from auto_merge.reports.svg import palette_css
from auto_merge.reports.trade_off import floor_text, floor_verdict, rival_names
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
from auto_merge.statistics import Importance, parameter_importance
from auto_merge.trial import Objective, Outcome, Status, Trial

MAX_TRIALS = 1000
"""More trials than this are left out of the table of trials, the worst ones first."""


@dataclass(frozen=True)
class Fact:
    """A key figure: a number, what it is, and a remark."""

    value: str
    name: str
    remark: str = ""


def html_report(view: RunView) -> str:
    """Returns the report of a run, finished or not, as the text of one HTML page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("auto_merge.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clean"] = clean
    environment.filters["minus"] = lambda text: text.replace("-", "\N{MINUS SIGN}")
    return environment.get_template("report.html.j2").render(_content(view))


def _content(view: RunView) -> dict[str, Any]:
    importance = _importance(view)
    recipe = view.final.recipe if view.final is not None else view.incumbent_recipe
    heldout = view.final.heldout if view.final is not None else ()
    return {
        "view": view,
        "headline": summary.headline_sentences(view),
        "light": palette_css(0),
        "dark": palette_css(1),
        "facts": _facts(view),
        "heldout": [_heldout_cells(view.objectives, row) for row in heldout],
        "tasks": [task_label(objective, view.objectives) for objective in view.objectives],
        "front": _front(view),
        "front_plot": front_plot(view) if view.multi_objective else "",
        "floors": _floors(view),
        "volumes": [hypervolume_curve(view, "documents"), hypervolume_curve(view, "seconds")],
        "forest": plots.forest(heldout),
        "task_plot": plots.task_scores(view.objectives, heldout),
        "openings": _openings(view),
        "left_out": [clean(item) for item in view.final.left_out] if view.final else [],
        "recipe_plot": "" if recipe is None else recipe_heatmap(recipe),
        "recipe": "" if recipe is None else to_yaml(recipe),
        "origin": _origin(view),
        "histories": [
            plots.best_so_far(view, "documents"),
            plots.best_so_far(view, "seconds"),
        ],
        "importance_plot": plots.importance_bars(importance) if _tells(importance) else "",
        "importance_note": _importance_note(view, importance),
        "trials": _trial_rows(view),
        "num_hidden": max(0, len(summary.finished(view)) - MAX_TRIALS),
        "failures": summary.failure_groups(view),
        "versions": _flat(view.manifest.get("versions")),
        "objectives": [_objective_cells(objective) for objective in view.objectives],
        "has_floors": any(objective.floor is not None for objective in view.objectives),
        "manifest": _manifest_text(view.manifest),
    }


def _facts(view: RunView) -> list[Fact]:
    facts = []
    if view.final is not None:
        winner, *others = view.final.heldout
        if view.final.front is not None:
            facts += _front_facts(view.final.front)
        facts.append(Fact(points(winner.mean), "held-out score", "of 100"))
        rival = summary.best_source(others)
        if view.final.front is None and rival is not None and rival.comparison is not None:
            difference = signed_points(rival.comparison.difference)
            facts.append(Fact(difference, "to the best source", interval(rival.comparison)))
    else:
        steps = summary.best_so_far(view)
        if steps:
            fidelity = steps[-1].row.trial.fidelity
            facts.append(
                Fact(points(steps[-1].score), "best search score", count(fidelity, "document"))
            )
    failed = summary.num_failed(view)
    planned = f"of {view.max_trials:,}" if view.max_trials is not None else ""
    remark = ", ".join(filter(None, (planned, f"{failed} failed" if failed else "")))
    facts.append(Fact(f"{len(summary.finished(view)):,}", "trials", remark))
    speed = summary.documents_per_second(view)
    remark = "" if speed is None else f"{speed:.1f} per second"
    facts.append(Fact(f"{summary.num_documents(view):,}", "documents scored", remark))
    waiting = view.waiting_seconds / view.active_seconds if view.active_seconds > 0 else 0.0
    facts.append(Fact(duration(view.active_seconds), "active time", f"{percent(waiting)} waiting"))
    return facts


def _front_facts(front: Front) -> list[Fact]:
    remark = f"{percent_of_box(front.baseline_hypervolume)} without search" if front.size else ""
    return [
        Fact(str(len(front.members)), "on the Pareto front"),
        Fact(percent_of_box(front.hypervolume), "hypervolume", remark),
    ]


def _front(view: RunView) -> dict[str, Any] | None:
    """The members of the front as table cells, and what there is to say about them."""
    front = view.final.front if view.final is not None else None
    if front is None:
        return None
    rivals = rival_names(view)
    return {
        "tasks": [
            (task_label(objective, view.objectives), rival)
            for objective, rival in zip(view.objectives, rivals, strict=True)
        ],
        "members": [_member_cells(view, member) for member in front.members],
        "floors": any(member.floors for member in front.members),
        "size": front.size,
        "hypervolume": percent_of_box(front.hypervolume),
        "search_hypervolume": percent_of_box(front.search_hypervolume),
        "baseline_hypervolume": percent_of_box(front.baseline_hypervolume),
        "baselines": ", ".join(clean(label) for label in front.baselines),
    }


def _member_cells(view: RunView, member: FrontMember) -> dict[str, Any]:
    pairs = zip(view.objectives, member.row.scores, member.comparisons, strict=True)
    return {
        "label": clean(member.row.label),
        "origin": clean(member.trial.origin),
        "mean": points(member.row.mean),
        "cells": [
            {
                "score": task_score(objective, score),
                "interval": "" if compared is None else interval(compared),
                "verdict": "" if compared is None else compared.verdict,
            }
            for objective, score, compared in pairs
        ],
        "floors": floor_verdict(member),
    }


def _floors(view: RunView) -> list[dict[str, str]]:
    """The floors of the exported model."""
    if view.final is None:
        return []
    return [
        {
            "text": floor_text(view.objectives, result),
            "verdict": result.verdict,
            "interval": "" if result.comparison is None else interval(result.comparison),
        }
        for result in view.final.floors
    ]


def _heldout_cells(objectives: Sequence[Objective], row: HeldoutRow) -> dict[str, Any]:
    compared = row.comparison
    gap = None if row.search_mean is None else row.search_mean - row.mean
    return {
        "label": clean(row.label),
        "scores": [
            task_score(objective, score)
            for objective, score in zip(objectives, row.scores, strict=True)
        ],
        "mean": points(row.mean),
        "gap": "" if gap is None else signed_points(gap),
        "difference": "" if compared is None else signed_points(compared.difference),
        "interval": "" if compared is None else interval(compared),
        "verdict": "" if compared is None else compared.verdict,
    }


def _openings(view: RunView) -> str:
    if view.final is None:
        return "The held-out documents have not been opened."
    if view.final.num_openings <= 1:
        return (
            "The held-out documents were opened once, after the winner had been chosen on search "
            "documents."
        )
    return (
        f"The held-out documents were opened {view.final.num_openings} times in this run: the more "
        "often results on them guide decisions, the less the intervals promise."
    )


def _origin(view: RunView) -> str:
    """Where the recipe that is shown comes from."""
    if view.final is not None:
        trial = view.final.trial
        origin = f", proposed by {clean(trial.origin)}" if trial.origin else ""
        if view.final.front is not None:
            return (
                f"Trial {trial.index}{origin}: the member of the front with the best mean on all "
                "search documents."
            )
        return (
            f"Trial {trial.index}{origin}: of the best trials at the highest rung and below it "
            "the one with the best score on all search documents."
        )
    return "The best model so far; the search is not complete."


def _importance(view: RunView) -> Importance | None:
    return parameter_importance(summary.successes_as_trials(view))


def _tells(importance: Importance | None) -> bool:
    return importance is not None and importance.explained > 0.05


def _importance_note(view: RunView, importance: Importance | None) -> str:
    if importance is None:
        return "Too few different trials to tell which hyperparameters matter."
    configurations = importance.num_configurations
    if not _tells(importance):
        return (
            f"The {configurations} configurations do not tell yet which hyperparameters matter: "
            "a random forest predicts the cost of unseen ones hardly better than their mean does."
        )
    note = (
        f"A random forest trained on {configurations} configurations explains "
        f"{percent(importance.explained)} of the cost variance of unseen configurations."
    )
    if configurations < plots.FEW_CONFIGURATIONS:
        note += " That is little data: trust the order of the first few at most."
    return note


def _trial_rows(view: RunView) -> list[dict[str, str]]:
    """Finished trials, the best of the highest rung first, failures last."""

    def rank(pair: tuple[Any, Outcome]) -> tuple[bool, int, float, int]:
        row, outcome = pair
        failed = outcome.status is not Status.SUCCESS
        return failed, -row.trial.fidelity, outcome.cost, row.trial.index

    return [
        _trial_cells(row.trial, outcome)
        for row, outcome in sorted(summary.finished(view), key=rank)[:MAX_TRIALS]
    ]


def _trial_cells(trial: Trial, outcome: Outcome) -> dict[str, str]:
    success = outcome.status is Status.SUCCESS
    return {
        "index": str(trial.index),
        "config_id": str(trial.config_id),
        "score": points(1.0 - outcome.cost) if success else outcome.status.value.replace("_", " "),
        "fidelity": f"{trial.fidelity:,}",
        "origin": clean(trial.origin),
        "seconds": f"{outcome.seconds:.1f}",
        "new": f"{outcome.num_new_documents:,}",
    }


def _objective_cells(objective: Objective) -> list[str]:
    (low, high), floor = objective.bounds, objective.floor
    return [
        clean(objective.task),
        clean(objective.metric),
        objective.direction,
        f"{low:g} to {high:g}",
        f"{objective.weight:g}",
        *([f"{floor.margin:g} worse than {clean(floor.model)}"] if floor is not None else []),
    ]


def _flat(value: object) -> list[tuple[str, str]]:
    if not isinstance(value, Mapping):
        return []
    return [(clean(str(key)), clean(str(item))) for key, item in value.items()]


def _manifest_text(manifest: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "versions"}
    if not rest:
        return ""
    return yaml.safe_dump(rest, sort_keys=False, allow_unicode=True, width=100)
