"""SMAC against random search where it matters: many conditional dimensions, noisy documents."""

from __future__ import annotations

import statistics

import pytest
from fusion_landscape import Landscape, fusion_space, fusion_starts
from optimizer_spaces import drive

from auto_merge.optimizers import PROPOSERS
from auto_merge.optimizers.fidelity import hyperband_round
from auto_merge.optimizers.hyperband import HyperbandOptimizer


def final_cost(name: str, seed: int, num_trials: int = 80) -> tuple[float, float]:
    """Returns the true costs of the best start point and of the final incumbent."""
    landscape = Landscape(seed)
    starts = fusion_starts()
    proposer = PROPOSERS.get(name)(fusion_space(), seed)
    search = HyperbandOptimizer(hyperband_round(80, 720), starts, proposer)
    drive(search, num_trials, lambda t: landscape.cost(t.configuration, t.fidelity, t.config_id))
    search.close()
    (incumbent,) = search.incumbents()
    best_start = min(landscape.true_cost(configuration) for _, configuration in starts)
    return best_start, landscape.true_cost(incumbent.configuration)


def test_the_landscape_is_legal_and_start_points_differ() -> None:
    from ConfigSpace import Configuration

    space, landscape = fusion_space(), Landscape(0)
    costs = [
        landscape.true_cost(dict(Configuration(space, values=values)))
        for _, values in fusion_starts()
    ]
    assert len(space) == 4 * (1 + 3 * (4 + 5 + 5))
    assert min(costs) < 0.6 < max(costs)


@pytest.mark.slow
def test_smac_beats_random_search_and_the_start_points() -> None:
    seeds = range(5)
    smac = [final_cost("smac", seed) for seed in seeds]
    chance = [final_cost("random", seed) for seed in seeds]
    gains = [theirs[1] - ours[1] for ours, theirs in zip(smac, chance, strict=True)]
    assert statistics.median(gains) > 0.01, (smac, chance)
    assert sum(gain > 0 for gain in gains) >= 4, (smac, chance)
    assert statistics.mean(start - final for start, final in smac) > 0.01, (smac, chance)
