"""Reads YAML with ``!include`` into plain values, remembering the line of every key.

Only plain data can come out: no tag runs code, keys occur once, aliases cannot explode. Numbers
follow YAML 1.2 (``1e3`` is a number, ``010`` is ten, ``1:30`` is text); dates, infinities and
NaN stay text, because no setting takes them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from auto_merge.config.places import KeyPath, Place, Tree, located, show
from auto_merge.errors import ConfigError, nearest

MAX_BYTES = 1 << 20
MAX_VALUES = 20_000
MAX_DEPTH = 40

_PREFIX = "tag:yaml.org,2002:"
_MERGE = _PREFIX + "merge"
_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")


class _Loader(yaml.SafeLoader):
    """Composes nodes."""


_Loader.yaml_implicit_resolvers = {}  # the ones of YAML 1.1, replaced below


def _spellings(*words: str) -> str:
    return "|".join(f"{word}|{word.title()}|{word.upper()}" for word in words)


for _name, _pattern, _first in (
    ("null", rf"~||{_spellings('null')}", [*"~nN", ""]),
    ("bool", _spellings(*_TRUE, *_FALSE), [*"tTfFyYnNoO"]),
    ("int", r"[-+]?\d[\d_]*", [*"-+0123456789"]),
    ("float", r"[-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", [*"-+.0123456789"]),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(_PREFIX + _name, re.compile(rf"^(?:{_pattern})$"), _first)

_SCALARS: dict[str, Callable[[str], Any]] = {
    _PREFIX + "null": lambda text: None,
    _PREFIX + "bool": lambda text: text.lower() in _TRUE,
    _PREFIX + "int": lambda text: int(text.replace("_", "")),
    _PREFIX + "float": lambda text: float(text.replace("_", "")),
    _PREFIX + "str": str,
}


def read_tree(file: Path) -> Tree:
    """Reads a configuration file and everything that it includes.

    Args:
        file: The file, as the user wrote it; messages show it that way.

    Raises:
        ConfigError: The file or an included one is missing, is not YAML, has a duplicate key,
            an unsupported tag, an include cycle or too many values, or is not a section.
    """
    reader = _Reader()
    data = reader.read(file, ())
    if not isinstance(data, dict):
        raise ConfigError(f"{file}: a configuration must be a section of keys, got {show(data)}")
    return Tree(data, reader.places)


def read_value(text: str, origin: str) -> Any:
    """Reads the value of an override, such as ``"5"``, ``"null"`` or ``"[self_attn, mlp]"``.

    Args:
        text: YAML on one line; nothing at all is the empty text, not null.
        origin: How messages name the override.

    Raises:
        ConfigError: It is not YAML or carries a tag.
    """
    if not text.strip():
        return ""
    node = _compose(text, origin, lines=False)
    return _Reader().convert(node, _File(origin, Path(), (), lines=False), ())


@dataclass(frozen=True)
class _File:
    """A file that is being read.

    Attributes:
        name: As shown in messages.
        folder: Folder that includes start from.
        chain: Absolute paths of the files around it and its own; empty for an override.
        lines: Whether line numbers mean anything.
    """

    name: str
    folder: Path
    chain: tuple[str, ...]
    lines: bool = True

    def place(self, node: yaml.Node) -> Place:
        return Place(self.name, node.start_mark.line + 1 if self.lines else None, self.folder)


@dataclass
class _Reader:
    """Turns nodes into values; one reader counts the values of a file with all its includes."""

    places: dict[KeyPath, Place] = field(default_factory=dict)
    _active: list[yaml.Node] = field(default_factory=list)
    _values: int = 0

    def read(self, file: Path, path: KeyPath, chain: tuple[str, ...] = ()) -> Any:
        text = _text(file)
        here = _File(str(file), file.parent, (*chain, os.path.abspath(file)))
        node = _compose(text, here.name)
        self.places.setdefault(path, Place(here.name, 1, here.folder))
        return self.convert(node, here, path)

    def convert(self, node: yaml.Node, file: _File, path: KeyPath) -> Any:
        """Converts a node; ``path`` is where it stands in the whole configuration."""
        place = file.place(node)
        self._values += 1
        if self._values > MAX_VALUES:
            raise ConfigError(
                f"{located(place, path)}: more than {MAX_VALUES} values; use fewer aliases"
            )
        if len(self._active) >= MAX_DEPTH or any(node is outer for outer in self._active):
            raise ConfigError(f"{located(place, path)}: nested more than {MAX_DEPTH} levels deep")
        self._active.append(node)
        try:
            return self._converted(node, file, path)
        finally:
            self._active.pop()

    def _converted(self, node: yaml.Node, file: _File, path: KeyPath) -> Any:
        if node.tag == "!include":
            return self._include(node, file, path)
        if isinstance(node, yaml.MappingNode) and node.tag == _PREFIX + "map":
            return self._mapping(node, file, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _PREFIX + "seq":
            items = []
            for index, item in enumerate(node.value):
                item_path = (*path, index)
                self.places[item_path] = file.place(item)
                items.append(self.convert(item, file, item_path))
            return items
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
            try:
                return _SCALARS[node.tag](node.value)
            except ValueError:
                pass  # an explicit tag on a text that does not fit it, or an absurdly long number
        raise _bad_tag(node, file, path)

    def _mapping(self, node: yaml.MappingNode, file: _File, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        own: dict[str, Place] = {}
        for key_node, value_node in _merged_first(node):
            place = file.place(key_node)
            if key_node.tag == _MERGE:
                result.update(self._merge(value_node, file, path))
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{located(place, path)}: a key must be a word")
            key = str(key_node.value)
            key_path = (*path, key)
            if key in own:
                raise ConfigError(
                    f"{located(place, key_path)}: key given twice, first at {own[key]}"
                )
            own[key] = self.places[key_path] = place
            result[key] = self.convert(value_node, file, key_path)
        return result

    def _merge(self, node: yaml.Node, file: _File, path: KeyPath) -> dict[str, Any]:
        """Value of a merge key ``<<``: one section or several, the first one winning."""
        sections = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for section in reversed(sections):
            values = self.convert(section, file, path)
            if not isinstance(values, dict):
                raise ConfigError(f"{located(file.place(node), path)}: << needs a section")
            merged.update(values)
        return merged

    def _include(self, node: yaml.Node, file: _File, path: KeyPath) -> Any:
        where = located(file.place(node), path)
        if not file.chain:
            raise ConfigError(f"{where}: !include works in files only")
        if not isinstance(node, yaml.ScalarNode) or not node.value:
            raise ConfigError(f"{where}: !include needs a file name")
        target = Path(os.path.normpath(file.folder / node.value))
        if not target.is_file():
            raise ConfigError(f"{where}: included file not found: {target}{_similar(target)}")
        if os.path.abspath(target) in file.chain:
            raise ConfigError(f"{where}: {target} includes itself")
        return self.read(target, path, file.chain)


def _merged_first(node: yaml.MappingNode) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    """Pairs of a mapping, merge keys first so that a section's own keys win over them."""
    return iter(sorted(node.value, key=lambda pair: pair[0].tag != _MERGE))


def _bad_tag(node: yaml.Node, file: _File, path: KeyPath) -> ConfigError:
    where = located(file.place(node), path)
    tag = str(node.tag)
    if tag.startswith("!function"):
        return ConfigError(f"{where}: !function is refused, configuration files cannot run code")
    if tag in _SCALARS and isinstance(node, yaml.ScalarNode):
        return ConfigError(f"{where}: {show(node.value)} cannot be read as {tag[len(_PREFIX) :]}")
    tag = tag.replace(_PREFIX, "!!")
    return ConfigError(f"{where}: tag {tag} is refused; only !include is known")


def _text(file: Path) -> str:
    if not file.is_file():
        kind = "is a folder, not a file" if file.is_dir() else "no such file"
        raise ConfigError(f"{file}: {kind}{_similar(file)}")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{file}: {len(data)} bytes; a configuration has at most {MAX_BYTES}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not a text file in UTF-8") from None


def _similar(file: Path) -> str:
    """Suggests a YAML file of the same folder with a similar name, if there is one."""
    hint = nearest(file.name, (other.name for other in file.parent.glob("*.y*ml")))
    return hint if "did you mean" in hint else ""


def _compose(text: str, name: str, lines: bool = True) -> yaml.Node:
    """Parses one YAML document without building any value."""
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if lines and error.problem_mark else ""
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{name}{line}: not valid YAML: {problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not valid YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise ConfigError(f"{name}: nested more than {MAX_DEPTH} levels deep") from None
    if node is None:
        raise ConfigError(f"{name}: the file is empty")
    return node
