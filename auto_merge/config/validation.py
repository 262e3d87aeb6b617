"""Runs a pydantic model over settings and says in one line what is wrong, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from auto_merge.config.places import KeyPath, show
from auto_merge.config.reference import section_at, walk
from auto_merge.errors import ConfigError, nearest

SectionType = TypeVar("SectionType", bound=BaseModel)

_WORDS = {
    "bool_type": "must be true or false",
    "int_type": "must be an integer",
    "float_type": "must be a number",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "dict_type": "must be a section of keys",
    "model_type": "must be a section of keys",
    "model_attributes_type": "must be a section of keys",
    "string_too_short": "must not be empty",
}


def validate(
    section: type[SectionType],
    data: Mapping[str, Any],
    locate: Callable[[KeyPath], str],
    top_keys: Iterable[str] = (),
    elsewhere: Iterable[str] = (),
) -> SectionType:
    """Validates settings.

    Args:
        section: The model.
        data: The settings.
        locate: Path inside ``data`` -> start of an error message.
        top_keys: Keys to suggest at the top beside the model's own.
        elsewhere: Dotted keys to suggest for a right name in the wrong section.

    Raises:
        ConfigError: The first thing that is wrong; unknown keys come before all others, because a
            misspelt key is also a missing one.
    """
    try:
        return section.model_validate(dict(data))
    except ValidationError as error:
        details = sorted(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
    path = tuple(details[0]["loc"])
    if details[0]["type"] == "extra_forbidden":
        owner = section_at(section, path[:-1])
        known = [*owner.model_fields, *(top_keys if len(path) == 1 else ())]
        message = f"unknown key{_suggest(str(path[-1]), known, elsewhere)}"
    else:
        message = _message(details[0])
    raise ConfigError(f"{locate(path)}: {message}")


def _suggest(key: str, known: Iterable[str], elsewhere: Iterable[str]) -> str:
    hint = nearest(key, known)
    places = [name for name in elsewhere if name.split(".")[-1] == key]
    if "did you mean" not in hint and places:
        return f" here; did you mean {places[0]!r}?"
    return hint


def _message(detail: ErrorDetails) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing":
        return "required key is missing"
    if kind in _WORDS:
        return f"{_WORDS[kind]}, got {show(value)}"
    if kind == "too_short":
        return "must have at least one entry"
    if kind == "literal_error":
        hint = nearest(value, _literals(context)) if isinstance(value, str) else ""
        hint = hint if "did you mean" in hint else ""
        return f"must be {context['expected']}, got {show(value)}{hint}"
    for name, words in (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below")):
        if name in context:
            limit = context[name]
            limit = f"{limit:g}" if isinstance(limit, float) else limit
            return f"must be {words} {limit}, got {show(value)}"
    return f"{detail['msg'][:1].lower()}{detail['msg'][1:]}, got {show(value)}"


def _literals(context: Mapping[str, Any]) -> list[str]:
    return [part.strip(" '") for part in str(context["expected"]).replace(" or ", ", ").split(",")]


def dotted_keys(*sections: type[BaseModel]) -> list[str]:
    """Returns the dotted names of all keys that stand below the top of the sections."""
    return [name for section in sections for name, _ in walk(section) if "." in name]
