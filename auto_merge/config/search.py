"""The ``search`` section, and the published keys that are other names of its settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from auto_merge.config.fields import Count, Positive, Seconds, Section

PUBLISHED_NAMES = {
    "n_trials": "max_trials",
    "n_workers": "workers",
    "eta": "eta",
    "min_budget": "min_budget",
    "max_budget": "max_budget",
    "total_budget": "total_budget",
    "random_init_points": "random_init_points",
}
"""Published key of a strategy section -> setting of ``search``."""


def _null_is_zero(value: Any) -> Any:
    return 0 if value is None else value


CountOrNull = Annotated[Count, BeforeValidator(_null_is_zero, json_schema_input_type=int | None)]


class SearchSection(Section):
    """How candidates are proposed, promoted and counted."""

    optimizer: Literal["smac", "random"] = "smac"
    """Who proposes configurations: `smac` (Bayesian optimisation) or `random` (for comparison)."""
    max_trials: Count | None = None
    """Trials of the whole run, at least 0; a trial is one configuration at one rung. Null: no
    limit but `max_seconds`. 0: as many as `total_budget` pays for. May be raised later to extend
    a run."""
    max_seconds: Seconds | None = None
    """Active seconds of the whole run over all its resumptions, above 0; null for no limit. May
    be raised later to extend a run."""
    workers: Positive = 1
    """Processes that evaluate, at least 1; one in this version."""
    eta: Annotated[int, Field(strict=True, ge=2)] = 3
    """Of a rung's configurations one in `eta` is promoted, and each rung has `eta` times the
    documents of the one below; at least 2."""
    min_budget: Positive = 100
    """Documents per task at the lowest rung, at least 1. Hyperband may start higher: rungs are
    `max_budget` divided by powers of `eta`."""
    max_budget: Annotated[Positive, Field(validate_default=True)] = 1000
    """Documents per task at the top rung, at least `min_budget`; more than a task has is clamped
    with a note."""
    total_budget: Annotated[
        Count, BeforeValidator(_null_is_zero, json_schema_input_type=int | None)
    ] = 0
    """Documents per task that all trials together may cost; used only if `max_trials` is 0."""
    random_init_points: Count = 0
    """Random configurations in the initial design beside the strategy's own start points."""

    @field_validator("max_budget")
    @classmethod
    def _is_above_min_budget(cls, max_budget: int, info: ValidationInfo) -> int:
        if info.data.get("min_budget", 0) > max_budget:
            raise ValueError(
                f"must be at least min_budget {info.data['min_budget']}, got {max_budget}"
            )
        return max_budget

    @model_validator(mode="after")
    def _ends(self) -> SearchSection:
        if self.max_trials == 0 and not self.total_budget:
            raise ValueError("max_trials (n_trials) 0 needs a total_budget above 0")
        if self.max_trials is None and self.max_seconds is None:
            raise ValueError("a search needs an end: give max_trials (n_trials) or max_seconds")
        return self
