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
from searches import searched

from auto_merge.config import load_config
from auto_merge.config.run_config import RunConfig
from auto_merge.recipe.model import Recipe
from auto_merge.search.baselines import SINGLE_SCALES
from auto_merge.search.run import Session
from auto_merge.search.scoring import heldout_fidelity
from auto_merge.search.spaces import is_multi_objective
from auto_merge.statistics import hypervolume_share, largest_subset, signed_rank
from auto_merge.statistics.pareto import front
from auto_merge.trial import objective_costs, scalar_cost

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
    with searched(load(seed, optimizer, trials, config, work)) as (session, progress, view):
        winner = session.conclusion(progress).choose(session.finalists())
        setup, evaluator = session.setup, session.evaluator
        candidate = session.workbench.candidate(winner.recipe)
        heldout = evaluator.evaluate(candidate, heldout_fidelity(setup, evaluator), split="heldout")
        everything = evaluator.evaluate(candidate, evaluator.max_fidelity)
        return {
            "seed": seed,
            "optimizer": optimizer,
            "heldout": 1.0 - scalar_cost(setup.objectives, heldout),
            "search": 1.0 - scalar_cost(setup.objectives, everything),
            "documents": view.trials[-1].documents,
            "seconds": view.active_seconds,
        }


def front_once(seed: int, optimizer: str, trials: int, config: Path, work: Path) -> dict[str, Any]:
    """One multi-objective search: costs of the front's members on all documents of both kinds."""
    with searched(load(seed, optimizer, trials, config, work)) as (session, progress, view):
        members = session.front_conclusion(progress).choose_front(session.finalists())
        costs = both_costs(session, [member.recipe for member in members])
        return {
            "seed": seed,
            "optimizer": optimizer,
            "members": costs,
            "reference": list(view.reference or ()),
            "documents": view.trials[-1].documents,
            "seconds": view.active_seconds,
        }


def baselines_once(trials: int, config: Path, work: Path) -> dict[str, Any]:
    """Costs of sources, base, average and a sweep of single scales; the same for every seed."""
    with searched(load(0, "random", 1, config, work / "baselines")) as (session, _, _):
        cast = session.setup.cast
        recipes = [cast.single_model(model) for model in (*cast.models, cast.base) if model]
        recipes += [cast.uniform_average(), *map(cast.single_scale, SINGLE_SCALES)]
        return {"members": both_costs(session, recipes)}


def both_costs(session: Session, recipes: Sequence[Recipe]) -> list[list[list[float]]]:
    """Costs per objective on all search documents and on all held-out documents."""
    objectives, evaluator = session.setup.objectives, session.evaluator
    heldout = heldout_fidelity(session.setup, evaluator)
    found = []
    for recipe in recipes:
        candidate = session.workbench.candidate(recipe)
        kinds = [
            evaluator.evaluate(candidate, evaluator.max_fidelity),
            evaluator.evaluate(candidate, heldout, split="heldout"),
        ]
        found.append([list(objective_costs(objectives, scores)) for scores in kinds])
    return found


def value(item: dict[str, Any], size: int, reference: Sequence[float]) -> float:
    """Held-out hypervolume of the ``size`` members that cover most on search documents."""
    everyone = [member[0] for member in item["members"]]
    undominated = front(everyone)
    kept = largest_subset([everyone[place] for place in undominated], size, reference)
    opened = [item["members"][undominated[place]][1] for place in kept]
    return hypervolume_share(opened, reference)


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
        if optimizer == "baselines":
            found = baselines_once(options.trials, options.config, work)
        else:
            found = once(seed, optimizer, options.trials, options.config, work)
        (work / f"result_{optimizer}_{seed}.json").write_text(json.dumps(found), "utf-8")
        return
    jobs = [(seed, optimizer) for seed in range(options.seeds) for optimizer in OPTIMIZERS]
    with ThreadPoolExecutor(options.parallel) as pool:
        found = list(pool.map(lambda job: in_process(*job, options, work), jobs))
    baselines = None
    if "members" in found[0]:
        baselines = in_process(0, "baselines", options, work)
    summarise(found, baselines, options)


def summarise(
    found: list[dict[str, Any]], baselines: dict[str, Any] | None, options: argparse.Namespace
) -> None:
    by = {(item["seed"], item["optimizer"]): item for item in found}
    seeds = sorted({item["seed"] for item in found})
    if baselines is not None:
        for seed in seeds:
            compare_fronts([by[seed, name] for name in OPTIMIZERS], baselines)
    differences = [by[s, "smac"]["heldout"] - by[s, "random"]["heldout"] for s in seeds]
    test = signed_rank(differences)
    rows = [
        [
            seed,
            *(f"{100 * by[seed, name]['heldout']:.2f}" for name in OPTIMIZERS),
            f"{100 * (by[seed, 'smac']['heldout'] - by[seed, 'random']['heldout']):+.2f}",
            *(by[seed, name]["documents"] for name in OPTIMIZERS),
            *(by[seed, "smac"]["against"] if baselines else ()),
        ]
        for seed in seeds
    ]
    lines = heading(
        f"SMAC against random search, {len(seeds)} seeds, {options.trials} trials each",
        "SMAC better by about a point.",
    )
    columns = ["seed", "SMAC", "random", "difference", "documents SMAC", "documents random"]
    columns += ["size", "baselines' size", "SMAC", "baselines"] if baselines else []
    lines += table(columns, rows)
    if baselines is not None:
        ahead = [100 * by[s, "smac"]["ahead"] for s in seeds]
        lines += [
            "",
            "Baselines: the front of all sources, base, uniform average and a sweep of single "
            "scales; it and SMAC's front are cut to equal size. SMAC's front minus theirs: "
            f"{spread(ahead)}, above 0 in {sum(item > 0 for item in ahead)} of {len(seeds)}.",
        ]
    what = "hypervolume, percent of the box" if baselines else "mean, points"
    lines += [
        "",
        f"Held-out {what}. SMAC {spread([100 * by[s, 'smac']['heldout'] for s in seeds])}, "
        f"random {spread([100 * by[s, 'random']['heldout'] for s in seeds])}.",
        "",
        f"SMAC minus random: Hodges-Lehmann {100 * test.estimate:+.2f} points, 95 % interval "
        f"{100 * test.low:+.2f} to {100 * test.high:+.2f}; one-sided exact Wilcoxon p = "
        f"{test.p_value:.2g}; SMAC ahead in {sum(d > 0 for d in differences)} of {len(seeds)}.",
    ]
    keep("front_against_random" if baselines else "smac_against_random", lines)


def compare_fronts(pair: Sequence[dict[str, Any]], baselines: dict[str, Any]) -> None:
    """Values both fronts of a seed at equal size, and SMAC's against the baselines."""
    size = min(len(item["members"]) for item in pair)
    reference = pair[0]["reference"]
    for item in pair:
        item["heldout"] = value(item, size, reference)
    smac = pair[0]
    known = len(front([member[0] for member in baselines["members"]]))
    equal = min(len(smac["members"]), known)
    values = [value(item, equal, reference) for item in (smac, baselines)]
    smac["against"] = [size, equal, *(f"{100 * found:.2f}" for found in values)]
    smac["ahead"] = values[0] - values[1]


if __name__ == "__main__":
    main()
