"""SMAC against random search on the zoo, paired by seed.

    python benchmarks/smac_against_random.py [--seeds 20] [--trials 132] [--work FOLDER]
    python benchmarks/smac_against_random.py --config exp_config/config_lfs_mo.yaml --trials 60

Both get the same initial design, rungs, number of trials (hence newly scored documents) and
documents, and a ledger of their own. Compared is the held-out score of the final pick, or with
several objectives the held-out hypervolume of the final front, both fronts cut to equal size on
search documents: one-sided exact Wilcoxon signed-rank test with the Hodges-Lehmann interval.
Finished (seed, optimizer) pairs are kept in the work folder, so an interrupted comparison goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common import ROOT, heading, keep, spread, table

from auto_merge.config import load_config
from auto_merge.config.run_config import RunConfig
from auto_merge.reports.progress import SearchProgress
from auto_merge.runs import reader
from auto_merge.runs.store import RunStore
from auto_merge.search.manifest import limits_of, manifest
from auto_merge.search.run import Session, run
from auto_merge.search.scoring import build_evaluator, heldout_fidelity
from auto_merge.search.setup import prepare
from auto_merge.search.spaces import is_multi_objective
from auto_merge.search.stopping import StopRequest
from auto_merge.statistics import hypervolume_share, largest_subset, signed_rank
from auto_merge.trial import TaskScore, objective_costs, scalar_cost

OPTIMIZERS = ("smac", "random")


def load(seed: int, optimizer: str, trials: int, config: Path, work: Path) -> RunConfig:
    """The configuration with folders of its own and without a time limit."""
    return load_config(
        config,
        [
            f"random_seed={seed}",
            f"cache_dir={work / f'cache_{optimizer}_{seed}'}",
            f"output_path={work / f'run_{optimizer}_{seed}'}",
            f"search.optimizer={optimizer}",
            f"search.max_trials={trials}",
            "search.max_seconds=null",
        ],
    )


def search_once(seed: int, optimizer: str, trials: int, config: Path, work: Path) -> dict[str, Any]:
    """One search and the held-out score of its final pick, without baselines."""
    loaded = load(seed, optimizer, trials, config, work)
    setup = prepare(loaded)
    evaluator = build_evaluator(setup, "cpu")
    folder = loaded.output_path
    if RunStore.exists(folder):
        store = RunStore(folder)
    else:
        store = RunStore.create(folder, manifest(setup, evaluator, "cpu"))
    with store.lock():
        session = Session(setup, store, evaluator, "cpu", StopRequest(), quiet=True)
        progress = SearchProgress(max_trials=trials, quiet=True)
        session.search(limits_of(loaded), progress)
        view = reader.view(store)
        winner = session.conclusion(progress).choose(session.finalists())
    candidate = session.workbench.candidate(winner.recipe)
    heldout = evaluator.evaluate(candidate, heldout_fidelity(setup, evaluator), split="heldout")
    searched = evaluator.evaluate(candidate, evaluator.max_fidelity)
    return {
        "seed": seed,
        "optimizer": optimizer,
        "heldout": 1.0 - scalar_cost(setup.objectives, heldout),
        "search": 1.0 - scalar_cost(setup.objectives, searched),
        "documents": view.trials[-1].documents,
        "seconds": view.active_seconds,
    }


def front_once(seed: int, optimizer: str, trials: int, config: Path, work: Path) -> dict[str, Any]:
    """One multi-objective search with its conclusion: the costs of the front's members."""
    view = run(load(seed, optimizer, trials, config, work), quiet=True)
    assert view.final is not None
    assert view.final.front is not None
    front = view.final.front

    def costs(scores: Sequence[TaskScore]) -> list[float]:
        return list(objective_costs(view.objectives, scores))

    return {
        "seed": seed,
        "optimizer": optimizer,
        "members": [[costs(m.search_scores), costs(m.row.scores)] for m in front.members],
        "reference": list(front.reference),
        "hypervolume": front.hypervolume,
        "baselines": front.baseline_hypervolume,
        "documents": view.trials[-1].documents,
        "seconds": view.active_seconds,
    }


def cut_to_equal_size(pair: Sequence[dict[str, Any]]) -> None:
    """Gives two results of one seed the held-out hypervolume of equally many members."""
    size = min(len(item["members"]) for item in pair)
    for item in pair:
        searched = [member[0] for member in item["members"]]
        kept = largest_subset(searched, size, item["reference"])
        opened = [item["members"][place][1] for place in kept]
        item["heldout"] = hypervolume_share(opened, item["reference"])
        item["size"] = size


def in_process(
    seed: int, optimizer: str, options: argparse.Namespace, work: Path
) -> dict[str, Any]:
    result = work / f"result_{optimizer}_{seed}.json"
    if not result.exists():
        command = [sys.executable, __file__, "--one", str(seed), optimizer, "--work", str(work)]
        command += ["--trials", str(options.trials), "--config", str(options.config)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, env=environment)
    found: dict[str, Any] = json.loads(result.read_text("utf-8"))
    print(found, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=132)
    parser.add_argument("--config", type=Path, default=ROOT / "exp_config/config_lfs.yaml")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--one", nargs=2, metavar=("SEED", "OPTIMIZER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="smac-random-"))
    work.mkdir(parents=True, exist_ok=True)
    if options.one:
        seed, optimizer = int(options.one[0]), options.one[1]
        multi = is_multi_objective(load_config(options.config))
        once = front_once if multi else search_once
        found = once(seed, optimizer, options.trials, options.config, work)
        (work / f"result_{optimizer}_{seed}.json").write_text(json.dumps(found), "utf-8")
        return
    jobs = [(seed, optimizer) for seed in range(options.seeds) for optimizer in OPTIMIZERS]
    with ThreadPoolExecutor(options.parallel) as pool:
        found = list(pool.map(lambda job: in_process(*job, options, work), jobs))
    summarise(found, options)


def summarise(found: list[dict[str, Any]], options: argparse.Namespace) -> None:
    by = {(item["seed"], item["optimizer"]): item for item in found}
    seeds = sorted({item["seed"] for item in found})
    fronts = "members" in found[0]
    if fronts:
        for seed in seeds:
            cut_to_equal_size([by[seed, name] for name in OPTIMIZERS])
    differences = [by[s, "smac"]["heldout"] - by[s, "random"]["heldout"] for s in seeds]
    test = signed_rank(differences)
    rows = [
        [
            seed,
            *(f"{100 * by[seed, name]['heldout']:.2f}" for name in OPTIMIZERS),
            f"{100 * (by[seed, 'smac']['heldout'] - by[seed, 'random']['heldout']):+.2f}",
            *(by[seed, name]["documents"] for name in OPTIMIZERS),
            *((by[seed, "smac"]["size"], *_baselines(by, seed)) if fronts else ()),
        ]
        for seed in seeds
    ]
    lines = heading(
        f"SMAC against random search, {len(seeds)} seeds, {options.trials} trials each",
        "SMAC better by about a point.",
    )
    columns = ["seed", "SMAC", "random", "difference", "documents SMAC", "documents random"]
    columns += ["size", "whole SMAC front", "baselines"] if fronts else []
    lines += table(columns, rows)
    if fronts:
        ahead = [by[s, "smac"]["hypervolume"] - by[s, "smac"]["baselines"] for s in seeds]
        lines += [
            "",
            "Baselines: the front of all sources, base, uniform average and a sweep of single "
            "scales, cut to the size of SMAC's front (or the other way round). SMAC's front minus "
            f"theirs: {spread([100 * value for value in ahead])}, above 0 in "
            f"{sum(value > 0 for value in ahead)} of {len(seeds)}.",
        ]
    what = "hypervolume, percent of the box" if fronts else "mean, points"
    lines += [
        "",
        f"Held-out {what}. SMAC {spread([100 * by[s, 'smac']['heldout'] for s in seeds])}, "
        f"random {spread([100 * by[s, 'random']['heldout'] for s in seeds])}.",
        "",
        f"SMAC minus random: Hodges-Lehmann {100 * test.estimate:+.2f} points, 95 % interval "
        f"{100 * test.low:+.2f} to {100 * test.high:+.2f}; one-sided exact Wilcoxon p = "
        f"{test.p_value:.2g}; SMAC ahead in {sum(d > 0 for d in differences)} of {len(seeds)}.",
    ]
    keep("front_against_random" if fronts else "smac_against_random", lines)


def _baselines(by: dict[tuple[int, str], dict[str, Any]], seed: int) -> list[str]:
    return [f"{100 * by[seed, 'smac'][key]:.2f}" for key in ("hypervolume", "baselines")]


if __name__ == "__main__":
    main()
