"""One model per strategy section. A new strategy is a new model and its line in ``SECTIONS``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from auto_merge.config.fields import Flag, Number, Positive, Section, Text

NOT_AVAILABLE = ("lfs_multiobj", "dis", "prune", "normal_models", "normal_slices")
"""Strategies that the published format names and this version does not have."""


class Range(Section):
    """Search range of one merge parameter."""

    min: Number
    """Smallest value."""
    max: Number
    """Largest value, at least `min`."""

    @field_validator("max")
    @classmethod
    def _is_above_min(cls, highest: float, info: ValidationInfo) -> float:
        if info.data.get("min", highest) > highest:
            raise ValueError(f"must be at least min {info.data['min']:g}, got {highest:g}")
        return highest


def _null_is_empty(value: Any) -> Any:
    return {} if value is None else value


Ranges = Annotated[
    dict[Text, Range],
    BeforeValidator(_null_is_empty, json_schema_input_type=dict[str, Range] | None),
]


class StrategySection(Section):
    """What a strategy needs beside the settings that all runs share."""

    PUBLISHED_MEANING: ClassVar[Mapping[str, Any]] = {}
    """Defaults under ``compat: published``."""


class LfsSection(StrategySection):
    """Layer-wise fusion: every group of layers chooses a merge method and its parameters."""

    PUBLISHED_MEANING: ClassVar[Mapping[str, Any]] = {
        "slerp_space": "published",
        "per_source_weights": False,
        "include_base": False,
    }

    layer_granularity: Positive
    """Layers per group, at least 1; must divide the number of layers."""
    filters: tuple[Text, ...] = ()
    """Module groups with parameters of their own, as `self_attn` and `mlp`; all other tensors of
    a layer share one more set."""
    merging_method: Annotated[dict[Text, Ranges], Field(min_length=1)]
    """Method -> parameter -> `{min, max}`, the range that is searched. Only the methods listed
    here are used; ranges are checked against the method's own."""
    slerp_space: Literal["published", "full"] = "full"
    """`full`: slerp reaches every t in [0, 1]; `published`: t = softmax of two scores, confined
    to [0.27, 0.73]. Default under `compat: published`: `published`."""
    per_source_weights: Flag = True
    """Task arithmetic and TIES get one weight per source instead of sharing one. Default under
    `compat: published`: `false`."""
    include_base: Flag = True
    """The base model may be among the sources of linear and slerp. Default under
    `compat: published`: `false`."""

    @property
    def ranges(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Method -> parameter -> ``(low, high)``."""
        return {
            method: {name: (limits.min, limits.max) for name, limits in parameters.items()}
            for method, parameters in self.merging_method.items()
        }

    @field_validator("filters", mode="before", json_schema_input_type=list[str] | None)
    @classmethod
    def _null_is_none(cls, filters: Any) -> Any:
        return () if filters is None else filters

    @field_validator("filters")
    @classmethod
    def _filters_are_different(cls, filters: tuple[str, ...]) -> tuple[str, ...]:
        for name in filters:
            if filters.count(name) > 1:
                raise ValueError(f"filter {name!r} is given twice")
            if name == "base":
                raise ValueError("a filter cannot be called 'base', the set of all other tensors")
        return filters


SECTIONS: dict[str, type[StrategySection]] = {"lfs": LfsSection}
"""Strategy name -> its section."""
