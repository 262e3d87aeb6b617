"""The demo over several seeds: does the search beat what everybody has without it?

    python benchmarks/demo_seeds.py [--seeds 0 1 2 3 4] [--work FOLDER]

Every seed is one `merge.py --config exp_config/config_lfs.yaml` in a process of its own, with a
ledger of its own. A seed counts as won if the exported merge beats the best source, the uniform
average and the best single scale by at least two points on held-out documents, each paired 95 %
interval above zero.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import ROOT, heading, keep, table


def run_seed(seed: int, work: Path) -> dict[str, Any]:
    """Runs one demo; returns its report with the wall seconds."""
    command = [
        sys.executable,
        str(ROOT / "merge.py"),
        "--config",
        str(ROOT / "exp_config/config_lfs.yaml"),
        "--set",
        f"random_seed={seed}",
        "--set",
        f"cache_dir={work / f'cache_{seed}'}",
        "--output",
        str(work / f"run_{seed}"),
        "--json",
        "--quiet",
    ]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"seed {seed}: {done.stderr}")
    return {"wall_seconds": time.monotonic() - started, **json.loads(done.stdout)}


def rivals(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The three models that have to be beaten: best source, average, best single scale."""
    rows = result["heldout"]
    sources = [row for row in rows if row["label"].startswith("source: ")]
    found = {"best source": max(sources, key=lambda row: row["mean"])}
    for row in rows:
        if row["label"] == "uniform average":
            found["average"] = row
        if row["label"].startswith("best single scale"):
            found["single scale"] = row
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--work", type=Path)
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="demo-seeds-"))
    rows, won, walls, waits = [], 0, [], []
    for seed in arguments.seeds:
        report = run_seed(seed, work)
        result, status = report["result"], report["status"]
        cells = []
        good = True
        for row in rivals(result).values():
            gain = row["comparison"]
            good = good and gain["difference"] >= 0.02 and gain["low"] > 0
            cells.append(
                f"{100 * gain['difference']:+.1f} "
                f"({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f})"
            )
        won += good
        walls.append(report["wall_seconds"])
        waits.append(status["waiting_seconds"] / status["active_seconds"])
        best = result["heldout"][0]["mean"]
        rows.append(
            [
                seed,
                f"{100 * best:.1f}",
                *cells,
                status["trials"]["finished"],
                f"{100 * waits[-1]:.1f} %",
                f"{walls[-1]:.0f}",
                "yes" if good else "no",
            ]
        )
        print(rows[-1], flush=True)
    lines = heading(
        "The demo over several seeds",
        "at least two points over each rival with intervals above zero in four of five seeds; "
        "under 240 seconds; under 10 % waiting.",
    )
    lines += table(
        [
            "seed",
            "held-out mean",
            "over the best source",
            "over the average",
            "over the best single scale",
            "trials",
            "waiting",
            "wall seconds",
            "won",
        ],
        rows,
    )
    lines += [
        "",
        f"Won: {won} of {len(rows)}. Points on the mean of the skills, paired 95 % interval.",
    ]
    keep("demo_seeds", lines)


if __name__ == "__main__":
    main()
