"""Writes what a person takes home: merged models with their cards, and the report."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from auto_merge.errors import RunError
from auto_merge.merging.export import export_model
from auto_merge.recipe import files
from auto_merge.recipe.model import Recipe
from auto_merge.reports.card import CardSource, model_card
from auto_merge.reports.html import html_report
from auto_merge.reports.summary import headline
from auto_merge.reports.trade_off import member_sentence
from auto_merge.runs import reader
from auto_merge.runs.store import RunStore
from auto_merge.runs.view import Final, FrontMember, HeldoutRow, RunView
from auto_merge.search.candidates import Workbench
from auto_merge.trial import Trial

REPORT = "report.html"
BEST = "best"


def deliver(store: RunStore, workbench: Workbench, final: Final) -> RunView:
    """Exports the winner to ``best/`` and writes ``report.html``; returns the finished run.

    Of a front the winner is the first member; :func:`export_front` writes the others on request.
    Both are this run's own files, so an extended run replaces them.
    """
    view = replace(reader.view(store), state="complete")
    export_trial(workbench, final.recipe, store.folder / BEST, view, final.trial, overwrite=True)
    write_html(view, store.folder / REPORT)
    told = sum(row.outcome is not None for row in view.trials)
    done = {"num_trials": told, "limits": store.fact(reader.LIMITS_FACT)}
    store.set_fact(reader.DELIVERED_FACT, done)
    return view


def delivered(folder: Path) -> bool:
    """Whether both are there."""
    return (folder / BEST).is_dir() and (folder / REPORT).is_file()


def export_trial(
    workbench: Workbench,
    recipe: Recipe,
    out: Path,
    view: RunView,
    trial: Trial,
    *,
    overwrite: bool = False,
) -> None:
    """Writes a trial's model as a Hugging Face folder with card and recipe.

    The card shows held-out scores of the winner and of members of the front, search scores of other
    trials.

    Raises:
        CheckpointError: The folder exists and ``overwrite`` is off, or the disk is full.
    """
    outcome = view.trials[trial.index].outcome
    won = view.final is not None and view.final.trial.index == trial.index
    member = _member(view, trial)
    heldout: Sequence[HeldoutRow] = ()
    text = ""
    if won and view.final is not None:
        heldout, text = view.final.heldout, headline(view)
    elif member is not None and view.final is not None:
        # The other rows were compared with the winner, not with this member.
        others = (replace(row, comparison=None) for row in view.final.heldout[1:])
        heldout = (replace(member.row, comparison=None), *others)
        text = member_sentence(view, member)
    portable = workbench.portable(recipe)
    sources = card_sources(view, portable)
    recipe_yaml = recipe_text(portable, view.manifest["models"], out)
    card = model_card(
        name=view.name if won else f"{view.name}, trial {trial.index}",
        recipe_yaml=recipe_yaml,
        sources=sources,
        objectives=view.objectives,
        heldout=heldout,
        search_scores=outcome.scores if outcome and not heldout else (),
        headline=text,
    )
    export_model(
        workbench.plan(recipe),
        workbench.checkpoints,
        out,
        files={"README.md": card, "recipe.yaml": recipe_yaml},
        overwrite=overwrite,
    )


def export_front(
    workbench: Workbench, out: Path, view: RunView, *, overwrite: bool = False
) -> list[Path]:
    """Writes every member of the front to ``out/<nn>_trial_<n>/``, the winner as ``01``.

    Returns:
        The folders, in the order of the front.

    Raises:
        RunError: The run has no front, because it is not complete or has a single objective.
        CheckpointError: A folder exists and ``overwrite`` is off, or the disk is full; members
            before it are written.
    """
    front = view.final.front if view.final is not None else None
    if front is None:
        reason = "has a single objective" if view.final is not None else "is not complete"
        raise RunError(f"run {view.name!r} {reason}, so it has no front; export --trial best")
    folders = []
    for number, member in enumerate(front.members, start=1):
        folders.append(out / f"{number:02d}_trial_{member.trial.index}")
        export_trial(workbench, member.recipe, folders[-1], view, member.trial, overwrite=overwrite)
    return folders


def _member(view: RunView, trial: Trial) -> FrontMember | None:
    """The member of the front that a trial is, if it is one."""
    if view.final is None or view.final.front is None:
        return None
    members = view.final.front.members
    return next((one for one in members if one.trial.index == trial.index), None)


def recipe_text(recipe: Recipe, models: Mapping[str, Mapping[str, Any]], out: Path) -> str:
    """The recipe as YAML that can be merged again from inside the folder ``out``.

    Args:
        recipe: The recipe.
        models: Role -> mapping with its ``location``.
        out: Folder that the text will stand in; local models are named relative to it.
    """
    places = {}
    for role in recipe.models():
        location = str(models[role]["location"])
        local = Path(location).is_absolute()
        places[role] = os.path.relpath(location, out.absolute()) if local else location
    return files.to_yaml(recipe, places)


def card_sources(view: RunView, recipe: Recipe) -> list[CardSource]:
    """The models of a recipe as the run's manifest knows them."""
    models = view.manifest["models"]
    return [
        CardSource(name, models[name]["path"], models[name]["fingerprint"], models[name]["hub_id"])
        for name in recipe.models()
    ]


def write_html(view: RunView, path: Path) -> None:
    """Writes the report as one file, whole or not at all.

    Raises:
        RunError: The file cannot be written.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_text(html_report(view), "utf-8")
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from None
