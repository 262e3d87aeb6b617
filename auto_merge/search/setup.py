"""From a configuration to opened models and a search space, before torch is imported.

Everything that headers and settings can tell is checked here, so that a mistake costs a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from auto_merge.checkpoints.checkpoint import Checkpoint, fingerprint
from auto_merge.config.models import Model
from auto_merge.config.run_config import RunConfig
from auto_merge.config.strategies import LfsSection
from auto_merge.errors import CheckpointError
from auto_merge.evaluation.task_names import check_names
from auto_merge.merging.plan import build_plan
from auto_merge.search.baselines import Cast
from auto_merge.search.models import open_model
from auto_merge.strategies.lfs import LayerwiseFusion
from auto_merge.strategies.lfs_settings import LfsSettings
from auto_merge.trial import Objective


@dataclass(frozen=True)
class Opened:
    """Models and tasks, enough to score something.

    Attributes:
        config: The configuration.
        objectives: Its objectives.
        checkpoints: Role name -> opened model, fingerprints taken.
        cast: Who takes part.
    """

    config: RunConfig
    objectives: tuple[Objective, ...]
    checkpoints: Mapping[str, Checkpoint]
    cast: Cast

    @property
    def donor(self) -> Checkpoint:
        """The model that gives configuration and tokenizer."""
        return self.checkpoints[self.cast.base or self.cast.models[0]]


@dataclass(frozen=True)
class Setup(Opened):
    """A configuration with everything that it names opened and checked.

    Attributes:
        strategy: The search space.
    """

    strategy: LayerwiseFusion


def prepare(config: RunConfig, *, dry: bool = False) -> Setup:
    """Opens the models and builds the space.

    Args:
        config: The configuration.
        dry: Whether only to look: nothing is downloaded, and settings that this version cannot run
            are left to the caller.

    Raises:
        UserError: Whatever is wrong, in one line.
    """
    objectives = config.objectives()
    if not dry:
        config.check_supported()
        check_names([objective.task for objective in objectives], config.include_paths)
    checkpoints = open_models(config, download=not dry)
    cast = _cast(config, checkpoints)
    strategy = LayerwiseFusion(lfs_settings(config, cast.num_layers, cast.dtype))
    # The uniform average touches every tensor of every source: it fits, or the sources do not.
    build_plan(cast.uniform_average(), checkpoints, dtype=cast.dtype)
    return Setup(config, objectives, checkpoints, cast, strategy)


def open_alone(config: RunConfig, model: Model) -> Opened:
    """Opens one model to be scored on the tasks of a configuration.

    Raises:
        UserError: Whatever is wrong, in one line.
    """
    config.check_supported()
    objectives = config.objectives()
    check_names([objective.task for objective in objectives], config.include_paths)
    checkpoint = open_model(model)
    fingerprint(checkpoint, config.cache_dir)
    dtype: str = config.evaluation.torch_dtype
    dtype = checkpoint.dtype if dtype == "auto" else dtype
    cast = Cast((model.name,), None, checkpoint.num_layers, dtype)
    return Opened(config, objectives, {model.name: checkpoint}, cast)


def open_models(config: RunConfig, *, download: bool = True) -> dict[str, Checkpoint]:
    """Opens every model of a configuration and takes its fingerprint."""
    checkpoints = {model.name: open_model(model, download=download) for model in config.all_models}
    for checkpoint in checkpoints.values():
        fingerprint(checkpoint, config.cache_dir)
    return checkpoints


def lfs_settings(config: RunConfig, num_layers: int, dtype: str | None) -> LfsSettings:
    """The strategy's settings as the configuration gives them."""
    section = config.settings
    assert isinstance(section, LfsSection), "the only strategy there is"
    return LfsSettings(
        models=tuple(model.name for model in config.models),
        base=config.base_model.name if config.base_model else None,
        num_layers=num_layers,
        layer_granularity=section.layer_granularity,
        filters=section.filters,
        ranges={
            method: {name: (bounds.min, bounds.max) for name, bounds in ranges.items()}
            for method, ranges in section.merging_method.items()
        },
        slerp_space=section.slerp_space,
        per_source_weights=section.per_source_weights,
        include_base=section.include_base,
        dtype=dtype,
    )


def _cast(config: RunConfig, checkpoints: Mapping[str, Checkpoint]) -> Cast:
    counts = {name: checkpoint.num_layers for name, checkpoint in checkpoints.items()}
    first = config.models[0].name
    for name, count in counts.items():
        if count != counts[first]:
            raise CheckpointError(
                f"model {name!r} has {count} layers, {first!r} has {counts[first]}; "
                "layer-wise fusion needs equal layer counts"
            )
    base = config.base_model.name if config.base_model else None
    dtype: str = config.evaluation.torch_dtype
    if dtype == "auto":
        dtype = checkpoints[base or first].dtype
    return Cast(tuple(model.name for model in config.models), base, counts[first], dtype)
