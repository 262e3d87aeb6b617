"""How long the large search spaces take to build and to sample.

python benchmarks/spaces.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

from common import heading, keep, spread, table

from auto_merge.seams import Strategy
from auto_merge.strategies.dis import DepthwiseIntegration, DisSettings
from auto_merge.strategies.lfs import LayerwiseFusion
from auto_merge.strategies.lfs_settings import LfsSettings
from auto_merge.strategies.prune import PruneSettings, Pruning

MODELS = ("one", "two", "three")
SPACES: dict[str, Callable[[], Strategy]] = {
    "LFS, 40 layers in 4 groups": lambda: LayerwiseFusion(LfsSettings(MODELS, "base", 40, 10)),
    "DIS, 40 layers, at most 50": lambda: DepthwiseIntegration(DisSettings(MODELS, "base", 40, 50)),
    "DIS, granularity 4": lambda: DepthwiseIntegration(
        DisSettings(MODELS, "base", 40, 50, layer_granularity=4)
    ),
    "prune, 40 to 30 layers": lambda: Pruning(
        PruneSettings(MODELS, "base", 40, 30, merge_scale=(0.0, 1.0))
    ),
}


def main() -> None:
    rows = []
    for name, make in SPACES.items():
        building, sampling, decoding = [], [], []
        feasible = 0
        for seed in range(3):
            started = time.perf_counter()
            strategy = make()
            space = strategy.space()
            building.append(time.perf_counter() - started)
            space.seed(seed)
            started = time.perf_counter()
            samples = space.sample_configuration(1000)
            sampling.append(time.perf_counter() - started)
            started = time.perf_counter()
            recipes = [strategy.decode(dict(sample)) for sample in samples]
            decoding.append(time.perf_counter() - started)
            deepest = strategy.max_layers or 10**9
            feasible += sum(1 <= recipe.num_layers <= deepest for recipe in recipes)
        rows.append(
            [
                name,
                len(space),
                *map(spread, (building, sampling, decoding)),
                f"{feasible / 30:.1f} %",
            ]
        )
    lines = heading("Search spaces of three models", "1,000 samples in under 2 seconds.")
    columns = [
        "space",
        "hyperparameters",
        "build s",
        "sample 1,000 s",
        "decode 1,000 s",
        "feasible",
    ]
    keep("spaces", lines + table(columns, rows))


if __name__ == "__main__":
    main()
