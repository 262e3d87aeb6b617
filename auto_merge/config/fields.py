"""What all sections share: strict scalar types, text settings that mean "default" when empty."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Section(BaseModel):
    """A section of a configuration file: frozen, unknown keys refused, docstring per field."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


def empty_is_nothing(value: Any) -> Any:
    """Turns the empty text into null."""
    return None if value == "" else value


Flag = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=0)]
Positive = Annotated[int, Field(strict=True, ge=1)]
Number = Annotated[float, Field(strict=True)]
Fraction = Annotated[float, Field(strict=True, ge=0, le=1)]
Seconds = Annotated[float, Field(strict=True, gt=0)]
Text = Annotated[str, Field(min_length=1)]
OptionalText = Annotated[str | None, BeforeValidator(empty_is_nothing)]
"""Text; null and the empty text, as published files have it, mean the default."""


def unavailable(value: Any) -> None:
    """Validator of keys that are named for a later version: anything but null is refused.

    Raises:
        ValueError: A value is given.
    """
    if value is not None:
        raise ValueError("not available in this version; remove the key")


Later = Annotated[None, BeforeValidator(unavailable, json_schema_input_type=None)]
