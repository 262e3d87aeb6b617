"""``--set key=value``: one setting replaced after the files were read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from auto_merge.config.layout import GROUPS, HEAD_KEYS
from auto_merge.config.places import KeyPath, Place, Tree, show
from auto_merge.config.search import PUBLISHED_NAMES
from auto_merge.config.yaml_tree import read_value
from auto_merge.errors import ConfigError

_OWN_NAMES = {own: published for published, own in PUBLISHED_NAMES.items()}


def apply_overrides(tree: Tree, overrides: Iterable[str]) -> None:
    """Changes the tree in place; later overrides win over earlier ones.

    A key is dotted, from the root of the file (``global_params.evaluation.batch_size``) or short
    (``evaluation.batch_size``, ``n_trials``, ``models.0``). A setting that the file gives under
    its other name, published or own, is replaced.

    Args:
        tree: The configuration.
        overrides: Texts ``key=value``; the value is YAML.

    Raises:
        ConfigError: An override has no ``=``, its value is not YAML, or its key leads through
            something that is not a section or list.
    """
    for override in overrides:
        _apply(tree, override)


def _apply(tree: Tree, override: str) -> None:
    origin = f"--set {override}"
    key, equals, text = override.partition("=")
    keys = tuple(key.strip().split("."))
    if not equals or not all(keys):
        raise ConfigError(f"{origin}: must be key=value, for example search.max_trials=20")
    value = read_value(text, origin)
    path = keys if keys[0] in (*HEAD_KEYS, *GROUPS) else _long(tree, keys)
    _forget_other_name(tree, path)
    _assign(tree, path, value, Place(origin, None, Path()))


def _sections(tree: Tree) -> list[tuple[str, ...]]:
    """Groups that settings stand in, the stronger one first."""
    return [("strategies", str(tree.data.get("strategy"))), ("global_params",)]


def _at(tree: Tree, path: KeyPath) -> Any:
    value: Any = tree.data
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _long(tree: Tree, keys: tuple[str, ...]) -> tuple[str, ...]:
    """Path in the file layout of a short key: where it stands now, else ``global_params``."""
    if difflib.get_close_matches(keys[0], GROUPS, cutoff=0.8):
        return keys  # a misspelt group; the check of the layout says so
    for group in _sections(tree):
        section = _at(tree, group)
        if isinstance(section, dict) and keys[0] in section:
            return (*group, *keys)
    return ("global_params", *keys)


def _forget_other_name(tree: Tree, path: tuple[str, ...]) -> None:
    setting = path[2:] if path[0] == "strategies" else path[1:]
    if len(setting) == 2 and setting[0] == "search" and setting[1] in _OWN_NAMES:
        other: tuple[str, ...] = (_OWN_NAMES[setting[1]],)
    elif len(setting) == 1 and setting[0] in PUBLISHED_NAMES:
        other = ("search", PUBLISHED_NAMES[setting[0]])
    else:
        return
    for group in _sections(tree):
        section = _at(tree, (*group, *other[:-1]))
        if isinstance(section, dict):
            section.pop(other[-1], None)


def _assign(tree: Tree, path: tuple[str, ...], value: Any, place: Place) -> None:
    container: Any = tree.data
    walked: KeyPath = ()
    for depth, key in enumerate(path):
        last = depth == len(path) - 1
        index: str | int = key
        if isinstance(container, list):
            index = _index(key, container, place)
        elif not isinstance(container, dict):
            raise ConfigError(
                f"{place}: {'.'.join(path[:depth])} is {show(container)}, not a section or list"
            )
        walked = (*walked, index)
        if last:
            container[index] = value
        elif isinstance(container, dict) and container.get(index) is None:
            container[index] = {}
            tree.places[walked] = place
        container = container[index]
    for known in [known for known in tree.places if known[: len(walked)] == walked]:
        del tree.places[known]
    tree.places[walked] = place


def _index(key: str, items: list[Any], place: Place) -> int:
    if not key.isdecimal() or int(key) >= len(items):
        raise ConfigError(
            f"{place}: {key!r} is not the number of a list entry; there are {len(items)}, from 0"
        )
    return int(key)
