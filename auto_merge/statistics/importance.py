"""Which hyperparameters the cost depends on, as far as the trials of a run can tell.

A random forest (Breiman 2001) predicts the cost of a configuration; a hyperparameter matters as
much as the prediction for *unseen* configurations suffers when its values are shuffled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from auto_merge.trial import Outcome, Status, Trial, Value

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

FOLDS = 5
REPEATS = 5
TREES = 64
MAX_ROWS = 20_000


@dataclass(frozen=True)
class Share:
    """Importance of one hyperparameter.

    Attributes:
        name: Name of the hyperparameter.
        share: Part of the cost variance of unseen configurations that is lost when the values are
            shuffled (half the growth of the squared error over the variance); near 0 for one
            that does not matter, at most about 1.
        deviation: Standard deviation of ``share`` over folds.
    """

    name: str
    share: float
    deviation: float


@dataclass(frozen=True)
class Importance:
    """Result of :func:`parameter_importance`.

    Attributes:
        shares: Most important first.
        explained: Part of the cost variance of unseen configurations that the forest predicts
            (cross-validated R squared); at or below 0 the shares mean nothing.
        num_configurations: Number of configurations behind it.
    """

    shares: tuple[Share, ...]
    explained: float
    num_configurations: int


def parameter_importance(
    trials: Sequence[tuple[Trial, Outcome]], seed: int = 0, minimum: int = 2 * FOLDS
) -> Importance | None:
    """Importance of every hyperparameter that took more than one value.

    Each configuration counts once, with its successful trial of highest fidelity; the fidelity is
    a predictor of its own, so that differences between rungs are not charged to hyperparameters.
    Failed trials are left out.

    Args:
        trials: Trials with their outcomes.
        seed: Seed of folds, forest and shuffling.
        minimum: Fewest configurations to say anything about; at least :data:`FOLDS`.

    Returns:
        ``None`` with fewer than ``minimum`` configurations, with equal costs, or if no
        hyperparameter varies.
    """
    import numpy as np

    best: dict[int, tuple[Trial, Outcome]] = {}
    for trial, outcome in trials:
        if outcome.status is Status.SUCCESS:
            known = best.get(trial.config_id)
            if known is None or trial.fidelity > known[0].fidelity:
                best[trial.config_id] = (trial, outcome)
    if len(best) < minimum:
        return None
    rows = list(best.values())
    generator = np.random.default_rng(seed)
    columns = _columns([trial.configuration for trial, _ in rows], generator)
    costs = [outcome.cost for _, outcome in rows]
    if not columns or max(costs) == min(costs):
        return None
    columns = {**columns, "": [math.log(max(trial.fidelity, 1)) for trial, _ in rows]}
    return _cross_validate(columns, costs, generator)


def _columns(
    configurations: Sequence[Mapping[str, Value]], generator: np.random.Generator
) -> dict[str, list[float]]:
    """One column of numbers per hyperparameter that varies; categories by sorted position.

    An inactive value is drawn from the active ones: any fixed mark would tell the forest that the
    value is inactive, and credit for the choice that made it so would go to the wrong name.
    """
    names = sorted({name for configuration in configurations for name in configuration})
    columns: dict[str, list[float]] = {}
    for name in names:
        active = _numbers([item[name] for item in configurations if name in item])
        if min(active) == max(active):
            continue
        drawn = generator.choice(active, len(configurations))
        values = iter(active)
        columns[name] = [
            next(values) if name in item else float(drawn[place])
            for place, item in enumerate(configurations)
        ]
    return columns


def _numbers(values: Sequence[Value]) -> list[float]:
    if any(isinstance(value, str) for value in values):
        order = sorted(set(map(str, values)))
        return [float(order.index(str(value))) for value in values]
    return [float(value) for value in values]


def _cross_validate(
    columns: Mapping[str, Sequence[float]], costs: Sequence[float], generator: np.random.Generator
) -> Importance:
    import numpy as np

    names = [name for name in columns if name]
    features = np.array(list(columns.values()), dtype=np.float64).T
    target = np.array(costs, dtype=np.float64)
    fold_of = generator.permutation(np.arange(len(target)) % FOLDS)
    growth = np.zeros((FOLDS, len(names)))
    missed = 0.0
    for fold in range(FOLDS):
        test = fold_of == fold
        error, growth[fold] = _one_fold(features, target, test, len(names), generator)
        missed += error * int(test.sum())
    variance = float(target.var())
    shares = growth / (2 * variance)
    ranked = sorted(
        (
            Share(name, float(shares[:, place].mean()), float(shares[:, place].std(ddof=1)))
            for place, name in enumerate(names)
        ),
        key=lambda share: (-share.share, share.name),
    )
    return Importance(tuple(ranked), 1.0 - missed / (variance * len(target)), len(target))


def _one_fold(
    features: Floats,
    target: Floats,
    test: npt.NDArray[np.bool_],
    count: int,
    generator: np.random.Generator,
) -> tuple[float, Floats]:
    """Mean squared error on the test rows, and its growth when each column is shuffled."""
    import numpy as np
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(
        TREES, min_samples_leaf=2, max_features=0.7, random_state=int(generator.integers(2**31))
    )
    forest.fit(features[~test], target[~test])
    rows, truth = features[test], target[test]
    error = float(np.mean((forest.predict(rows) - truth) ** 2))
    growth = np.zeros(count)
    # A column that no tree splits on cannot change a prediction.
    split_on = forest.feature_importances_
    used = [place for place in range(count) if split_on[place] > 0]
    # One call predicts many shuffled copies: the overhead of a call exceeds that of a row.
    together = max(1, MAX_ROWS // (REPEATS * len(rows)))
    for start in range(0, len(used), together):
        block = used[start : start + together]
        shuffled = np.tile(rows, (len(block), REPEATS, 1, 1))
        for position, place in enumerate(block):
            for repeat in range(REPEATS):
                shuffled[position, repeat, :, place] = generator.permutation(rows[:, place])
        predicted = forest.predict(shuffled.reshape(-1, rows.shape[1]))
        errors = (predicted.reshape(len(block), -1, len(rows)) - truth) ** 2
        growth[block] = errors.mean(axis=(1, 2)) - error
    return error, growth
