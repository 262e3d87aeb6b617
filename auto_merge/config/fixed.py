"""Sections of the strategies that merge once: whole models, or a list of slices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from auto_merge.config.fields import Count, Later, Number, OptionalText, Positive, Section, Text
from auto_merge.config.strategy_section import StrategySection


class ParameterEntry(Section):
    """One value of a merge parameter, for the tensors that `filter` selects."""

    value: Number | tuple[Number, ...]
    """The value; a list has one number per source, in their order."""
    filter: OptionalText = None
    """Module group (`self_attn`, `mlp`) or part of a tensor name; null for every tensor that no
    other entry selects."""


def _as_entries(value: Any) -> Any:
    """A bare number, or a list of numbers, stands for one entry."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return [{"value": value}]
    numbers = isinstance(value, list) and all(
        isinstance(item, (int, float)) and not isinstance(item, bool) for item in value
    )
    if numbers and value:
        return [{"value": value}]
    return [value] if isinstance(value, dict) else value


def _null_is_empty(value: Any) -> Any:
    return {} if value is None else value


Entries = Annotated[
    tuple[ParameterEntry, ...],
    Field(min_length=1),
    BeforeValidator(
        _as_entries,
        json_schema_input_type=float | list[float] | ParameterEntry | list[ParameterEntry],
    ),
]
MergeParameters = Annotated[
    dict[Text, Entries],
    BeforeValidator(_null_is_empty, json_schema_input_type=dict[str, Entries] | None),
]
OneMethod = Annotated[dict[Text, MergeParameters], Field(min_length=1, max_length=1)]


def parameters_data(parameters: Mapping[str, tuple[ParameterEntry, ...]]) -> dict[str, Any]:
    """JSON-able form of merge parameters."""
    return {
        name: [entry.model_dump(mode="json") for entry in entries]
        for name, entries in parameters.items()
    }


class FixedSection(StrategySection):
    """One recipe instead of a search: merged, evaluated, saved, reported."""

    PUBLISHED_MEANING: ClassVar[Mapping[str, Any]] = {"base_index": "output"}
    # One trial on all documents; the run clamps the budget to what the tasks have.
    SEARCH_MEANING: ClassVar[Mapping[str, Any]] = {
        "optimizer": "random",
        "max_trials": 1,
        "min_budget": 1_000_000,
        "max_budget": 1_000_000,
    }

    base_index: Literal["source", "output"] = "source"
    """Layer of the base that a task vector is taken from: the layer that the sources give, or the
    one that is written. Default under `compat: published`: `output`."""
    scale_mode: Literal["mlp", "hidden"] = "mlp"
    """What an `output_scale` s does to a layer x -> x + attention + mlp: `mlp` makes it
    x + attention + s mlp, `hidden` makes it s (x + attention + mlp)."""


class NormalModelsSection(FixedSection):
    """All layers of all models, merged by one method."""

    merging_method: OneMethod
    """Method -> parameter -> value, or list of `{value, filter}`; the names are the published ones
    (`weights`, `scaling_coefficient`, `param_value_mask_rate`, `slerp_t`) or those of the method.
    A parameter that every source has for itself may stand in `models` instead."""


class SliceSource(Section):
    """Consecutive layers of one model."""

    model: Text
    """Name of one of `models` or of the base model."""
    layer_range: tuple[Count, Positive]
    """First layer and the one after the last, counted from 0."""
    parameters: MergeParameters = Field(default_factory=dict)
    """Parameters that this source has for itself, as `weight`."""

    @field_validator("layer_range")
    @classmethod
    def _is_a_range(cls, layers: tuple[int, int]) -> tuple[int, int]:
        if layers[0] >= layers[1]:
            raise ValueError(f"must be [start, end] with start < end, got {list(layers)}")
        return layers


class SliceEntry(Section):
    """Consecutive layers of the result."""

    sources: Annotated[tuple[SliceSource, ...], Field(min_length=1)]
    """What they are merged from; all ranges have the same length."""
    merging_method: OneMethod
    """Method -> parameter -> value, as in `normal_models`."""
    output_scale: Number = 1.0
    """Factor on the output of these layers, see `scale_mode`."""
    target: Later = None
    """Output layers as pruning wrote them; the order of the slices says the same. Refused."""


class NormalSlicesSection(FixedSection):
    """A stack of slices, each with its own sources and method."""

    slices: Annotated[tuple[SliceEntry, ...], Field(min_length=1)]
    """The layers of the result, from first to last."""

    @model_validator(mode="after")
    def _lengths_agree(self) -> NormalSlicesSection:
        for number, part in enumerate(self.slices):
            lengths = {end - start for start, end in (s.layer_range for s in part.sources)}
            if len(lengths) > 1:
                raise ValueError(
                    f"slices.{number}: sources give different numbers of layers: "
                    f"{', '.join(map(str, sorted(lengths)))}"
                )
        return self
