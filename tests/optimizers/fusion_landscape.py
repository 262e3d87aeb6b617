"""A synthetic layer-wise fusion: conditional, smooth, interacting, scored on nested documents.

Every (skill, group, part) wants the coefficients of the sources near a point of its own: the
source of the skill strong, the others weak. Methods differ in the coefficients that they can reach.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ConfigSpace import Categorical, ConfigurationSpace, EqualsCondition, Float

from auto_merge.trial import Value

NUM_SOURCES, NUM_GROUPS, NUM_DOCUMENTS = 4, 4, 720
SOURCES = "abcd"
PARTS = ("self_attn", "mlp", "rest")
METHODS = ("linear", "task_arithmetic", "ties")


def fusion_space() -> ConfigurationSpace:
    """172 hyperparameters: four choices of a method and their parameters per part and source."""
    space = ConfigurationSpace()
    for group in range(NUM_GROUPS):
        choice = Categorical(f"method_{group}", METHODS, default="linear")
        space.add(choice)
        for method in METHODS:
            for part in PARTS:
                names = [f"{method}_weight_{s}_{group}_{part}" for s in SOURCES]
                floats = [Float(name, (0.0, 1.0), default=0.5) for name in names]
                if method != "linear":
                    floats.append(Float(f"{method}_scale_{group}_{part}", (0.0, 2.0), default=1.0))
                space.add(*floats)
                space.add(*(EqualsCondition(child, choice, method) for child in floats))
    return space


def fusion_starts() -> list[tuple[str, dict[str, Value]]]:
    """Every source alone, the uniform average, task arithmetic at five scales."""
    starts = []
    for label, weights in [
        *((f"source {s}", np.eye(NUM_SOURCES)[s]) for s in range(NUM_SOURCES)),
        ("uniform", np.full(NUM_SOURCES, 0.5)),
    ]:
        starts.append((label, _everywhere("linear", weights, None)))
    for scale in (0.2, 0.4, 0.6, 0.8, 1.0):
        values = _everywhere("task_arithmetic", np.full(NUM_SOURCES, 0.5), scale)
        starts.append((f"scale {scale / 2}", values))
    return starts


def _everywhere(method: str, weights: np.ndarray, scale: float | None) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for group in range(NUM_GROUPS):
        values[f"method_{group}"] = method
        for part in PARTS:
            for index, source in enumerate(SOURCES):
                values[f"{method}_weight_{source}_{group}_{part}"] = float(weights[index])
            if scale is not None:
                values[f"{method}_scale_{group}_{part}"] = scale
    return values


class Landscape:
    """Costs of configurations; one skill per source.

    Args:
        seed: Draws importances, optima, interference and the documents.
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        shape = (NUM_SOURCES, NUM_GROUPS, len(PARTS))  # [skill, group, part]
        self.importance = rng.dirichlet(np.full(12, 1.5), size=NUM_SOURCES).reshape(shape)
        self.optimum = np.clip(rng.normal(0.75, 0.2, size=shape), 0.3, 1.2)
        self.harm = rng.gamma(1.5, 0.3, size=(NUM_SOURCES, *shape))  # [skill, source, group, part]
        self.harm[np.arange(NUM_SOURCES), np.arange(NUM_SOURCES)] = 0.0
        self.interaction = rng.normal(0.0, 0.3, size=shape[:2])
        self.difficulty = rng.normal(0.0, 1.6, size=(NUM_SOURCES, NUM_DOCUMENTS))
        self.luck = rng.random((NUM_SOURCES, NUM_DOCUMENTS))

    def logits(self, configuration: Mapping[str, Value]) -> np.ndarray:
        """Log-odds of solving an average document, per skill."""
        coefficients = np.zeros((NUM_SOURCES, NUM_GROUPS, len(PARTS)))
        spared = np.ones((NUM_GROUPS, len(PARTS)))
        for group in range(NUM_GROUPS):
            method = str(configuration[f"method_{group}"])
            for index, part in enumerate(PARTS):
                weights = np.array(
                    [
                        configuration[f"{method}_weight_{source}_{group}_{part}"]
                        for source in SOURCES
                    ],
                    dtype=float,
                )
                if method == "linear":
                    weights = weights / max(float(weights.sum()), 1e-9)
                else:
                    weights = weights * float(configuration[f"{method}_scale_{group}_{part}"])
                if method == "ties":
                    weights, spared[group, index] = 0.85 * weights, 0.8
                coefficients[:, group, index] = weights
        away = coefficients - self.optimum
        loss = 5 * (self.importance * away**2).sum(axis=(1, 2))
        loss += 1.5 * np.einsum("sgp,ksgp,gp->k", coefficients**2, self.harm, spared) / NUM_SOURCES
        pairs = self.importance.sum(axis=2) * self.interaction
        loss += 2 * (pairs * away[:, :, 0] * away[:, :, 1]).sum(axis=1)
        return np.asarray(3.4 - 1.9 * loss)

    def true_cost(self, configuration: Mapping[str, Value]) -> float:
        """Expected share of unsolved documents."""
        odds = self.logits(configuration)[:, None] + self.difficulty
        return float(1 - (1 / (1 + np.exp(-odds))).mean())

    def cost(self, configuration: Mapping[str, Value], fidelity: int, config_id: int) -> float:
        """Share of unsolved documents among the first ``fidelity`` ones of each skill.

        Most documents are solved or not for the same reason in every configuration; one in five
        falls by a die of the configuration's own.
        """
        rng = np.random.default_rng([config_id, 7])
        own = rng.random(self.luck.shape)
        luck = np.where(rng.random(self.luck.shape) < 0.2, own, self.luck)[:, :fidelity]
        odds = self.logits(configuration)[:, None] + self.difficulty[:, :fidelity]
        return float(1 - (luck < 1 / (1 + np.exp(-odds))).mean())
