"""Settings of the LFS space and what must hold for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import auto_merge.methods  # noqa: F401 - registers the merge methods
from auto_merge.errors import ConfigError, nearest
from auto_merge.methods.base import METHODS as DECLARED

METHODS = ("linear", "task_arithmetic", "ties", "slerp")
GLOBAL_SCALES = (0.2, 0.35, 0.5, 0.7, 0.9)
"""Global task-arithmetic scales of the initial design."""
Range = tuple[float, float]

PUBLISHED_RANGES: Mapping[str, Mapping[str, Range]] = {
    "linear": {"weights": (0.0, 1.0)},
    "task_arithmetic": {"scaling_coefficient": (0.0, 1.0)},
    "ties": {"param_value_mask_rate": (0.0, 0.99), "scaling_coefficient": (0.0, 1.0)},
    "slerp": {"slerp_t": (0.0, 1.0)},
}
TIES_WEIGHT_RANGE: Range = (0.0, 1.0)


@dataclass(frozen=True)
class LfsSettings:
    """What defines an LFS space.

    Attributes:
        models: Role names of the K sources; they appear in hyperparameter names.
        base: Role name of the common ancestor; needed by task arithmetic and TIES.
        num_layers: Number of layers L of the models.
        layer_granularity: Layers per group; must divide L.
        filters: Module groups with parameters of their own.
        ranges: Method -> published parameter name -> (low, high). Only these methods are searched.
        slerp_space: ``"published"`` keeps t = softmax(t1, t2) in [.27, .73]; ``"full"`` uses
            t2 / (t1 + t2) in [0, 1].
        per_source_weights: Task arithmetic gets one coefficient per source instead of a shared
            one; TIES gets one weight per source in addition to the shared scale.
        include_base: The base takes part as a source of linear and slerp.
        dtype: Data type of the merged model.
    """

    models: tuple[str, ...]
    base: str | None
    num_layers: int
    layer_granularity: int
    filters: tuple[str, ...] = ("self_attn", "mlp")
    ranges: Mapping[str, Mapping[str, Range]] = field(default_factory=lambda: PUBLISHED_RANGES)
    slerp_space: Literal["published", "full"] = "full"
    per_source_weights: bool = True
    include_base: bool = True
    dtype: str | None = None


def check_settings(settings: LfsSettings) -> None:
    """Refuses settings that make no space.

    Raises:
        ConfigError: One line with the key.
    """
    layers, granularity = settings.num_layers, settings.layer_granularity
    if granularity < 1 or layers % granularity:
        divisors = ", ".join(str(n) for n in range(1, layers + 1) if layers % n == 0)
        _refuse(
            "layer_granularity",
            f"must divide the {layers} layers of the models, got {granularity}; "
            f"possible: {divisors}",
        )
    if not settings.models:
        _refuse("models", "at least one model is needed")
    names = [*settings.models, *([settings.base] if settings.base else [])]
    for name in names:
        if names.count(name) > 1:
            _refuse("models", f"names must differ, {name!r} occurs twice")
    if not settings.ranges:
        _refuse("merging_method", f"at least one method is needed; known: {', '.join(METHODS)}")
    for method in settings.ranges:
        _check_method(settings, method)


def _check_method(settings: LfsSettings, method: str) -> None:
    key = f"merging_method.{method}"
    if method not in METHODS:
        _refuse(key, f"unknown method{nearest(method, METHODS)}")
    if method in ("task_arithmetic", "ties") and settings.base is None:
        _refuse("base_model", f"{method} needs a base model")
    count = len(settings.models) + (settings.include_base and settings.base is not None)
    if method == "slerp" and count < 2:
        _refuse(key, "slerp needs at least two models")
    given, known = settings.ranges[method], PUBLISHED_RANGES[method]
    for parameter in given:
        if parameter not in known:
            _refuse(f"{key}.{parameter}", f"unknown parameter{nearest(parameter, known)}")
    for parameter, usual in known.items():
        if parameter not in given:
            _refuse(
                key,
                f"needs a range for {parameter}, for example {{min: {usual[0]:g}, "
                f"max: {usual[1]:g}}}",
            )
        _check_range(f"{key}.{parameter}", given[parameter], legal_range(method, parameter))


def _check_range(key: str, given: Range, legal: Range) -> None:
    low, high = given
    if not low < high:
        _refuse(key, f"min must be below max, got {low:g} and {high:g}")
    if low < legal[0] or high > legal[1]:
        _refuse(key, f"must lie within [{legal[0]:g}, {legal[1]:g}], got [{low:g}, {high:g}]")


def legal_range(method: str, parameter: str) -> Range:
    """The range that makes sense in a search; the method's own where that is narrower."""
    if parameter == "param_value_mask_rate":
        density = DECLARED.get("ties").parameter("density")
        return 1.0 - density.high, 1.0 - density.low
    if parameter == "scaling_coefficient":
        scale = DECLARED.get(method).parameter("scale")
        return scale.low, scale.high
    # Shares: only ratios matter, and a negative one could make their sum vanish.
    return 0.0, DECLARED.get("linear").parameter("weight").high


def _refuse(key: str, reason: str) -> None:
    raise ConfigError(f"strategies.lfs.{key}: {reason}")
