"""One model per search strategy. A new strategy is a new model and its line in ``SECTIONS``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from auto_merge.config.fields import Count, Flag, Fraction, Number, Positive, Section, Text
from auto_merge.config.fixed import NormalModelsSection, NormalSlicesSection
from auto_merge.config.strategy_section import StrategySection


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


class LfsSection(StrategySection):
    """Layer-wise fusion: every group of layers chooses a merge method and its parameters."""

    PUBLISHED_MEANING: ClassVar[Mapping[str, Any]] = {
        "slerp_space": "published",
        "per_source_weights": False,
        "include_base": False,
    }

    num_hidden_layers: Positive | None = None
    """Number of layers of the models, at least 1. Null: as the models say; needed only to look at
    a search without its models."""
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


ScaleMode = Literal["mlp", "hidden", "off"]


class DisSection(StrategySection):
    """Depth-wise integration: which layers of which model follow each other."""

    PUBLISHED_MEANING: ClassVar[Mapping[str, Any]] = {"missing_permutation": "reversed"}

    num_hidden_layers: Positive | None = None
    """Number of layers of the models, at least 1. Null: as the models say; needed only to look at
    a search without its models."""
    layers: Positive | None = None
    """Largest number of layers of a result. Null: a quarter more than the models have."""
    layer_granularity: Positive = 1
    """Layers that are chosen together, at least 1; must divide the number of layers that are not
    fixed."""
    repeat: Positive = 1
    """How often every layer may occur, at least 1."""
    fix_layers: Count = 0
    """First and last layers that are the first model's and not searched, at least 0."""
    remain_base: Flag = True
    """Where no model's layer is chosen, the base model's stays; else the layer disappears."""
    float_block_selection: Flag = False
    """Choices are numbers in [0, 1] that are compared with `block_selection_threshold`."""
    block_selection_threshold: Fraction = 0.5
    """A layer is chosen if its number is above this one, in [0, 1]."""
    merging_method: Literal["passthrough"] = "passthrough"
    """Layers are taken as they are."""
    scale_mode: ScaleMode = "mlp"
    """What an output scale s does to a layer x -> x + attention + mlp: `mlp` makes it
    x + attention + s mlp, `hidden` makes it s (x + attention + mlp), `off` searches no scales."""
    missing_permutation: Literal["identity", "reversed"] = "identity"
    """Order of the chosen layers where a stored configuration gives none: as listed, or permutation
    1, as the published code read it. Default under `compat: published`: `reversed`."""


class PruneSection(StrategySection):
    """Pruning: which layers go, and which models the others are merged from."""

    PUBLISHED_MEANING: ClassVar[Mapping[str, Any]] = {
        "scale_mode": "off",
        "base_index": "output",
        "start_points": None,
    }

    num_hidden_layers: Positive | None = None
    """Number of layers of the models, at least 1. Null: as the models say; needed only to look at
    a search without its models."""
    layers: Positive
    """Number of layers of the result, at least 1."""
    merging_method: Annotated[dict[Text, Ranges], Field(min_length=1)]
    """`task_arithmetic.scaling_coefficient: {min, max}` is the range of the merge scale; the
    published files name ranges of other methods too, which pruning does not use."""
    scale_mode: ScaleMode = "mlp"
    """What an output scale s does to a layer x -> x + attention + mlp: `mlp` makes it
    x + attention + s mlp, `hidden` makes it s (x + attention + mlp), `off` searches no scales.
    Default under `compat: published`: `off`, because they had no effect there."""
    base_index: Literal["source", "output"] = "source"
    """Layer of the base that a task vector is taken from: the layer that the sources give, or the
    one that is written. Default under `compat: published`: `output`."""
    start_points: Positive | None = 30
    """Largest number of start points, in an order in which the first few are a design of their own.
    Null: all, more than a hundred for three models. Default under `compat: published`: null."""

    @property
    def merge_scale(self) -> tuple[float, float]:
        """Range of the merge scale."""
        found = self.merging_method["task_arithmetic"]["scaling_coefficient"]
        return found.min, found.max

    @field_validator("merging_method")
    @classmethod
    def _has_the_merge_scale(cls, methods: dict[str, Ranges]) -> dict[str, Ranges]:
        if "scaling_coefficient" not in methods.get("task_arithmetic", {}):
            raise ValueError("needs task_arithmetic.scaling_coefficient: {min, max}")
        return methods


class LfsMultiobjSection(LfsSection):
    """Layer-wise fusion with a Pareto front over the tasks instead of one winner."""


SECTIONS: dict[str, type[StrategySection]] = {
    "lfs": LfsSection,
    "lfs_multiobj": LfsMultiobjSection,
    "dis": DisSection,
    "prune": PruneSection,
    "normal_models": NormalModelsSection,
    "normal_slices": NormalSlicesSection,
}
"""Strategy name -> its section."""
