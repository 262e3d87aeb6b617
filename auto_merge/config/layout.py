"""From the file layout to one flat set of settings, as published: the strategy's section wins.

``{**global_params, **strategies[strategy]}`` is a shallow merge; published names of search
settings then move into ``search``. Every merged key remembers where it stood in the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from auto_merge.config.places import KeyPath, Place, Tree, dotted, located, show
from auto_merge.config.search import PUBLISHED_NAMES
from auto_merge.config.strategies import SECTIONS
from auto_merge.errors import ConfigError, nearest

HEAD_KEYS = ("strategy", "name", "compat")
GROUPS = ("global_params", "strategies")
_OF_SECTION = ("base_model", "models")


@dataclass(frozen=True)
class Merged:
    """The settings of the chosen strategy in one flat section.

    Attributes:
        data: Key -> value.
        tree: The file layout that they come from.
        strategy: Name of the chosen strategy.
        origins: Merged path -> path in the file layout, for top keys and renamed settings.
        warnings: What the person should know, one line each.
    """

    data: dict[str, Any]
    tree: Tree
    strategy: str
    origins: dict[KeyPath, KeyPath] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def file_path(self, path: KeyPath) -> KeyPath:
        """Returns where a merged path stands, or belongs, in the file layout."""
        for length in range(len(path), 0, -1):
            origin = self.origins.get(path[:length])
            if origin is not None:
                return (*origin, *path[length:])
        if path and (path[0] in _OF_SECTION or path[0] in SECTIONS[self.strategy].model_fields):
            return ("strategies", self.strategy, *path)
        return ("global_params", *path)

    def place(self, path: KeyPath) -> Place:
        """Returns the file and line of a merged path, or of the section around it."""
        return self.tree.place(self.file_path(path))

    def located(self, path: KeyPath) -> str:
        """Returns the start of an error message about a merged path."""
        return located(self.place(path), self.file_path(path))


def check_layout(tree: Tree) -> str:
    """Checks the top of a file and returns the name of its strategy.

    Raises:
        ConfigError: A top key is unknown, a group is not a section, the strategy is missing,
            unknown.
    """
    for key in tree.data:
        if key not in (*HEAD_KEYS, *GROUPS):
            raise ConfigError(
                f"{located(tree.place((key,)), (key,))}: unknown key"
                f"{nearest(key, (*HEAD_KEYS, *GROUPS))}"
            )
    _section(tree, ("global_params",))
    strategy = tree.data.get("strategy")
    if strategy is None:
        raise ConfigError(
            f"{tree.place(())}: strategy: required key is missing; known: {', '.join(SECTIONS)}"
        )
    _check_strategy(tree, ("strategy",), strategy)
    for name in _section(tree, ("strategies",)):
        _check_strategy(tree, ("strategies", name), name)
    sections = _section(tree, ("strategies",))
    if sections and strategy not in sections:
        # Everything could stand in global_params; with other sections there it is a mistake.
        raise ConfigError(
            f"{located(tree.place(('strategies',)), ('strategies',))}: no section {strategy!r}, "
            f"only {', '.join(sections)}"
        )
    _section(tree, ("strategies", str(strategy)))
    return str(strategy)


def _check_strategy(tree: Tree, path: KeyPath, strategy: Any) -> None:
    where = located(tree.place(path), path)
    if not isinstance(strategy, str):
        raise ConfigError(f"{where}: must be the name of a strategy, got {show(strategy)}")
    if strategy not in SECTIONS:
        hint = nearest(strategy, SECTIONS)
        raise ConfigError(f"{where}: unknown strategy {show(strategy)}{hint}")


def _section(tree: Tree, path: KeyPath) -> dict[str, Any]:
    value: Any = tree.data
    for key in path:
        value = (value or {}).get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(
            f"{located(tree.place(path), path)}: must be a section of keys, got {show(value)}"
        )
    return value


def merge(tree: Tree, strategy: str) -> Merged:
    """Merges ``global_params`` with the strategy's section and renames published keys.

    Raises:
        ConfigError: A setting is given under its published name and its own.
    """
    groups: Sequence[KeyPath] = (("global_params",), ("strategies", strategy))
    data: dict[str, Any] = {}
    origins: dict[KeyPath, KeyPath] = {}
    warnings = []
    for group in groups:
        for key, value in _section(tree, group).items():
            path = (*group, key)
            if isinstance(data.get(key), dict) and isinstance(value, dict):
                outer = dotted(origins[key,])
                warnings.append(f"{located(tree.place(path), path)}: replaces {outer} entirely")
            data[key] = value
            origins[key,] = path
    merged = Merged(data, tree, strategy, origins, tuple(warnings))
    _rename_published(merged)
    return merged


def _rename_published(merged: Merged) -> None:
    data, origins = merged.data, merged.origins
    search = data.get("search")
    if search is not None and not isinstance(search, dict):
        where = merged.located(("search",))
        raise ConfigError(f"{where}: must be a section of keys, got {show(search)}")
    renamed = dict(search or {})
    for published, own in PUBLISHED_NAMES.items():
        if published not in data:
            continue
        origin = origins.pop((published,))
        if own in renamed:
            raise ConfigError(
                f"{located(merged.tree.place(origin), origin)}: the same setting as search.{own} "
                f"({merged.place(('search', own))}); give one of them"
            )
        renamed[own] = data.pop(published)
        origins["search", own] = origin
        origins.setdefault(("search",), origin[:-1])
    data["search"] = renamed
