"""Single recipes: from a search configuration, a recipe file or a trial to a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from auto_merge.checkpoints.checkpoint import fingerprint
from auto_merge.config.loading import default_cache_dir
from auto_merge.config.models import Model, resolve_location
from auto_merge.config.run_config import RunConfig
from auto_merge.errors import (
    CheckpointError,
    ConfigError,
    RecipeError,
    RunError,
    UserError,
    nearest,
)
from auto_merge.merging.export import export_model
from auto_merge.merging.plan import Plan, build_plan
from auto_merge.recipe import files
from auto_merge.recipe.model import Recipe
from auto_merge.reports.card import CardSource, model_card
from auto_merge.runs import reader
from auto_merge.runs.store import RunStore
from auto_merge.runs.view import RunView
from auto_merge.search import deliver
from auto_merge.search.candidates import Workbench, plan_of
from auto_merge.search.conclude import finalists
from auto_merge.search.evaluate import Examination, kind_of
from auto_merge.search.models import open_model
from auto_merge.search.results import Scored, Written
from auto_merge.search.setup import Setup, prepare
from auto_merge.search.spaces import (
    as_published,
    is_search_configuration,
    publish,
    strategy_alone,
)
from auto_merge.trial import Trial

PARETO = "pareto"
FORMATS = ("recipe", "plan", "published", "mergekit")


@dataclass(frozen=True)
class Found:
    """What a FILE argument turned out to be.

    Attributes:
        published: Flat search configuration, if it is one.
        recipe: Recipe, if it is one.
        models: Role -> place, as a recipe file names them.
    """

    published: Mapping[str, Any] | None = None
    recipe: Recipe | None = None
    models: Mapping[str, str] | None = None


def replay(
    file: str,
    config: RunConfig,
    *,
    export: Path | None,
    documents: str | None,
    overwrite: bool,
    quiet: bool,
) -> Scored:
    """Decodes a stored merge, evaluates it in full and exports it.

    Args:
        file: Search configuration JSON, recipe, or ``RUN:TRIAL``.
        config: Names the models and tasks.
        export: Folder to write, if any.
        documents: Kind of documents to score it on in full; ``None`` for no evaluation.
        overwrite: Whether ``export`` may exist.
        quiet: Whether to show no progress.

    Raises:
        UserError: The file does not fit the configuration, or something is missing.
    """
    kind = None if documents is None else kind_of(documents)
    setup = prepare(config, evaluates=kind is not None)
    recipe = _decode(_find(file), setup)
    workbench = Workbench(setup.checkpoints, device="cpu", dtype=setup.cast.dtype, cast=setup.cast)
    plan = workbench.plan(recipe)
    text = files.to_yaml(recipe, {m.name: m.path for m in _models(config, recipe).values()})
    written = None
    if export is not None:
        portable = workbench.portable(recipe)
        models = _models(config, portable)
        written = _write(plan, portable, workbench, export, models, overwrite)
    if kind is None:
        return Scored(file, {}, {}, written, text)
    scored = Examination(setup, quiet=quiet).examine(file, recipe, (kind,))
    return replace(scored, written=written, recipe=text)


def merge_file(file: Path, out: Path, *, overwrite: bool) -> Written:
    """Merges a recipe file that names its models.

    Raises:
        UserError: The recipe is wrong or a model is missing.
    """
    found = _find(str(file))
    if found.recipe is None or found.models is None:
        raise RecipeError(f"{file}: not a recipe; use replay for search configurations")
    locations = _locations(found.recipe, found.models, file)
    checkpoints = {name: open_model(model) for name, model in locations.items()}
    for checkpoint in checkpoints.values():
        fingerprint(checkpoint, default_cache_dir())
    plan = build_plan(found.recipe, checkpoints)
    workbench = Workbench(checkpoints, device="cpu", dtype=plan.dtype)
    return _write(plan, found.recipe, workbench, out, locations, overwrite)


def export_trial(run: Path, trial: str, out: Path, *, overwrite: bool) -> Written:
    """Writes a trial of a run as a model folder, or every member of its front.

    Args:
        run: Run folder.
        trial: Trial number, ``best``, or ``pareto`` for all members of the front, each in a folder
            of its own inside ``out``.
        out: Folder to write.
        overwrite: Whether ``out`` may exist.

    Raises:
        UserError: There is no such trial, or its models are gone or have changed.
    """
    store = RunStore(run)
    view = reader.view(store)
    chosen = _trial(view, run, "best" if trial == PARETO else trial)
    setup = _recorded_setup(store)
    recipe = setup.strategy.decode(chosen.configuration)
    workbench = Workbench(setup.checkpoints, device="cpu", dtype=setup.cast.dtype, cast=setup.cast)
    if trial == PARETO:
        deliver.export_front(workbench, out, view, overwrite=overwrite)
    else:
        deliver.export_trial(workbench, recipe, out, view, chosen, overwrite=overwrite)
    plan = workbench.plan(recipe)
    return Written(str(out), plan.digest, len(plan.steps))


def show_recipe(
    file: str, config: RunConfig | None, form: str, *, roles: bool = False
) -> tuple[Any, str]:
    """Returns a decoded recipe in one of several forms, as JSON-able data and as text.

    Args:
        file: Search configuration JSON, recipe, or ``RUN:TRIAL``.
        config: Names the models; not needed for a recipe file.
        form: ``recipe``, ``plan`` (of every tensor) or ``published`` (flat key names of the
            published searches).
        roles: Whether the models are called ``model_0``, ``model_1``, ... and ``base`` in a recipe,
            in the order of the configuration; with ``published``, whether they are called so in
            the file.

    Raises:
        UserError: The file cannot be decoded, or the format is unknown.
    """
    if form not in FORMATS:
        raise UserError(f"--format {form!r}: unknown{nearest(form, FORMATS)}")
    if form == "mergekit":
        raise UserError("--format mergekit is not available in this version; use recipe or plan")
    if roles and config is None:
        raise UserError("--roles needs --config, which gives the order of the models")
    found = _find(file)
    if form == "recipe":
        recipe, models = _recipe_only(found, file, config)
        if roles:
            assert config is not None, "checked above"
            names = _roles(config)
            recipe = recipe.renamed(names)
            models = {names.get(name, name): path for name, path in models.items()}
        return files.to_data(recipe, models), files.to_yaml(recipe, models)
    if config is None:
        raise UserError(f"--format {form} needs --config, which names the models")
    if form == "published":
        recipe, _ = _recipe_only(found, file, config)
        if roles:
            recipe = recipe.renamed({role: name for name, role in _roles(config).items()})
        flat = publish(config, recipe)
        return flat, json.dumps(flat, indent=4, sort_keys=True)
    setup = prepare(config)
    plan = plan_of(_decode(found, setup), setup.checkpoints, setup.cast, setup.cast.dtype)
    return _plan_data(plan), "\n".join(_plan_lines(plan))


def _find(file: str) -> Found:
    run, _, trial = file.rpartition(":")
    if run and trial and RunStore.exists(Path(run)):
        return _from_run(Path(run), trial)
    path = Path(file)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise RecipeError(f"{file}: cannot be read: {reason}") from None
    data = files.parse(text, file)
    if is_search_configuration(data):
        return Found(published=data)
    known = files.from_data(data, file)
    return Found(recipe=known.recipe, models=known.models)


def _from_run(run: Path, trial: str) -> Found:
    return Found(published=_trial(reader.view(RunStore(run)), run, trial).configuration)


def _trial(view: RunView, run: Path, name: str) -> Trial:
    """The trial with a number, or the winner, or the best so far."""
    if name == "best":
        return view.final.trial if view.final else finalists(view, 1)[0]
    if not name.isdecimal() or int(name) >= len(view.trials):
        raise RunError(f"{run}: no trial {name!r}; it has 0 to {len(view.trials) - 1}, and best")
    return view.trials[int(name)].trial


def _decode(found: Found, setup: Setup) -> Recipe:
    if found.recipe is not None:
        return found.recipe
    assert found.published is not None, "a file is one or the other"
    strategy = as_published(setup.strategy, found.published)
    return strategy.decode(strategy.encode(found.published))


def _recipe_only(
    found: Found, file: str, config: RunConfig | None
) -> tuple[Recipe, Mapping[str, str]]:
    """Decodes without opening a model."""
    if found.recipe is not None:
        return found.recipe, found.models or {}
    if config is None:
        raise UserError(f"{file}: a search configuration needs --config, which names its models")
    assert found.published is not None, "a file is one or the other"
    try:
        strategy = strategy_alone(config, found.published)
    except ConfigError:
        # Nothing in the files says how many layers the models have; the models do.
        strategy = prepare(config, dry=True).strategy
    strategy = as_published(strategy, found.published)
    recipe = strategy.decode(strategy.encode(found.published))
    # The data type in which candidates were scored is not part of what was found.
    return replace(recipe, dtype=None), {model.name: model.path for model in config.all_models}


def _roles(config: RunConfig) -> dict[str, str]:
    """Name of a model -> what it is called by position."""
    names = {model.name: f"model_{number}" for number, model in enumerate(config.models)}
    if config.base_model is not None:
        names.setdefault(config.base_model.name, "base")
    return names


def _recorded_setup(store: RunStore) -> Setup:
    """Opens a run's models again and checks that they are the same."""
    from auto_merge.config.loading import load_resolved

    # A dry look: an export needs no task folder.
    setup = prepare(load_resolved(store.manifest["config"], store.folder), dry=True)
    for name, model in store.manifest["models"].items():
        if setup.checkpoints[name].fingerprint != model["fingerprint"]:
            raise CheckpointError(
                f"model {name!r} ({setup.checkpoints[name].path}) has changed since the run "
                f"{store.folder}; put the old files back"
            )
    return setup


def _locations(recipe: Recipe, models: Mapping[str, str], file: Path) -> dict[str, Model]:
    located = {}
    for role in recipe.models():
        path = models.get(role, role)
        located[role] = Model(role, path, resolve_location(path, file.parent))
    return located


def _models(config: RunConfig, recipe: Recipe) -> dict[str, Model]:
    return {model.name: model for model in config.all_models if model.name in recipe.models()}


def _write(
    plan: Plan,
    recipe: Recipe,
    workbench: Workbench,
    out: Path,
    models: Mapping[str, Model],
    overwrite: bool,
) -> Written:
    text = deliver.recipe_text(
        recipe,
        {role: {"location": model.location} for role, model in models.items()},
        out,
    )
    sources = [
        CardSource(role, model.path, workbench.checkpoints[role].fingerprint, model.hub_id)
        for role, model in models.items()
    ]
    export_model(
        plan,
        workbench.checkpoints,
        out,
        files={
            "README.md": model_card(name=out.name, recipe_yaml=text, sources=sources),
            "recipe.yaml": text,
        },
        overwrite=overwrite,
    )
    return Written(str(out), plan.digest, len(plan.steps))


def _plan_data(plan: Plan) -> dict[str, Any]:
    return {
        "digest": plan.digest,
        "dtype": plan.dtype,
        "donor": plan.donor,
        "added_tokens": [token.to_json() for token in plan.added_tokens],
        "steps": [
            {
                "output": step.output,
                "shape": list(step.shape),
                "method": step.call.method,
                "inputs": [list(reference) for reference in step.inputs],
                "base": list(step.base) if step.base else None,
                "arguments": dict(step.call.arguments),
                "factor": step.factor,
                "digest": step.digest,
            }
            for step in plan.steps
        ],
    }


def _plan_lines(plan: Plan) -> list[str]:
    lines = [f"# {len(plan.steps)} tensors, {plan.dtype}, digest {plan.digest[:12]}"]
    lines += [f"# added token {token.content!r} with id {token.id}" for token in plan.added_tokens]
    for step in plan.steps:
        inputs = ", ".join(f"{role}:{name}" for role, name in step.inputs)
        numbers = ", ".join(f"{key}={value}" for key, value in step.call.arguments.items())
        base = f" on {step.base[0]}:{step.base[1]}" if step.base else ""
        factor = "" if step.factor == 1.0 else f"{step.factor:g} * "
        lines.append(f"{step.output} = {factor}{step.call.method}({inputs}){base} [{numbers}]")
    return lines
