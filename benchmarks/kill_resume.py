"""Kills a search twenty times at random moments and compares it with an uninterrupted one.

    python benchmarks/kill_resume.py [--kills 20] [--trials 60] [--seed 0]

Must hold: the same trials with the same scores, the same result, and one ledger row per document
and candidate, none lost and none twice.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, heading, keep, table

from auto_merge.runs import reader
from auto_merge.runs.store import RunStore


def start(name: str, options: argparse.Namespace, work: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ROOT / "merge.py")]
    command += ["--config", str(ROOT / "exp_config/config_lfs.yaml"), "--quiet"]
    for key, value in {
        "random_seed": options.seed,
        "cache_dir": work / f"cache_{name}",
        "search.max_trials": options.trials,
        "search.max_seconds": "null",
    }.items():
        command += ["--set", f"{key}={value}"]
    return subprocess.Popen(
        [*command, "--output", str(work / name)], stdout=subprocess.DEVNULL, cwd=ROOT
    )


def rows(work: Path, name: str) -> tuple[int, int]:
    """Number of score rows and of different (candidate, document) pairs."""
    database = sqlite3.connect(work / f"cache_{name}" / "ledger.sqlite")
    count = database.execute("SELECT COUNT(*) FROM scores").fetchone()[0]
    pairs = database.execute(
        "SELECT COUNT(*) FROM (SELECT DISTINCT candidate, document FROM scores)"
    ).fetchone()[0]
    database.close()
    return int(count), int(pairs)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="kill-resume-"))
    started = time.monotonic()
    if start("whole", options, work).wait():
        raise SystemExit("the uninterrupted run failed")
    length = time.monotonic() - started
    dice = random.Random(options.seed)
    killed = 0
    for _ in range(options.kills):
        process = start("broken", options, work)
        # Importing takes seconds; what follows is spread so that most kills hit the search.
        time.sleep(dice.uniform(2.0, 8.0 + length / options.kills))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
    if start("broken", options, work).wait():
        raise SystemExit("the resumed run failed")
    whole, broken = (reader.view(RunStore(work / name)) for name in ("whole", "broken"))
    facts = {
        "same trials": [row.trial for row in whole.trials] == [row.trial for row in broken.trials],
        "same scores": [row.outcome and row.outcome.scores for row in whole.trials]
        == [row.outcome and row.outcome.scores for row in broken.trials],
        "same result": whole.final == broken.final,
        "same ledger rows": rows(work, "whole") == rows(work, "broken"),
        "no document twice": len(set(rows(work, "broken"))) == 1,
    }
    lines = heading("Killed and resumed", "everything equal.")
    lines += [f"{killed} kills with SIGKILL while running, {options.trials} trials.", ""]
    lines += table(
        ["must hold", "holds"], [[name, "yes" if held else "NO"] for name, held in facts.items()]
    )
    keep("kill_resume", lines)
    if not all(facts.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
