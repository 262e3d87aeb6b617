"""What a run is: its limits, its identity, and the manifest that records both."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from auto_merge import __version__
from auto_merge.config.run_config import RunConfig
from auto_merge.errors import ConfigError
from auto_merge.evaluation.evaluator import HarnessEvaluator
from auto_merge.optimizers.fidelity import (
    Bracket,
    hyperband_round,
    num_trials_for_total_budget,
    rungs,
)
from auto_merge.search.loop import Limits
from auto_merge.search.scoring import heldout_fidelity
from auto_merge.search.setup import Setup
from auto_merge.search.spaces import is_multi_objective

_VERSIONED = ("torch", "transformers", "lm_eval", "smac", "ConfigSpace", "safetensors", "numpy")


def limits_of(config: RunConfig) -> Limits:
    """The limits of a configuration, after the rule that 0 trials means ``total_budget``."""
    search = config.search
    trials = search.max_trials
    if trials == 0:
        trials = num_trials_for_total_budget(
            search.total_budget, search.min_budget, search.max_budget, search.eta
        )
    return Limits(trials, search.max_seconds)


def identity(setup: Setup) -> dict[str, Any]:
    """What makes this run the run that it is: settings and contents of the sources."""
    prints = {name: item.fingerprint for name, item in setup.checkpoints.items()}
    own = {**setup.config.identity(), "fingerprints": prints}
    history = setup.config.load_run_history
    if history is not None:
        own["load_run_history"] = _digest(history)
    return own


def manifest(setup: Setup, evaluator: HarnessEvaluator, device: str) -> dict[str, Any]:
    """What a run writes down once, at its start."""
    config, cast = setup.config, setup.cast
    own = identity(setup)
    text = json.dumps(own, sort_keys=True)
    top = min(config.search.max_budget, evaluator.max_fidelity)
    return {
        "name": config.name,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "strategy": config.strategy,
        "multi_objective": is_multi_objective(config),
        "seed": config.random_seed,
        "config": config.resolved(),
        "identity": own,
        "hash": hashlib.sha256(text.encode()).hexdigest()[:16],
        "models": {
            model.name: {
                "path": model.path,
                "location": model.location,
                "hub_id": model.hub_id,
                "fingerprint": setup.checkpoints[model.name].fingerprint,
            }
            for model in config.all_models
        },
        "base": cast.base,
        "dtype": cast.dtype,
        "device": device,
        "objectives": [asdict(objective) for objective in setup.objectives],
        "tasks": evaluator.tasks_digest(),
        "top_fidelity": top,
        "heldout_fidelity": heldout_fidelity(setup, evaluator),
        "rungs": list(rungs(brackets(config, top))),
        "versions": _versions(),
    }


def brackets(config: RunConfig, top: int) -> tuple[Bracket, ...]:
    """One Hyperband round up to ``top`` documents per task, the clamped ``max_budget``."""
    low = min(config.search.min_budget, top)
    return hyperband_round(low, top, config.search.eta)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"load_run_history: {path}: {error.strerror or error}") from None


def _versions() -> dict[str, str]:
    found = {"auto_merge": __version__, "python": platform.python_version()}
    for name in _VERSIONED:
        found[name] = importlib.metadata.version(name)
    return found
