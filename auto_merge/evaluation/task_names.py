"""Which task names there are, found by text search: no YAML parser, no lm-eval, no torch.

Parsing lm-eval's collection takes half a minute, importing it a second; searching its text for the
names takes less than half a second.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from pathlib import Path

from auto_merge.errors import TaskError, nearest

# "task: name", "- task: name", "tag: name", each part with or without quotes.
_NAME = re.compile(
    rb"^\s*-?\s*[\"']?(?:task|group|tag)[\"']?\s*:\s*[\"']?([^\s\"'#\[\]{}]+)[\"']?\s*(?:#.*)?$",
    re.M,
)


def check_names(names: Sequence[str], include_path: Sequence[Path]) -> None:
    """Refuses names that are certainly no task, before anything slow is imported.

    Args:
        names: Tasks or groups.
        include_path: Folders with task YAML files of the user; one that is missing is skipped.

    Raises:
        TaskError: A name stands in none of the files.
    """
    texts = [text for folder in include_path for _, text in _yaml_files(folder)]
    for name in names:
        # A name may be written in ways that the pattern does not see, as in {task: name}.
        as_word = re.compile(rb"(?<![\w.-])" + re.escape(name.encode()) + rb"(?![\w.-])")
        if any(as_word.search(text) for text in texts) or name in builtin_folders():
            continue
        own = {found for text in texts for found in _names(text)}
        raise unknown_task(name, own, include_path)


def unknown_task(name: str, own: Collection[str], include_path: Sequence[Path]) -> TaskError:
    """The error for a name that does not exist; suggests from all names, lists only ``own``."""
    everything = {*own, *builtin_folders()}
    close = difflib.get_close_matches(name, everything, n=1, cutoff=0.6)
    hint = nearest(name, everything if close else own)
    broken = _broken_file(include_path)
    return TaskError(f"unknown task {name!r}{hint}{'; ' if broken else ''}{broken}")


def _broken_file(folders: Sequence[Path]) -> str:
    """Says which file of the user's folders is no YAML; lm-eval skips such files silently."""
    import yaml

    class AnyTag(yaml.SafeLoader):
        """Tags such as !function are lm-eval's business."""

    AnyTag.add_multi_constructor("", lambda loader, suffix, node: None)
    for folder in folders:
        for file, text in sorted(_yaml_files(folder)):
            try:
                yaml.load(text, AnyTag)
            except yaml.YAMLError as error:
                return f"{file} cannot be read: {' '.join(str(error).split())}"
    return ""


@cache
def builtin_folders() -> dict[str, frozenset[Path]]:
    """Top folders of lm-eval's task collection that mention each task, group or tag as a key."""
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None, "lm-eval is a dependency"
    assert spec.origin is not None, "lm-eval is an ordinary package"
    root = Path(spec.origin).parent / "tasks"
    found: dict[str, set[Path]] = {}
    for file, text in _yaml_files(root):
        for name in _names(text):
            found.setdefault(name, set()).add(root / file.relative_to(root).parts[0])
    return {name: frozenset(folders) for name, folders in found.items()}


def _yaml_files(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for file in folder.rglob("*.yaml"):
        yield file, file.read_bytes()


def _names(text: bytes) -> Iterator[str]:
    return (match.decode(errors="replace") for match in _NAME.findall(text))
