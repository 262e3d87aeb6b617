"""Every key that a configuration may hold, walked out of the models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from auto_merge.config.places import KeyPath


def walk(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yields the dotted name and the field of every key, sections before their keys.

    List entries show as ``N``: ``evaluation.tasks.N.metric``; names chosen by the user as ``*``.
    """
    for name, info in section.model_fields.items():
        yield prefix + name, info
        inner = inner_section(info.annotation)
        if inner is not None:
            yield from walk(inner, f"{prefix}{name}.{_between(info.annotation)}")


def inner_section(annotation: Any) -> type[BaseModel] | None:
    """Returns the section inside a field's type: its own, its entries' or its values'."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (inner_section(part) for part in get_args(annotation))
    return next((section for section in found if section is not None), None)


def _between(annotation: Any) -> str:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return ""
    origin = get_origin(annotation)
    step = "N." if origin is tuple else "*." if origin is dict else ""
    inner = next(part for part in get_args(annotation) if inner_section(part) is not None)
    return step + _between(inner)


def section_at(section: type[BaseModel], path: KeyPath) -> type[BaseModel]:
    """Returns the innermost section that a path leads into; list positions are skipped."""
    for key in path:
        info = section.model_fields.get(str(key))
        inner = inner_section(info.annotation) if info else None
        section = inner or section
    return section
