"""Reads the run history of another search as a warm start: SMAC's ``runhistory.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auto_merge.errors import RecipeError, RunError
from auto_merge.optimizers.proposer import Observation
from auto_merge.seams import Strategy
from auto_merge.trial import FAILURE_COST, Objective, Status, Value

if TYPE_CHECKING:
    from ConfigSpace import ConfigurationSpace

_FIELDS = ("config_id", "instance", "seed", "budget", "cost", "time", "status")
"""The first fields of an entry in SMAC before 2.3, which writes lists instead of mappings."""
_STATUS = {
    1: Status.SUCCESS,
    2: Status.CRASHED,
    3: Status.TIMEOUT,
    4: Status.OUT_OF_MEMORY,
}
_RUNNING = 0


@dataclass(frozen=True)
class Remembered:
    """What another search found out about one configuration.

    Attributes:
        configuration: It, in the names of this search; active hyperparameters only.
        costs: One number per objective, or a single one; each 1 - score. Failures:
            :data:`~auto_merge.trial.FAILURE_COST`.
        fidelity: Documents per task behind them.
        status: How its last trial ended.
    """

    configuration: Mapping[str, Value]
    costs: tuple[float, ...]
    fidelity: int
    status: Status

    def observation(
        self, number: int, objectives: Sequence[Objective], multi_objective: bool
    ) -> Observation:
        """What an optimizer learns from it; numbers below 0 belong to no configuration of a run."""
        known = (number, self.configuration)
        if self.status is not Status.SUCCESS:
            return Observation(*known, FAILURE_COST, self.fidelity, self.status)
        costs = self.costs * (len(objectives) if len(self.costs) == 1 else 1)
        total = math.fsum(objective.weight for objective in objectives)
        mean = math.fsum(o.weight * c for o, c in zip(objectives, costs, strict=True)) / total
        kept = costs if multi_objective else ()
        return Observation(*known, mean, self.fidelity, self.status, kept)


def read_run_history(
    path: Path, strategy: Strategy, num_costs: Sequence[int]
) -> tuple[Remembered, ...]:
    """Reads a run history.

    Args:
        path: ``runhistory.json`` as SMAC 2.0 to 2.4 writes it.
        strategy: Translates the configurations.
        num_costs: How many costs a trial may have: one, or one per objective.

    Returns:
        One per configuration, its trial at the highest budget, in the order of first appearance.

    Raises:
        RunError: The file is not there or not a run history, or has another number of costs.
        RecipeError: A configuration does not fit this search space; the message names the key.
    """
    data = _parse(path)
    found: dict[str, Remembered] = {}
    for number, raw in enumerate(data["data"]):
        place = f"{path}: data[{number}]"
        entry = _entry(raw, place)
        if entry["status"] == _RUNNING:
            continue
        identity = str(entry["config_id"])
        if identity not in data["configs"]:
            raise RunError(f"{place}: no configuration {identity} in the file")
        known = found.get(identity)
        fidelity = _fidelity(entry["budget"], place)
        if known is not None and known.fidelity >= fidelity:
            continue
        configuration = (
            known.configuration if known else _encoded(strategy, data["configs"][identity], path)
        )
        costs, status = _result(entry, num_costs, place)
        found[identity] = Remembered(configuration, costs, fidelity, status)
    return tuple(found.values())


def check_legal(item: Remembered, space: ConfigurationSpace, path: Path) -> None:
    """Refuses a configuration that lies outside of the search space, such as beyond a range.

    Raises:
        RecipeError: The message says which hyperparameter.
    """
    from ConfigSpace import Configuration

    try:
        Configuration(space, values=dict(item.configuration)).check_valid_configuration()
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"{path}: does not fit the search space: {reason}") from None


def _parse(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise RunError(f"load_run_history: {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise RunError(f"load_run_history: {path}: not JSON") from None
    if (
        not isinstance(data, dict)
        or not isinstance(data.get("data"), list)
        or not isinstance(data.get("configs"), dict)
    ):
        raise RunError(
            f"load_run_history: {path}: not a run history; expected the keys data and configs, as "
            "in SMAC's runhistory.json"
        )
    return data


def _entry(raw: Any, place: str) -> dict[str, Any]:
    if isinstance(raw, Sequence) and len(raw) == len(_FIELDS) + 4:
        # SMAC 2.3 added the processor time behind the wall time.
        raw = [*raw[:6], *raw[7:]]
    entry = dict(zip(_FIELDS, raw, strict=False)) if isinstance(raw, list) else raw
    if not isinstance(entry, dict) or any(name not in entry for name in _FIELDS):
        raise RunError(f"{place}: not an entry of a run history")
    if entry["status"] not in (_RUNNING, *_STATUS):
        raise RunError(f"{place}: unknown status {entry['status']!r}")
    return entry


def _fidelity(budget: Any, place: str) -> int:
    number = isinstance(budget, (int, float)) and not isinstance(budget, bool)
    if not number or not math.isfinite(budget) or budget <= 0:
        raise RunError(f"{place}: needs a budget (documents per task) above 0, got {budget!r}")
    return max(1, round(float(budget)))


def _encoded(strategy: Strategy, values: Any, path: Path) -> dict[str, Value]:
    if not isinstance(values, dict):
        raise RunError(f"{path}: a configuration is no mapping of names to values")
    try:
        return strategy.encode(values)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None


def _result(
    entry: Mapping[str, Any], num_costs: Sequence[int], place: str
) -> tuple[tuple[float, ...], Status]:
    costs = entry["cost"] if isinstance(entry["cost"], list) else [entry["cost"]]
    if len(costs) not in num_costs:
        wanted = " or ".join(str(count) for count in dict.fromkeys(num_costs))
        raise RunError(f"{place}: has {len(costs)} costs; this search needs {wanted}")
    numbers = all(isinstance(c, (int, float)) and not isinstance(c, bool) for c in costs)
    if not numbers:
        raise RunError(f"{place}: costs must be numbers, got {costs!r}")
    status = _STATUS[entry["status"]]
    if status is Status.SUCCESS and all(math.isfinite(cost) for cost in costs):
        return tuple(min(max(float(cost), 0.0), 1.0) for cost in costs), status
    failure = status if status is not Status.SUCCESS else Status.CRASHED
    return (FAILURE_COST,) * len(costs), failure
