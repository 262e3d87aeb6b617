"""Finds and loads lm-eval tasks. With its neighbours ``lm_harness_*.py`` the only user of lm_eval.

Task folders are trusted code, as in lm-eval itself: a YAML file may name Python functions, and they
run in this process.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auto_merge.errors import TaskError
from auto_merge.evaluation.task_names import builtin_folders, unknown_task

if TYPE_CHECKING:
    from lm_eval.api.group import Group
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager

log = logging.getLogger(__name__)

_VENDOR_LOGGERS = ("lm_eval", "datasets", "transformers", "fsspec", "httpx", "huggingface_hub")


@dataclass(frozen=True)
class LoadedTask:
    """A configured task: one leaf, or a group with its leaves.

    Attributes:
        name: Name as configured.
        tasks: Leaf tasks by name, in the group's order.
        sources: Text of each leaf's source, see :func:`source_text`.
        by_size: For a group: metric key -> whether leaves count by their number of documents
            (else all the same). ``None`` for a single task.
    """

    name: str
    tasks: Mapping[str, Task]
    sources: Mapping[str, str]
    by_size: Mapping[str, bool] | None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps lm-eval and the libraries below it silent, and off the network for local data."""
    import datasets

    levels = {name: logging.getLogger(name).level for name in _VENDOR_LOGGERS}
    for name in _VENDOR_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    bars = datasets.utils.are_progress_bars_disabled()
    counts = datasets.config.HF_UPDATE_DOWNLOAD_COUNTS
    datasets.utils.disable_progress_bars()
    # Reading a local file would otherwise be reported to the hub.
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    try:
        yield
    finally:
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = counts
        if not bars:
            datasets.utils.enable_progress_bars()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def load_tasks(
    wanted: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    include_path: Sequence[Path],
    cache_dir: Path,
    allow_code_execution: bool = False,
) -> list[LoadedTask]:
    """Loads tasks and groups with their data.

    Args:
        wanted: Name and overrides of each task; every override replaces a key of the task's YAML
            (of all leaves' for a group).
        include_path: Folders with task YAML files, searched with their subfolders.
        cache_dir: Where datasets keep their converted files.
        allow_code_execution: Whether tasks may run programs that a model wrote.

    Returns:
        One per entry of ``wanted``, in order.

    Raises:
        TaskError: A folder or task does not exist, its data is missing or empty, it cannot be
            loaded, or it is of a kind that is not supported or not allowed.
    """
    for folder in include_path:
        if not folder.is_dir():
            raise TaskError(f"evaluation.include_path: {folder} is not a folder")
    with quiet():
        from auto_merge.evaluation.lm_harness_filters import register_filters
        from auto_merge.evaluation.lm_harness_sources import cache_templates, make_factory

        cache_templates()
        register_filters()
        manager = _manager([name for name, _ in wanted], include_path)
        factory = make_factory(cache_dir / "datasets", allow_code_execution)
        loaded = []
        for name, overrides in wanted:
            built = _build(manager, factory, name, overrides)
            loaded.append(_describe(name, built, factory.sources))
    return loaded


def _manager(names: Sequence[str], include_path: Sequence[Path]) -> TaskManager:
    """Indexes the given folders, and lm-eval's own only if a name is not found there."""
    from lm_eval.tasks import TaskManager

    folders: list[str | Path] = [str(folder) for folder in include_path]
    manager = TaskManager(include_path=folders, include_defaults=False)
    missing = [name for name in names if name not in manager.task_index]
    if not missing:
        return manager
    builtin = builtin_folders()
    if all(name in builtin for name in missing):
        log.info("reading the tasks that come with lm-eval: %s", ", ".join(missing))
        found = sorted({str(folder) for name in missing for folder in builtin[name]})
        manager = TaskManager(include_path=found + folders, include_defaults=False)
        if not _is_closed(manager, missing):
            log.info("these refer to others: reading all of lm-eval's tasks, half a minute")
            manager = TaskManager(include_path=folders, include_defaults=True)
    for name in names:
        if name not in manager.task_index:
            raise unknown_task(name, manager.all_tasks, include_path)
    return manager


def _is_closed(manager: TaskManager, names: Sequence[str]) -> bool:
    """Whether all names, and all members of groups among them, are in the index."""
    open_names = list(names)
    seen: set[str] = set()
    while open_names:
        name = open_names.pop()
        if name in seen:
            continue
        seen.add(name)
        if name not in manager.task_index:
            return False
        members = (manager.task_index[name].cfg or {}).get("task")
        while isinstance(members, list) and members:
            member, members = members[0], members[1:]
            if isinstance(member, str):
                open_names.append(member)
            elif "group" in member and isinstance(member.get("task"), list):
                members = members + member["task"]
            else:
                open_names.append(str(member.get("group") or member.get("task")))
    return True


def _build(
    manager: TaskManager, factory: Any, name: str, overrides: Mapping[str, Any]
) -> Task | Group:
    """Builds one task or group.

    A task folder is foreign code and foreign data: whatever goes wrong in it is reported as the
    task's fault, in one line.
    """
    entry = manager.task_index[name]
    if entry.kind.name == "TAG":
        raise TaskError(
            f"{name!r} is a tag, a list of tasks without a score of its own; "
            f"name its tasks instead: {', '.join(sorted(entry.tags))}"
        )
    try:
        built = factory.build(entry, overrides=dict(overrides), registry=manager.task_index)
    except TaskError:
        raise
    except Exception as error:
        text = next(iter(str(error).strip().splitlines()), "")
        raise TaskError(
            f"task {name!r} cannot be loaded from {entry.yaml_path}: {type(error).__name__}: {text}"
        ) from error
    assert not isinstance(built, list)
    return built


def _describe(name: str, built: Task | Group, sources: Mapping[str, str]) -> LoadedTask:
    from lm_eval.api.group import Group

    if not isinstance(built, Group):
        tasks, by_size = [built], None
    else:
        tasks, by_size = built.get_all_tasks(), _weighting(built)
        if not tasks:
            raise TaskError(f"task group {name!r} has no tasks")
    for task in tasks:
        _refuse_unsupported(task)
    named = {task.task_name: task for task in tasks}
    return LoadedTask(name, named, {leaf: sources.get(leaf, "") for leaf in named}, by_size)


def _refuse_unsupported(task: Task) -> None:
    """Refuses by name what would give a wrong number."""
    name = task.task_name
    kind = task.OUTPUT_TYPE
    if getattr(task, "MULTIMODAL", False):
        raise TaskError(f"task {name!r} needs images or sound; only text is supported")
    if kind not in ("multiple_choice", "loglikelihood", "generate_until"):
        raise TaskError(
            f"task {name!r} has output_type {kind!r}; supported: multiple_choice, loglikelihood, "
            "generate_until"
        )
    if (task.get_config("repeats") or 1) != 1:
        raise TaskError(
            f"task {name!r} asks for {task.get_config('repeats')} repeats of each document; "
            "set repeats: 1"
        )


def _weighting(group: Group) -> dict[str, bool]:
    """Metric key -> whether the group weights its leaves by their numbers of documents."""
    weighting: dict[str, bool] = {}
    for rule in group.aggregate_metric_list or []:
        filters = rule.filter_list
        if filters is None:
            filters = sorted({f.name for task in group.get_all_tasks() for f in task._filters})
        if rule.aggregation != "mean":
            continue
        for name in filters:
            weighting[f"{rule.metric},{name}"] = rule.weight_by_size
    return weighting
