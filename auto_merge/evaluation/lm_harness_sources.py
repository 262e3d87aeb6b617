"""Task files: data paths, source text for digests, and which files are broken."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from auto_merge.errors import TaskError, nearest
from auto_merge.evaluation.lm_harness_filters import answer_code
from auto_merge.evaluation.sandbox import find_sandbox, rules
from auto_merge.evaluation.subsets import canonical_json, digest

if TYPE_CHECKING:
    from lm_eval.tasks._index import Entry

# Keys that say where documents come from or how things are called. Documents are known by their
# content, so these cannot change a score.
_NEUTRAL = {
    "task", "task_alias", "tag", "group", "group_alias", "metadata",
    "dataset_path", "dataset_name", "dataset_kwargs", "test_split", "validation_split",
    "training_split", "fewshot_split", "should_decontaminate", "doc_to_decontamination_query",
}  # fmt: skip


def make_factory(cache_dir: Path, allow_code_execution: bool = False) -> Any:
    """Returns lm-eval's task factory with four additions.

    Relative data files of a task are looked for beside its YAML file, then in the working folder;
    converted data is kept under ``cache_dir``; ``factory.sources`` tells, by leaf name, the source
    text of every task that was built; and tasks that run what a model wrote are refused unless they
    are allowed and can be run safely.
    """
    from lm_eval.tasks._factory import TaskFactory

    class Factory(TaskFactory):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.sources: dict[str, str] = {}

        def _load_full_config(
            self, entry: Entry, overrides: dict[str, Any] | None = None
        ) -> dict[str, Any]:
            # Loading the YAML imports its functions, which is too late to say no.
            executes = runs_code(entry, overrides or {})
            if executes:
                check_code_execution(entry.name, executes, allow_code_execution)
            config: dict[str, Any] = super()._load_full_config(entry, overrides)
            if "task" in config and not isinstance(config["task"], list):
                source = source_text(entry.yaml_path, overrides or {})
                self.sources[str(config["task"])] = source + rules() if executes else source
                _place_data(config, entry.yaml_path, cache_dir)
            return config

    return Factory()


def runs_code(entry: Entry, overrides: Mapping[str, Any]) -> Literal["", "sandbox", "outside"]:
    """Whether and where a task runs programs that a model wrote; imports none of its functions."""
    from lm_eval.tasks._yaml_loader import load_yaml

    own = load_yaml(entry.yaml_path, resolve_func=False) if entry.yaml_path else {}
    # A run's settings may add the mark, but not take it away.
    if not any(part.get("unsafe_code") for part in (entry.cfg or {}, own, overrides)):
        return ""
    return "sandbox" if (own.get("metadata") or {}).get("sandbox") is True else "outside"


def check_code_execution(name: str, where: str, allowed: bool) -> None:
    """Refuses a task that runs programs that a model wrote, unless it is allowed and safe.

    Args:
        name: Name of the task.
        where: ``"sandbox"`` or ``"outside"``, see :func:`runs_code`.
        allowed: Whether the user allowed it.

    Raises:
        TaskError: It is not allowed, would happen outside the sandbox, or there is no sandbox.
    """
    if not allowed:
        raise TaskError(
            f"task {name!r} executes generated code, which may do anything a program can; pass "
            "--allow-code-execution to run it in a sandbox without your files and without network"
        )
    if where != "sandbox":
        raise TaskError(
            f"task {name!r} executes generated code outside the sandbox; use mbpp and humaneval of "
            "custom_tasks, or let its process_results return programs, see docs/code_execution.md"
        )
    try:
        find_sandbox()
    except TaskError as error:
        raise TaskError(f"task {name!r}: {error}") from error


def cache_templates() -> None:
    """Lets lm-eval compile each prompt template once instead of once per document (1 ms each)."""
    from lm_eval import utils

    if not hasattr(utils.env.from_string, "cache_info"):
        utils.env.from_string = functools.lru_cache(maxsize=1024)(utils.env.from_string)


def source_text(yaml_path: Path | None, overrides: Mapping[str, Any]) -> str:
    """Canonical text of everything in a task's files and overrides that can change a score.

    Holds the YAML with its includes, and the content of all Python files beside every file that one
    of its functions comes from. Absolute folders do not enter, so a task that moved keeps its text.
    """
    from lm_eval.tasks._yaml_loader import load_yaml

    config = load_yaml(yaml_path, resolve_func=False) if yaml_path is not None else {}
    config = {k: v for k, v in {**config, **overrides}.items() if k not in _NEUTRAL}
    folders: set[Path] = set()
    config = _without_folders(config, folders)
    code = [
        digest(file.name, file.read_text(encoding="utf-8", errors="replace"))
        for folder in sorted(folders)
        for file in sorted(folder.glob("*.py"))
    ]
    return canonical_json([config, code + answer_code(config)])


def _without_folders(value: Any, folders: set[Path]) -> Any:
    """Replaces function references by file name and function; collects their folders."""
    if isinstance(value, dict):
        return {str(key): _without_folders(item, folders) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item, folders) for item in value]
    if isinstance(value, str) and "\n" not in value and "." in value:
        module, _, function = value.rpartition(".")
        file = Path(f"{module}.py")
        if file.is_absolute() and file.is_file():
            folders.add(file.parent)
            return f"{file.stem}.{function}"
    return value


def _place_data(config: dict[str, Any], yaml_path: Path | None, cache_dir: Path) -> None:
    """Makes data files absolute, checks that they hold something, and sets the cache folder."""
    if config.get("dataset_path") is None or callable(config.get("custom_dataset")):
        return
    arguments = deepcopy(config.get("dataset_kwargs") or {})
    arguments.setdefault("cache_dir", str(cache_dir))
    files = arguments.get("data_files")
    if config["dataset_path"] in ("json", "csv", "parquet", "text") and files is not None:
        folder = yaml_path.parent if yaml_path is not None else Path.cwd()
        arguments["data_files"] = _placed(files, folder, str(config["task"]))
    config["dataset_kwargs"] = arguments


def _placed(files: Any, folder: Path, task: str) -> Any:
    if isinstance(files, dict):
        return {split: _placed(value, folder, task) for split, value in files.items()}
    if isinstance(files, list):
        return [_placed(value, folder, task) for value in files]
    name = str(files)
    if "://" in name or any(sign in name for sign in "*?["):
        return name
    places = [folder / name, Path.cwd() / name]
    for place in places:
        if place.is_file():
            if not place.read_bytes().strip():
                raise TaskError(f"task {task!r}: data file {place} is empty")
            return str(place.resolve())
    raise TaskError(f"task {task!r}: data file {name} not found beside its YAML file, in {folder}")


def split_documents(task: Any, split: str) -> list[Mapping[str, Any]]:
    """Documents of a named dataset split, processed as the task processes its own.

    Raises:
        TaskError: There is no such split.
    """
    if split not in task.dataset:
        raise TaskError(
            f"task {task.task_name!r} has no split {split!r}{nearest(split, task.dataset)}"
        )
    process = task.get_config("process_docs")
    documents = task.dataset[split]
    return list(process(documents) if process is not None else documents)
