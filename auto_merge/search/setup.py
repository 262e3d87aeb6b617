"""From a configuration to opened models and a search space, before torch is imported.

Everything that headers and settings can tell is checked here, so that a mistake costs a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from auto_merge.checkpoints.checkpoint import Checkpoint, fingerprint
from auto_merge.checkpoints.vocabulary import AddedToken
from auto_merge.config.models import Model
from auto_merge.config.run_config import RunConfig
from auto_merge.config.strategies import DisSection, PruneSection
from auto_merge.errors import CheckpointError, ConfigError, RecipeError
from auto_merge.evaluation.task_names import check_names
from auto_merge.seams import Strategy
from auto_merge.search.baselines import Cast
from auto_merge.search.candidates import plan_of
from auto_merge.search.history import Remembered, check_legal, read_run_history
from auto_merge.search.models import open_model
from auto_merge.search.spaces import build_strategy, is_multi_objective
from auto_merge.trial import Objective


@dataclass(frozen=True)
class Opened:
    """Models and tasks, enough to score something.

    Attributes:
        config: The configuration.
        objectives: Its objectives.
        checkpoints: Role name -> opened model, fingerprints taken.
        cast: Who takes part.
        added_tokens: Tokens that candidates have beside those of the donor.
    """

    config: RunConfig
    objectives: tuple[Objective, ...]
    checkpoints: Mapping[str, Checkpoint]
    cast: Cast
    added_tokens: tuple[AddedToken, ...]

    @property
    def donor(self) -> Checkpoint:
        """The model that gives configuration and tokenizer."""
        return self.checkpoints[self.cast.base or self.cast.models[0]]


@dataclass(frozen=True)
class Setup(Opened):
    """A configuration with everything that it names opened and checked.

    Attributes:
        strategy: The search space.
        history: What an earlier search found out, for a warm start.
    """

    strategy: Strategy
    history: tuple[Remembered, ...] = ()


def prepare(config: RunConfig, *, dry: bool = False, evaluates: bool = True) -> Setup:
    """Opens the models and builds the space.

    Args:
        config: The configuration.
        dry: Whether only to look: nothing is downloaded, and settings that this version cannot run
            are left to the caller.
        evaluates: Whether anything will be scored; if not, settings of the evaluation do not
            matter.

    Raises:
        UserError: Whatever is wrong, in one line.
    """
    objectives = config.objectives()
    if not dry and evaluates:
        config.check_supported()
        check_names(task_names(config), config.include_paths)
    checkpoints = open_models(config, download=not dry)
    cast = _cast(config, checkpoints)
    strategy = build_strategy(config, cast)
    # The uniform average touches every tensor of every source: it fits, or the sources do not.
    plan = plan_of(cast.uniform_average(), checkpoints, cast, cast.dtype)
    for _, point in strategy.initial_design()[:1]:
        # What the settings alone decide, such as a slice outside of its model.
        plan_of(strategy.decode(point), checkpoints, cast, cast.dtype)
    _check_scales(config, checkpoints, cast)
    setup = Setup(config, objectives, checkpoints, cast, plan.added_tokens, strategy)
    return setup if dry else replace(setup, history=warm_start(setup))


def _check_scales(config: RunConfig, checkpoints: Mapping[str, Checkpoint], cast: Cast) -> None:
    """Refuses a search over output scales in models that cannot have them."""
    section = config.settings
    if not isinstance(section, (DisSection, PruneSection)) or section.scale_mode == "off":
        return
    whole = cast.single_model(cast.models[0])
    scaled = replace(whole, slices=tuple(replace(s, output_scale=0.5) for s in whole.slices))
    try:
        plan_of(scaled, checkpoints, cast, cast.dtype)
    except RecipeError as error:
        raise ConfigError(f"{config.located('scale_mode')}: {error}; set it to off") from None


def warm_start(setup: Setup) -> tuple[Remembered, ...]:
    """Reads the run history that a configuration names.

    Raises:
        UserError: It cannot be read, or does not fit the search.
    """
    path = setup.config.load_run_history
    if path is None:
        return ()
    multi = is_multi_objective(setup.config)
    counts = (len(setup.objectives),) if multi else (1, len(setup.objectives))
    history = read_run_history(path, setup.strategy, counts)
    space = setup.strategy.space()
    for item in history:
        check_legal(item, space, path)
    return history


def open_alone(config: RunConfig, model: Model) -> Opened:
    """Opens one model to be scored on the tasks of a configuration.

    Raises:
        UserError: Whatever is wrong, in one line.
    """
    config.check_supported()
    objectives = config.objectives()
    check_names(task_names(config), config.include_paths)
    checkpoint = open_model(model)
    fingerprint(checkpoint, config.cache_dir)
    dtype: str = config.evaluation.torch_dtype
    dtype = checkpoint.dtype if dtype == "auto" else dtype
    cast = Cast((model.name,), None, checkpoint.num_layers, dtype)
    return Opened(config, objectives, {model.name: checkpoint}, cast, ())


def task_names(config: RunConfig) -> list[str]:
    """Names that must be tasks of lm-eval."""
    return [entry.task for entry in config.evaluation.tasks if entry.function is None]


def open_models(config: RunConfig, *, download: bool = True) -> dict[str, Checkpoint]:
    """Opens every model of a configuration and takes its fingerprint."""
    checkpoints = {model.name: open_model(model, download=download) for model in config.all_models}
    for checkpoint in checkpoints.values():
        fingerprint(checkpoint, config.cache_dir)
    return checkpoints


def _cast(config: RunConfig, checkpoints: Mapping[str, Checkpoint]) -> Cast:
    counts = {name: checkpoint.num_layers for name, checkpoint in checkpoints.items()}
    first = config.models[0].name
    for name, count in counts.items():
        if count != counts[first]:
            raise CheckpointError(
                f"model {name!r} has {count} layers, {first!r} has {counts[first]}; "
                "models that are merged must have equal layer counts"
            )
    base = config.base_model.name if config.base_model else None
    dtype: str = config.evaluation.torch_dtype
    if dtype == "auto":
        dtype = checkpoints[base or first].dtype
    return Cast(tuple(model.name for model in config.models), base, counts[first], dtype)
