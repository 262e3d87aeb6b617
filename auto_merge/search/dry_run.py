"""``--dry-run``: checks a configuration as far as this machine can, and says what a run costs."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from auto_merge.config.run_config import RunConfig
from auto_merge.errors import CheckpointError
from auto_merge.evaluation.evaluator import HarnessEvaluator
from auto_merge.evaluation.task_names import check_names
from auto_merge.optimizers.fidelity import Bracket, rungs
from auto_merge.runs.store import RunStore
from auto_merge.search import front
from auto_merge.search.baselines import SINGLE_SCALES
from auto_merge.search.candidates import Workbench
from auto_merge.search.conclude import MOST_SEARCHED
from auto_merge.search.manifest import brackets, limits_of
from auto_merge.search.scoring import build_evaluator, resolve_device
from auto_merge.search.setup import Setup, prepare, task_names, warm_start
from auto_merge.search.spaces import is_multi_objective, strategy_alone

_WARM_UP, _TIMED = 2, 16
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class DryRun:
    """What was found.

    Attributes:
        name: Name of the run.
        checked: What was checked and is right.
        not_checked: What could not be checked, with the reason.
        problems: What keeps the configuration from running in this version.
        rungs: Documents per task at each rung.
        num_tasks: Number of tasks.
        max_trials: Largest number of trials; ``None`` if only time limits the run.
        max_seconds: Largest number of active seconds of the search; ``None`` for no limit.
        max_documents: Largest number of documents that the trials newly score, all tasks together;
            ``None`` if only time limits the run.
        conclusion_documents: Documents that choosing the winner and comparing it on held-out
            documents newly score at most; ``None`` if the tasks were not checked.
        documents_per_second: Speed of the base model on a few documents, without merging and with
            cold caches, so rather too low; ``None`` if the tasks were not checked.
        num_hyperparameters: Size of the search space; ``None`` if the models are not here.
        resident_bytes: Memory of the resident model; ``None`` if the models are not here.
        source_bytes: Size of the mapped source files; ``None`` if the models are not here.
    """

    name: str
    checked: tuple[str, ...]
    not_checked: tuple[str, ...]
    problems: tuple[str, ...]
    rungs: tuple[int, ...]
    num_tasks: int
    max_trials: int | None
    max_seconds: float | None
    max_documents: int | None
    conclusion_documents: int | None
    documents_per_second: float | None
    num_hyperparameters: int | None
    resident_bytes: int | None
    source_bytes: int | None

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Text for people."""
        lines = [f"{self.name}: dry run"]
        lines += [f"  checked: {text}" for text in self.checked]
        lines += [f"  not checked: {text}" for text in self.not_checked]
        lines += [f"  would be refused: {text}" for text in self.problems]
        steps = ", ".join(str(rung) for rung in self.rungs)
        lines.append(f"  rungs: {steps} documents per task, {self.num_tasks} tasks")
        if self.max_trials is not None:
            lines.append(f"  at most {self.max_trials} trials, {self.max_documents} documents")
        if self.conclusion_documents is not None:
            lines.append(f"  the comparison at the end: at most {self.conclusion_documents} more")
        if self.documents_per_second is not None:
            lines += self._seconds_lines(self.documents_per_second)
        if self.max_seconds is not None:
            lines.append(f"  at most {self.max_seconds:g} seconds of search")
        if self.resident_bytes is not None and self.source_bytes is not None:
            lines.append(
                f"  {self.num_hyperparameters} hyperparameters; memory: "
                f"{self.resident_bytes / 2**20:.0f} MiB for the merged model, "
                f"{self.source_bytes / 2**20:.0f} MiB of sources mapped from disk"
            )
        return lines

    def _seconds_lines(self, speed: float) -> list[str]:
        documents = (self.max_documents or 0) + (self.conclusion_documents or 0)
        line = f"  about {speed:.0f} documents per second here"
        if self.max_documents is not None:
            line += f", so at most about {documents / speed / 60:.0f} minutes without a time limit"
        return [line]


def dry_run(config: RunConfig) -> DryRun:
    """Checks a configuration and scores a few documents to see how fast that is; writes nothing.

    Models that are not on this machine are listed as not checked; everything else that is wrong is
    an error as in a real run.

    Raises:
        UserError: Something is wrong.
    """
    checked = [f"{config.file}: keys and values"]
    not_checked: list[str] = []
    objectives = config.objectives()
    if not RunStore.exists(config.output_path):
        RunStore.check_free(config.output_path)
    conclusion = speed = None
    setup = _setup(config, checked, not_checked)
    top = config.search.max_budget
    if setup is not None and not config.problems():
        with tempfile.TemporaryDirectory() as scratch:
            # The evaluator keeps converted data and a ledger; a dry run leaves neither behind.
            apart = replace(setup, config=replace(config, cache_dir=Path(scratch)))
            device = resolve_device(config.evaluation.device)
            evaluator = build_evaluator(apart, device)
            top = min(top, evaluator.max_fidelity)
            conclusion = _conclusion(setup, evaluator, rungs(brackets(config, top)))
            speed = _documents_per_second(setup, evaluator, device)
        checked.append(f"{len(objectives)} task metrics and their documents")
    else:
        check_names(task_names(config), [path for path in config.include_paths if path.is_dir()])
        checked.append("names of the tasks")
        not_checked.append("documents of the tasks")
    num_hyperparameters = _num_hyperparameters(config, setup, checked)
    stages = brackets(config, top)
    limits = limits_of(config)
    return DryRun(
        name=config.name,
        checked=tuple(checked),
        not_checked=tuple(not_checked),
        problems=config.problems(),
        rungs=tuple(rungs(stages)),
        num_tasks=len({objective.task for objective in objectives}),
        max_trials=limits.max_trials,
        max_seconds=limits.max_seconds,
        max_documents=_documents(config, stages, limits.max_trials),
        conclusion_documents=conclusion,
        documents_per_second=speed,
        num_hyperparameters=num_hyperparameters,
        resident_bytes=_resident(setup) if setup else None,
        source_bytes=_mapped(setup) if setup else None,
    )


def _setup(config: RunConfig, checked: list[str], not_checked: list[str]) -> Setup | None:
    try:
        setup = prepare(config, dry=True)
    except CheckpointError as error:
        if not _absent(config):
            raise
        not_checked.append(f"models ({error})")
        return None
    checked.append(f"{len(setup.checkpoints)} models: headers, shapes, vocabularies")
    checked.append("search space and merge plan")
    if config.load_run_history is not None:
        checked.append(f"run history: {len(warm_start(setup))} configurations")
    return setup


def _num_hyperparameters(config: RunConfig, setup: Setup | None, checked: list[str]) -> int | None:
    """Size of the search space, which without models needs their number of layers."""
    if setup is not None:
        return len(setup.strategy.space())
    if getattr(config.settings, "num_hidden_layers", None) is None:
        return None
    count = len(strategy_alone(config).space())
    checked.append(f"search space: {count} hyperparameters")
    return count


def _absent(config: RunConfig) -> bool:
    """Whether a model is only a hub name, which this machine may not have."""
    return any(model.hub_id is not None for model in config.all_models)


def _documents(config: RunConfig, stages: Sequence[Bracket], trials: int | None) -> int | None:
    """Newly scored documents of so many trials: a promotion pays only for what it adds."""
    if trials is None:
        return None
    tasks = len({objective.task for objective in config.objectives()})
    order: list[int] = []
    for bracket in stages:
        before = 0
        for stage in bracket.stages:
            order += [stage.fidelity - before] * stage.size
            before = stage.fidelity
    rounds, rest = divmod(trials, len(order))
    return tasks * (rounds * sum(order) + sum(order[:rest]))


def _conclusion(setup: Setup, evaluator: HarnessEvaluator, steps: Sequence[int]) -> int:
    """Documents of the conclusion: finalists, references and scales, then held-out documents."""
    tasks = {objective.task for objective in setup.objectives}
    search = sum(min(steps[-1], evaluator.num_documents(task)) for task in tasks)
    grid = len(SINGLE_SCALES) * steps[0] * len(tasks)
    heldout = sum(evaluator.num_documents(task, "heldout") for task in tasks)
    references = len(setup.checkpoints) + 1
    if is_multi_objective(setup.config):
        searched, opened = front.MOST_SEARCHED, front.FRONT_SIZE + len(SINGLE_SCALES)
        return (searched + references) * search + (references + opened) * heldout
    return grid + (MOST_SEARCHED + references) * search + (references + 2) * heldout


def _documents_per_second(setup: Setup, evaluator: HarnessEvaluator, device: str) -> float | None:
    """Times the base model, or the first source, on a few documents of every task."""
    workbench = Workbench(setup.checkpoints, device=device, dtype=setup.cast.dtype, cast=setup.cast)
    model = setup.cast.base or setup.cast.models[0]
    candidate = workbench.candidate(setup.cast.single_model(model))
    evaluator.evaluate(candidate, _WARM_UP)
    started = time.monotonic()
    evaluator.evaluate(candidate, _WARM_UP + _TIMED)
    scored = evaluator.last_counts.scored
    return scored / (time.monotonic() - started) if scored else None


def _resident(setup: Setup) -> int:
    count = sum(math.prod(info.shape) for info in setup.donor.tensors.values())
    return count * _BYTES[setup.cast.dtype]


def _mapped(setup: Setup) -> int:
    return sum(info.nbytes for item in setup.checkpoints.values() for info in item.tensors.values())
