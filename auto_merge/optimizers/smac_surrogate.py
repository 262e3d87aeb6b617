"""A surrogate for conditional spaces with more dimensions than observations, as a SMAC model.

A random forest, SMAC's default, splits on single hyperparameters; with a hundred of them and a
hundred noisy rows it cannot rank the neighbours of a good configuration. Costs of merged models
vary smoothly, so an isotropic Gaussian process is fitted instead. Its length scale is measured
against the distance of two random configurations, which grows with the square root of the
dimension (Hvarfner et al., "Vanilla Bayesian Optimization Performs Great in High Dimensions",
2024), and a row's noise falls with its number of documents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ConfigSpace.hyperparameters import NumericalHyperparameter
from scipy.linalg import cho_solve, solve_triangular
from smac.model.abstract_model import AbstractModel

if TYPE_CHECKING:
    from ConfigSpace import ConfigurationSpace

Array = np.ndarray[Any, np.dtype[np.float64]]

_LENGTH_SCALES = (0.15, 0.3, 0.5, 0.8, 1.2, 2.0, 3.5)
_CATEGORY_WEIGHTS = (0.08, 0.4, 1.2, 4.0)
_NOISE_RATIOS = (0.01, 0.05, 0.15, 0.4, 1.0)
_JITTER = 1e-6
_UNIFORM_SQUARED_DISTANCE = 1 / 6


@dataclass(frozen=True)
class _Fit:
    """Hyperparameters of the process and their penalised negative log likelihood."""

    loss: float
    length_scale: float = 0.8
    category_weight: float = 0.4
    noise_ratio: float = 0.15
    signal_variance: float = 1.0


class ConditionalGaussianProcess(AbstractModel):  # type: ignore[misc]
    r"""Gaussian process over configuration vectors in which NaN marks an inactive hyperparameter.

    Kernel: Matern 5/2 of :math:`r^2 = d^2 / (l^2 m / 6) + w h / c`. Here :math:`d^2` is the squared
    distance of the numerical hyperparameters, an inactive one standing in the middle of its range,
    :math:`m` is the mean number of active ones, and :math:`h` counts unequal categorical ones of
    :math:`c`. A change of a method therefore costs a constant, and its parameters are compared in
    full only where both configurations use it. Being a Euclidean distance of an embedding, it
    gives a positive definite kernel.

    ``l``, ``w`` and the noise are the best of a grid by marginal likelihood, with log-normal
    preferences for ``l = 0.8`` and ``w = 0.8``: a pure function of the rows, without random starts.

    Args:
        space: The search space.
        documents: Documents behind each training row, same order as the rows; > 0. The noise
            variance of a row is inversely proportional to it.
        pending: Vectors whose evaluation is under way, shape [p, hyperparameters]. They lower the
            predicted variance around them and leave the mean alone ("kriging believer").
    """

    def __init__(self, space: ConfigurationSpace, documents: Array, pending: Array) -> None:
        super().__init__(space)
        self._numerical = np.array(
            [isinstance(hp, NumericalHyperparameter) for hp in space.values()], dtype=bool
        )
        self._relative_noise = documents.mean() / documents
        self._pending = pending

    def _train(self, X: Array, y: Array) -> ConditionalGaussianProcess:
        self._rows = X
        self._mean = float(np.median(y))
        centred = y.ravel() - self._mean
        self._scale = max(float(centred.std()), 1e-9)
        active = (~np.isnan(X[:, self._numerical])).sum(axis=1).mean()
        self._typical = max(float(active), 1.0) * _UNIFORM_SQUARED_DISTANCE
        distances = self._distances(X, X)
        self._fit = self._best_fit(distances, centred / self._scale)
        self._weights = self._solve(distances, self._fit, centred / self._scale)[1]
        self._factor_rows = np.concatenate([X, self._pending])
        noise = np.concatenate([self._relative_noise, np.ones(len(self._pending))])
        covariance = self._kernel(self._distances(self._factor_rows, self._factor_rows), self._fit)
        covariance += np.diag(self._fit.noise_ratio * noise + _JITTER)
        # Inverted once, because a product is several times faster than a triangular solve.
        identity = np.eye(len(covariance))
        self._whiten = solve_triangular(np.linalg.cholesky(covariance), identity, lower=True).T
        return self

    def _predict(self, X: Array, covariance_type: str | None = "diagonal") -> tuple[Array, Array]:
        kernel = self._kernel(self._distances(X, self._factor_rows), self._fit)
        mean = kernel[:, : len(self._rows)] @ self._weights
        explained = ((kernel @ self._whiten) ** 2).sum(axis=1)
        variance = np.maximum(1 - explained, 1e-9) * self._fit.signal_variance
        return mean * self._scale + self._mean, variance * self._scale**2

    def _distances(self, left: Array, right: Array) -> tuple[Array, Array]:
        """Returns numerical squared distances and the share of unequal categories, [n, m] each."""
        numerical = self._numerical
        a, b = (np.nan_to_num(side[:, numerical], nan=0.5) for side in (left, right))
        squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2 * a @ b.T
        c, d = (np.nan_to_num(side[:, ~numerical], nan=-1.0) for side in (left, right))
        unequal = np.zeros(squared.shape)
        for column in range(c.shape[1]):
            unequal += c[:, column, None] != d[None, :, column]
        return np.maximum(squared, 0.0), unequal / max(1, c.shape[1])

    def _kernel(self, distances: tuple[Array, Array], fit: _Fit) -> Array:
        squared, unequal = distances
        scaled = squared / (self._typical * fit.length_scale**2) + fit.category_weight * unequal
        root = np.sqrt(5 * scaled)
        return np.asarray((1 + root + 5 / 3 * scaled) * np.exp(-root))

    def _solve(self, distances: tuple[Array, Array], fit: _Fit, y: Array) -> tuple[Array, Array]:
        """Returns the Cholesky factor of the training covariance and its solution for ``y``."""
        noise = fit.noise_ratio * self._relative_noise + _JITTER
        factor = np.linalg.cholesky(self._kernel(distances, fit) + np.diag(noise))
        return np.asarray(factor, dtype=float), np.asarray(cho_solve((factor, True), y))

    def _best_fit(self, distances: tuple[Array, Array], y: Array) -> _Fit:
        """Two rounds of coordinate-wise grid search."""
        best = self._assess(distances, y, _Fit(np.inf))
        for _ in range(2):
            for name, grid in (
                ("length_scale", _LENGTH_SCALES),
                ("noise_ratio", _NOISE_RATIOS),
                ("category_weight", _CATEGORY_WEIGHTS),
            ):
                fits = [
                    self._assess(distances, y, _Fit(**{**vars(best), name: value}))
                    for value in grid
                ]
                best = min([best, *fits], key=lambda fit: fit.loss)
        return best

    def _assess(self, distances: tuple[Array, Array], y: Array, fit: _Fit) -> _Fit:
        factor, weights = self._solve(distances, fit, y)
        signal = max(float(y @ weights) / len(y), 1e-9)
        loss = 0.5 * len(y) * np.log(signal) + np.log(np.diag(factor)).sum()
        loss += 0.5 * np.log(fit.length_scale / 0.8) ** 2
        loss += 0.1 * np.log(fit.category_weight / 0.8) ** 2
        return _Fit(**{**vars(fit), "loss": float(loss), "signal_variance": signal})
