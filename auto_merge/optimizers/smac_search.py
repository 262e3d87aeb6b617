"""One proposal: fit the surrogate, climb the expected improvement, return the best new vector."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ConfigSpace import Configuration
from ConfigSpace.hyperparameters import NumericalHyperparameter, UniformFloatHyperparameter
from scipy.stats import norm
from smac.acquisition.function.expected_improvement import EI
from smac.acquisition.maximizer.abstract_acquisition_maximizer import AbstractAcquisitionMaximizer

from auto_merge.optimizers.smac_surrogate import Array, ConditionalGaussianProcess

if TYPE_CHECKING:
    from ConfigSpace import ConfigurationSpace

_NUM_ELITES = 5
_NUM_SURVIVORS = 10
_NUM_MUTANTS = 300
_NUM_GENERATIONS = 6
_STEP = 0.15
_SWITCH_RATE = 0.15
_GOOD_SHARE = 0.5
_TOGETHER_RATE = 0.5


class ExpectedImprovement(EI):  # type: ignore[misc]
    """SMAC's expected improvement, with a floor at zero.

    The original raises when rounding makes the improvement of a hopeless candidate negative.
    """

    def _compute(self, X: Array) -> Array:
        mean, variance = self._model.predict_marginalized(X)
        deviation = np.sqrt(variance)
        z = (self._eta - self._xi - mean) / deviation
        return np.asarray(np.maximum(deviation * (z * norm.cdf(z) + norm.pdf(z)), 0.0))


class EvolutionarySearch(AbstractAcquisitionMaximizer):  # type: ignore[misc]
    """Maximises an acquisition function by mutating good configurations for a few generations.

    Starts at the observed configurations with the best predicted cost. A mutant changes between one
    and all of its active numerical hyperparameters (log-uniformly many) by normal steps, and now
    and then a categorical one. Half of the mutants give the same step to hyperparameters whose
    names differ in numbers only. Hyperparameters that become active take their values from some
    observed configuration that uses them. The candidates with the best acquisition value are the
    parents of the next generation, so the search stays near what is known to be good and still
    moves along many dimensions at once, which one-exchange neighbourhoods cannot.

    Args:
        space: The search space.
        acquisition_function: Updated acquisition function.
        seed: Seed of all random choices.
    """

    def __init__(self, space: ConfigurationSpace, acquisition_function: EI, seed: int) -> None:
        super().__init__(space, acquisition_function, challengers=_NUM_MUTANTS, seed=seed)
        hyperparameters = list(space.values())
        self._numerical = np.array(
            [isinstance(hp, NumericalHyperparameter) for hp in hyperparameters], dtype=bool
        )
        self._sizes = np.array(
            [1 if isinstance(hp, NumericalHyperparameter) else hp.size for hp in hyperparameters]
        )
        self._stepped = [
            (column, hp)
            for column, hp in enumerate(hyperparameters)
            if self._numerical[column] and not isinstance(hp, UniformFloatHyperparameter)
        ]
        self._twins = _first_twins(list(space))
        self._conditions = [
            (column, space.parent_conditions_of[hp.name])
            for column, hp in enumerate(hyperparameters)
            if space.parent_conditions_of[hp.name]
        ]

    def _maximize(
        self, previous_configs: list[Configuration], n_points: int
    ) -> list[tuple[float, Configuration]]:
        """Returns the last generation as ``(acquisition value, configuration)``, best first."""
        observed = np.array([config.get_array() for config in previous_configs])
        predicted = self._acquisition_function.model.predict_marginalized(observed)[0].ravel()
        parents = observed[np.argsort(predicted, kind="stable")[:_NUM_ELITES]]
        for _ in range(_NUM_GENERATIONS):
            candidates = self._mutants(parents, observed, n_points)
            configurations = [Configuration(self._configspace, vector=row) for row in candidates]
            values = self._acquisition_function(configurations).ravel()
            order = np.argsort(-values, kind="stable")
            parents = candidates[order[:_NUM_SURVIVORS]]
        return [(float(values[i]), configurations[i]) for i in order]

    def _mutants(self, parents: Array, observed: Array, count: int) -> Array:
        """Returns ``count`` mutated vectors, shape [count, hyperparameters], NaN where inactive."""
        rng = self._rng
        mutants = parents[rng.randint(len(parents), size=count)].copy()
        active = ~np.isnan(mutants)
        numerical, categorical = active & self._numerical, active & ~self._numerical
        num_numerical = np.maximum(numerical.sum(axis=1), 1)
        share = np.exp(rng.uniform(-np.log(num_numerical), 0.0))
        drawn = rng.random_sample(mutants.shape) < share[:, None]
        steps = rng.normal(0.0, _STEP, size=mutants.shape)
        together = (rng.random_sample(count) < _TOGETHER_RATE)[:, None]
        moved = np.where(together, numerical & drawn[:, self._twins], numerical & drawn)
        steps = np.where(together, steps[:, self._twins], steps)
        mutants = np.where(moved, _reflect(mutants + steps), mutants)
        fresh = rng.random_sample(mutants.shape)
        fresh = np.where(self._numerical, fresh, np.floor(fresh * self._sizes))
        rate = _SWITCH_RATE / max(1, int((~self._numerical).sum()))
        switched = categorical & (rng.random_sample(mutants.shape) < rate)
        mutants = np.where(switched, fresh, mutants)
        donors = observed[rng.randint(len(observed), size=count)]
        spare = np.where(np.isnan(donors), fresh, donors)
        return self._deactivate(np.where(np.isnan(mutants), spare, mutants))

    def _deactivate(self, vectors: Array) -> Array:
        """Snaps stepped hyperparameters to legal values and sets inactive ones to NaN."""
        columns = vectors.T.copy()
        for column, hp in self._stepped:
            columns[column] = hp.to_vector(hp.to_value(columns[column]))
        for column, conditions in self._conditions:
            for condition in conditions:
                columns[column, ~condition.satisfied_by_vector_array(columns)] = np.nan
        return np.ascontiguousarray(columns.T)


def _first_twins(names: Sequence[str]) -> Array:
    """Maps every column to the first one whose name differs from its own in numbers only.

    Such hyperparameters repeat one another, as those of the layer groups do.
    """
    first: dict[str, int] = {}
    return np.array(
        [first.setdefault(re.sub(r"\d+", "#", name), column) for column, name in enumerate(names)]
    )


def _reflect(values: Array) -> Array:
    """Folds values that left the unit interval back into it."""
    return np.clip(1.0 - np.abs(1.0 - np.abs(values)), 0.0, 1.0)


def challengers(
    space: ConfigurationSpace,
    rows: Sequence[tuple[Configuration, float, int]],
    pending: Sequence[Configuration],
    seed: int,
) -> Iterator[Configuration]:
    """Yields promising valid configurations, best first; a pure function of its arguments.

    Args:
        space: The search space.
        rows: ``(configuration, cost, documents)`` of every told configuration; at least two.
        pending: Configurations under evaluation.
        seed: Seed of the search.
    """
    vectors = np.array([configuration.get_array() for configuration, _, _ in rows])
    costs = squash(np.array([cost for _, cost, _ in rows]))
    documents = np.array([float(number) for _, _, number in rows])
    under_way = np.array([c.get_array() for c in pending]).reshape(len(pending), len(space))
    model = ConditionalGaussianProcess(space, documents, under_way).train(vectors, costs[:, None])
    acquisition = ExpectedImprovement()
    best = float(model.predict_marginalized(vectors)[0].min())
    acquisition.update(model=model, eta=best)
    search = EvolutionarySearch(space, acquisition, seed)
    for configuration in search.maximize([row[0] for row in rows]):
        try:
            configuration.check_valid_configuration()
        except ValueError:
            continue
        yield configuration


def squash(costs: Array) -> Array:
    """Compresses the worse costs: ``m + s/2 tanh((y - m)/s)`` above a quantile ``m``.

    ``s`` is that quantile minus the minimum. Broken merges cost far more than good ones differ
    among themselves, and would otherwise rule the scale of the surrogate.
    """
    low, middle = float(costs.min()), float(np.quantile(costs, _GOOD_SHARE))
    spread = max(middle - low, 1e-9)
    bent = middle + 0.5 * spread * np.tanh((costs - middle) / spread)
    return np.where(costs > middle, bent, costs)
