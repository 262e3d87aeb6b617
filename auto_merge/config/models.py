"""Models as a configuration names them, and where they are found."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, GetJsonSchemaHandler, field_validator, model_validator
from pydantic_core import CoreSchema

from auto_merge.config.fields import Later, OptionalText, Section, Text
from auto_merge.config.fixed import MergeParameters, ParameterEntry
from auto_merge.config.places import Place

ZOO = "zoo:"

_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


class ModelEntry(Section):
    """A model: one word (`zoo:NAME`, a folder, or a hub name `org/name`), or these keys."""

    name: Text
    """What the model is called in recipes, hyperparameters and reports. Default: `path` as
    written."""
    path: Text
    """`zoo:NAME` for an embedded model; else a folder relative to the file that names it, else
    to the working directory; else a hub name `org/name`."""
    revision: OptionalText = None
    """Commit, branch or tag of a hub model; null for its default."""
    adapter: Later = None
    """LoRA adapter to apply first. Not available in this version: refused."""
    parameters: MergeParameters = Field(default_factory=dict)
    """Parameters of the merge method that this model has for itself, as `weight`; only for
    `strategy: normal_models`."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if value == "":
            raise ValueError("must not be empty")
        if isinstance(value, str):
            return {"name": value, "path": value}
        if isinstance(value, dict) and "path" not in value and "model" in value:
            # The published normal_models lists its sources so.
            value = {"path": value["model"], **{k: v for k, v in value.items() if k != "model"}}
        if isinstance(value, dict) and "name" not in value and "path" in value:
            return {"name": value["path"], **value}
        return value

    @field_validator("path")
    @classmethod
    def _zoo_has_name(cls, path: str) -> str:
        if path == ZOO:
            raise ValueError("zoo: needs the name of an embedded model, for example zoo:base")
        return path

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        section = handler.resolve_ref_schema(handler(core_schema))
        section["required"] = ["path"]
        return {"anyOf": [{"type": "string", "minLength": 1}, section]}


@dataclass(frozen=True)
class Model:
    """A model of a run.

    Attributes:
        name: Role name in recipes and hyperparameters.
        path: Where it is, as written.
        location: Where it is, resolved: ``"zoo:NAME"``, an absolute folder or a hub name.
            Nothing says that it exists.
        revision: Commit, branch or tag of a hub model.
        parameters: Merge parameters that the model has for itself; only in ``normal_models``.
    """

    name: str
    path: str
    location: str
    revision: str | None = None
    parameters: Mapping[str, tuple[ParameterEntry, ...]] = field(default_factory=dict, hash=False)

    @property
    def hub_id(self) -> str | None:
        """Name on the Hugging Face hub; ``None`` for an embedded model or a folder."""
        local = self.location.startswith(ZOO) or Path(self.location).is_absolute()
        return None if local else self.location


def resolve_model(entry: ModelEntry, place: Place) -> Model:
    """Turns an entry into a model.

    Args:
        entry: The entry.
        place: Where it was written; relative folders start there.
    """
    location = resolve_location(entry.path, place.folder)
    return Model(entry.name, entry.path, location, entry.revision, entry.parameters)


def resolve_location(path: str, folder: Path = Path()) -> str:
    """Finds where a model is.

    Args:
        path: ``zoo:NAME``, a folder or a hub name.
        folder: Where a relative folder is looked for first; then in the working directory.

    Returns:
        ``"zoo:NAME"``, an absolute folder or a hub name; what does not exist and cannot be a hub
        name is a folder relative to ``folder``.
    """
    if path.startswith(ZOO):
        return path
    found = existing(path, folder)
    if found is not None:
        return str(found)
    return path if _HUB_NAME.fullmatch(path) else str(_absolute(path, folder))


def existing(path: str, folder: Path) -> Path | None:
    """Finds a file or folder relative to ``folder``, else to the working directory.

    Returns:
        The absolute path, or ``None`` if it exists in neither.
    """
    for start in (folder, Path()):
        candidate = _absolute(path, start)
        if candidate.exists():
            return candidate
    return None


def resolve_path(path: str, folder: Path) -> Path:
    """Like :func:`existing`; what does not exist is taken relative to ``folder``."""
    return existing(path, folder) or _absolute(path, folder)


def _absolute(path: str, folder: Path) -> Path:
    return (folder / Path(path).expanduser()).resolve()
