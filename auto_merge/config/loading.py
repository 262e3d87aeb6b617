"""Loads a configuration: YAML, overrides, shallow merge, validation, paths."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from auto_merge.config.evaluation import TaskEntry, TaskFunction
from auto_merge.config.fixed import NormalSlicesSection
from auto_merge.config.layout import HEAD_KEYS, Merged, check_layout, merge
from auto_merge.config.models import Model, ModelEntry, resolve_model, resolve_path
from auto_merge.config.overrides import apply_overrides
from auto_merge.config.places import KeyPath, Place, Tree, located
from auto_merge.config.run_config import RunConfig
from auto_merge.config.run_section import HeadSection, RunSection
from auto_merge.config.search import PUBLISHED_NAMES
from auto_merge.config.strategies import SECTIONS
from auto_merge.config.strategy_section import StrategySection
from auto_merge.config.validation import dotted_keys, validate
from auto_merge.config.yaml_tree import read_tree
from auto_merge.errors import ConfigError

CACHE_VARIABLE = "AUTO_MERGE_CACHE"


def load_config(file: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
    """Loads, merges and checks a configuration file.

    Args:
        file: YAML file in the published layout.
        overrides: Texts ``key=value``, see :func:`~auto_merge.config.overrides.apply_overrides`.

    Raises:
        ConfigError: One line: file, line, dotted key, what is wrong, what would be right.
    """
    tree = read_tree(Path(file))
    apply_overrides(tree, overrides)
    return _checked(tree, Path(file))


def load_resolved(data: Mapping[str, Any], folder: Path) -> RunConfig:
    """Restores what :meth:`RunConfig.resolved` gave.

    Args:
        data: The resolved configuration, as a run's manifest holds it.
        folder: The run's folder; relative paths, of which a resolved one has none, start here.

    Raises:
        ConfigError: The data was changed and is wrong now.
    """
    file = folder / "manifest.json"
    return _checked(Tree(deepcopy(dict(data)), {(): Place(str(file), None, folder)}), file)


def _checked(tree: Tree, file: Path) -> RunConfig:
    strategy = check_layout(tree)
    head = validate(
        HeadSection,
        {key: tree.data[key] for key in HEAD_KEYS if key in tree.data},
        lambda keys: located(tree.place(keys), keys),
    )
    merged = merge(tree, strategy)
    settings = _settings(merged, published=head.compat == "published")
    if isinstance(settings, NormalSlicesSection) and "models" not in merged.data:
        merged.data["models"] = _sliced_models(settings, merged)
    run = _run_section(merged)
    return _build(file, head, run, settings, merged)


def _settings(merged: Merged, published: bool) -> StrategySection:
    section = SECTIONS[merged.strategy]
    own = {key: value for key, value in merged.data.items() if key not in RunSection.model_fields}
    defaults = section.PUBLISHED_MEANING if published else {}
    return validate(
        section,
        {**defaults, **own},
        merged.located,
        top_keys=(*RunSection.model_fields, *PUBLISHED_NAMES),
        elsewhere=dotted_keys(RunSection, section),
    )


def _sliced_models(settings: NormalSlicesSection, merged: Merged) -> list[str]:
    """The models that the slices name, without the base, in order of first use."""
    base = merged.data.get("base_model")
    name = base.get("name", base.get("path")) if isinstance(base, dict) else base
    used = [source.model for part in settings.slices for source in part.sources]
    return [model for model in dict.fromkeys(used) if model != name] or list(dict.fromkeys(used))


def _run_section(merged: Merged) -> RunSection:
    data = {key: value for key, value in merged.data.items() if key in RunSection.model_fields}
    data["search"] = {**SECTIONS[merged.strategy].SEARCH_MEANING, **data["search"]}
    return validate(RunSection, data, merged.located, elsewhere=dotted_keys(RunSection))


def _build(
    file: Path, head: HeadSection, run: RunSection, settings: StrategySection, merged: Merged
) -> RunConfig:
    name = head.name or re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).lstrip("._-") or "run"
    warnings = list(merged.warnings)
    if run.evaluation.limit is not None:
        where = merged.located(("evaluation", "limit"))
        warnings.append(f"{where}: ignored, a search scores as many documents as its rungs say")
    config = RunConfig(
        file=file,
        strategy=head.strategy,
        name=name,
        compat=head.compat,
        random_seed=run.random_seed,
        cache_dir=Path(run.cache_dir).expanduser().absolute()
        if run.cache_dir
        else default_cache_dir(),
        output_path=Path(run.output_path or Path("runs", name)).expanduser(),
        load_run_history=_input(run.load_run_history, merged, ("load_run_history",)),
        evaluation=run.evaluation,
        include_paths=_include_paths(run, merged),
        search=run.search,
        base_model=_base(run, merged),
        models=tuple(
            _model(entry, merged, ("models", number)) for number, entry in enumerate(run.models)
        ),
        settings=settings,
        functions=tuple(
            _function(entry, merged, ("evaluation", "tasks", number))
            for number, entry in enumerate(run.evaluation.tasks)
        ),
        warnings=tuple(warnings),
        merged=merged,
    )
    config.objectives()
    return config


def default_cache_dir() -> Path:
    """Returns ``$AUTO_MERGE_CACHE``, else ``~/.cache/auto_merge``; absolute, may not exist."""
    folder = os.environ.get(CACHE_VARIABLE) or Path("~", ".cache", "auto_merge")
    return Path(folder).expanduser().absolute()


def _input(path: str | None, merged: Merged, key: KeyPath) -> Path | None:
    return None if path is None else resolve_path(path, merged.place(key).folder)


def _function(entry: TaskEntry, merged: Merged, key: KeyPath) -> TaskFunction | None:
    if entry.function is None:
        return None
    file, _, name = entry.function.rpartition(":")
    documents = _input(entry.documents, merged, (*key, "documents"))
    assert documents is not None, "validated"
    found = _input(file, merged, (*key, "function"))
    assert found is not None, "validated"
    heldout = _input(entry.heldout_documents, merged, (*key, "heldout_documents"))
    return TaskFunction(found, name, documents, heldout, entry.overrides.get("metadata") or {})


def _include_paths(run: RunSection, merged: Merged) -> tuple[Path, ...]:
    key: KeyPath = ("evaluation", "include_path")
    return tuple(
        resolve_path(path, merged.place((*key, number)).folder)
        for number, path in enumerate(run.evaluation.include_path)
    )


def _model(entry: ModelEntry, merged: Merged, key: KeyPath) -> Model:
    return resolve_model(entry, merged.place((*key, "path")))


def _base(run: RunSection, merged: Merged) -> Model | None:
    if run.base_model is None:
        return None
    base = _model(run.base_model, merged, ("base_model",))
    for number, entry in enumerate(run.models):
        if entry.name == base.name and entry.path != run.base_model.path:
            raise ConfigError(
                f"{merged.located(('models', number))}: {base.name!r} is also the name of the "
                "base model, which is another one; give it a name of its own"
            )
    return base
