"""The JSON schema of configuration files, for editors; loading does not use it.

An editor cannot see through ``!include``, so every part that people include may also be a text.
Strategy settings are offered in their section only, although ``global_params`` may hold them too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from auto_merge.config.run_section import HeadSection, RunSection
from auto_merge.config.search import PUBLISHED_NAMES, SearchSection
from auto_merge.config.strategies import SECTIONS

SCHEMA_FILE = Path(__file__).with_name("schema.json")

_INCLUDED = {"type": "string", "description": "!include FILE"}
Schema = dict[str, Any]


def schema() -> Schema:
    """Returns the JSON schema (draft 2020-12) of a configuration file."""
    models: list[type[BaseModel]] = [HeadSection, RunSection, SearchSection, *SECTIONS.values()]
    _, generated = models_json_schema(
        [(model, "validation") for model in models], title="auto_merge configuration"
    )
    definitions: Schema = generated["$defs"]
    own = {model.__name__: definitions.pop(model.__name__)["properties"] for model in models[:2]}
    strategies = {
        name: definitions.pop(section.__name__)["properties"] for name, section in SECTIONS.items()
    }
    definitions["SearchSection"].pop("required", None)
    shared = {**own["RunSection"], **_published(definitions["SearchSection"]["properties"])}
    head = own["HeadSection"]
    head["strategy"]["enum"] = list(SECTIONS)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": generated["title"],
        "type": "object",
        "additionalProperties": False,
        "required": ["strategy"],
        "properties": {
            **head,
            "global_params": _section(shared),
            "strategies": _strategies(shared, strategies),
        },
        "$defs": definitions,
    }


def _published(settings: Schema) -> Schema:
    return {
        published: {
            **settings[own],
            "title": published,
            "description": f"Published name of search.{own}. {settings[own]['description']}",
        }
        for published, own in PUBLISHED_NAMES.items()
    }


def _strategies(shared: Schema, strategies: dict[str, Schema]) -> Schema:
    sections = {name: _section({**shared, **own}) for name, own in strategies.items()}
    return {
        "type": "object",
        "description": "Strategy name -> its section; the one named by `strategy` is used.",
        "additionalProperties": False,
        "properties": sections,
    }


def _section(properties: Schema) -> Schema:
    section = {"type": "object", "additionalProperties": False, "properties": properties}
    return {"anyOf": [_INCLUDED, section, {"type": "null"}]}


def schema_text() -> str:
    """Returns the schema as it is stored."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def write_schema(file: Path = SCHEMA_FILE) -> Path:
    """Writes the schema and returns its file."""
    file.write_text(schema_text(), encoding="utf-8")
    return file
