"""Runs every shipped default configuration as a person would and reads the clock.

python benchmarks/shipped_configs.py [NAME ...]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, heading, keep, table

NAMES = (
    *("config_lfs", "config_lfs_mo", "config_dis", "config_prune"),
    *("normal_models", "normal_slices"),
)
LIMIT = 300


def run(name: str, work: Path) -> list[object]:
    command = [sys.executable, "merge.py", "--config", f"exp_config/{name}.yaml", "--json"]
    command += ["--quiet", "--output", str(work / name)]
    command += ["--set", f"cache_dir={work / f'cache_{name}'}"]
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    seconds = time.monotonic() - started
    status = json.loads(done.stdout)["status"]
    verdict = "yes" if seconds < LIMIT else "NO"
    trials = status["trials"]
    return [
        f"`{name}`",
        f"{seconds:.0f}",
        verdict,
        trials["finished"],
        trials["failed"],
        status["documents"],
        status["headline"],
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=NAMES)
    names = parser.parse_args().names
    with tempfile.TemporaryDirectory(prefix="shipped-") as work:
        rows = [run(name, Path(work)) for name in names]
    lines = heading("Every shipped configuration", f"each under {LIMIT} seconds on two cores.")
    columns = [
        "configuration",
        "wall seconds",
        "in time",
        "trials",
        "failed",
        "documents",
        "result",
    ]
    keep("shipped_configs", lines + table(columns, rows))


if __name__ == "__main__":
    main()
