"""The result of loading: everything that a run needs to know, checked and frozen."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from auto_merge.config import metrics
from auto_merge.config.evaluation import Evaluation, TaskEntry, TaskFunction
from auto_merge.config.fixed import parameters_data
from auto_merge.config.layout import Merged
from auto_merge.config.models import Model
from auto_merge.config.search import SearchSection
from auto_merge.config.strategy_section import StrategySection
from auto_merge.errors import ConfigError, nearest
from auto_merge.trial import Floor, Objective

_EXTENDABLE_SEARCH = ("max_trials", "max_seconds", "workers")
_FREE_EVALUATION = ("batch_size", "device", "limit")


@dataclass(frozen=True)
class RunConfig:
    """A run's configuration.

    Attributes:
        file: The configuration file.
        strategy: Name of the strategy, ``"lfs"``.
        name: Name of the run.
        compat: ``"published"`` where the published meaning was asked for.
        random_seed: Root of all randomness.
        cache_dir: Folder of the score ledger; absolute, may not exist.
        output_path: Folder of the run, may not exist; relative to the working directory.
        load_run_history: Run history to start from; absolute, may not exist.
        evaluation: How candidates are scored.
        include_paths: ``evaluation.include_path``, absolute; may not exist.
        search: How candidates are proposed.
        base_model: Common ancestor of the models.
        models: The models to be merged; names are unique.
        settings: The strategy's own settings.
        functions: One per task entry: its Python objective, or ``None``.
        allow_code_execution: Whether programs that a model wrote may run, in the sandbox; set by
            the command line, never by a file.
        warnings: What the person should know, one line each.
        merged: The settings as the files gave them, to say where one stands.
    """

    file: Path
    strategy: str
    name: str
    compat: Literal["published"] | None
    random_seed: int
    cache_dir: Path
    output_path: Path
    load_run_history: Path | None
    evaluation: Evaluation
    include_paths: tuple[Path, ...]
    search: SearchSection
    base_model: Model | None
    models: tuple[Model, ...]
    settings: StrategySection
    functions: tuple[TaskFunction | None, ...] = ()
    allow_code_execution: bool = False
    warnings: tuple[str, ...] = ()
    merged: Merged | None = field(default=None, repr=False, compare=False)

    @property
    def all_models(self) -> tuple[Model, ...]:
        """The models to be merged, then the base model if there is one."""
        return (*self.models, *((self.base_model,) if self.base_model else ()))

    def objectives(self) -> tuple[Objective, ...]:
        """Returns one objective per configured task metric, in file order.

        Raises:
            ConfigError: A metric without known bounds has none in its entry.
        """
        return tuple(
            self._objective(number, entry) for number, entry in enumerate(self.evaluation.tasks)
        )

    def _objective(self, number: int, entry: TaskEntry) -> Objective:
        known = entry.known
        bounds = entry.bounds or (known.bounds if known else None)
        if bounds is None:
            hint = "" if known or entry.function else _similar_metric(entry.metric)
            where = self.located("evaluation", "tasks", number, "metric")
            raise ConfigError(
                f"{where}: the range of metric {entry.metric!r} is not known{hint}; "
                "add 'bounds: [low, high]' to the task"
            )
        direction = entry.direction or (known.direction if known else "maximize")
        floor = None if entry.floor is None else Floor(entry.floor.model, entry.floor.margin)
        if floor is not None and floor.model not in (names := [m.name for m in self.all_models]):
            where = self.located("evaluation", "tasks", number, "floor", "model")
            raise ConfigError(f"{where}: no model {floor.model!r}{nearest(floor.model, names)}")
        return Objective(entry.task, entry.metric, direction, bounds, entry.weight, floor)

    def located(self, *path: str | int) -> str:
        """Returns the start of an error message about a setting: file, line and dotted key."""
        if self.merged is None:
            return f"{self.file}: {'.'.join(str(part) for part in path)}"
        return self.merged.located(path)

    def problems(self) -> tuple[str, ...]:
        """Returns what keeps this configuration from running, one line each.

        These settings are legal, so that a file can be checked where it cannot run; a run refuses
        them, a dry run lists them.
        """
        found = []
        if self.evaluation.vllm:
            found.append(f"{self.located('evaluation', 'vllm')}: vLLM {_LATER}; set it to false")
        if self.search.workers > 1:
            found.append(
                f"{self.located('search', 'workers')}: more than one worker {_LATER}; set it to 1"
            )
        for folder in self.include_paths:
            if not folder.is_dir():
                found.append(f"{self.located('evaluation', 'include_path')}: no folder {folder}")
        return tuple(found)

    def check_supported(self) -> None:
        """Refuses a configuration that cannot run.

        Raises:
            ConfigError: The first of :meth:`problems`.
        """
        for problem in self.problems():
            raise ConfigError(problem)

    def resolved(self) -> dict[str, Any]:
        """Returns the configuration with all defaults, JSON-able, in the layout of a file.

        Loading it again gives the same settings from any working directory.
        """
        evaluation = {
            **self._evaluation(),
            "include_path": [str(path) for path in self.include_paths],
        }
        for task, function in zip(evaluation["tasks"], self.functions, strict=True):
            if function is not None:
                task["function"] = f"{function.file}:{function.name}"
                task["documents"] = str(function.documents)
                task["heldout_documents"] = function.heldout and str(function.heldout)
        history = self.load_run_history
        return {
            "strategy": self.strategy,
            "name": self.name,
            "compat": self.compat,
            "global_params": {
                "random_seed": self.random_seed,
                "cache_dir": str(self.cache_dir),
                "output_path": str(self.output_path.absolute()),
                "load_run_history": None if history is None else str(history),
                "evaluation": evaluation,
                "search": self.search.model_dump(mode="json"),
            },
            "strategies": {
                self.strategy: {
                    "base_model": None if self.base_model is None else _model(self.base_model),
                    "models": [_model(model) for model in self.models],
                    **self.settings.model_dump(mode="json"),
                }
            },
        }

    def identity(self) -> dict[str, Any]:
        """Returns what makes this run the run that it is, JSON-able.

        Left out: keys that may change when a run goes on (``max_trials``, ``max_seconds``,
        ``workers``, ``batch_size``, ``device``), names and folders of the run, and the folders of
        the models, whose content has fingerprints of its own.
        """
        evaluation = self._evaluation()
        search = self.search.model_dump(mode="json")
        roles = {model.name: model.revision for model in self.all_models}
        own = {m.name: parameters_data(m.parameters) for m in self.all_models if m.parameters}
        return {
            "strategy": self.strategy,
            "random_seed": self.random_seed,
            "evaluation": {k: v for k, v in evaluation.items() if k not in _FREE_EVALUATION},
            "search": {k: v for k, v in search.items() if k not in _EXTENDABLE_SEARCH},
            "base_model": self.base_model.name if self.base_model else None,
            "models": [model.name for model in self.models],
            "revisions": {name: revision for name, revision in roles.items() if revision},
            **({"parameters": own} if own else {}),
            **self.settings.model_dump(mode="json"),
        }

    def _evaluation(self) -> dict[str, Any]:
        """The evaluation section with every task's direction and bounds filled in."""
        section = self.evaluation.model_dump(mode="json")
        for task, objective in zip(section["tasks"], self.objectives(), strict=True):
            task.update(direction=objective.direction, bounds=list(objective.bounds))
        return section


_ABSENT = object()
_LATER = "is not available in this version"


def _model(model: Model) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": model.name,
        "path": model.location,
        "revision": model.revision,
    }
    if model.parameters:
        entry["parameters"] = parameters_data(model.parameters)
    return entry


def _similar_metric(key: str) -> str:
    hint = nearest(key.split(",")[0], metrics.KNOWN)
    return hint if "did you mean" in hint else ""


def differing_keys(one: dict[str, Any], other: dict[str, Any]) -> tuple[str, ...]:
    """Names the dotted keys in which two identities differ, sorted."""
    return tuple(sorted(_differing(one, other, "")))


def _differing(one: Any, other: Any, key: str) -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        names = {*one, *other}
        pairs = [(name, one.get(name, _ABSENT), other.get(name, _ABSENT)) for name in names]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        numbers = map(str, range(len(one)))
        pairs = list(zip(numbers, one, other, strict=True))
    else:
        return [] if one == other else [key]
    found = []
    for name, first, second in pairs:
        found += _differing(first, second, f"{key}.{name}" if key else name)
    return found
