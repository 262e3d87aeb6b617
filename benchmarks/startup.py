"""How long a person waits for help, and for the news of a mistake in a configuration.

python benchmarks/startup.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, heading, keep, spread, table


def seconds(*words: str) -> float:
    """Wall seconds of one command."""
    started = time.monotonic()
    subprocess.run([sys.executable, "merge.py", *words], cwd=ROOT, capture_output=True, check=False)
    return time.monotonic() - started


def main() -> None:
    config = ROOT / "exp_config/config_lfs.yaml"
    with tempfile.TemporaryDirectory() as folder:
        spoiled = Path(folder) / "spoiled.yaml"
        text = config.read_text("utf-8").replace("random_seed", "random_sead")
        spoiled.write_text(text.replace("!include lfs.yaml", "{}"), "utf-8")
        cases = {
            "`--help`": (("--help",), "1"),
            "misspelt key": (("--config", str(spoiled)), "2"),
            "unknown model": (
                ("--config", str(config), "--set", "strategies.lfs.models.0.path=zoo:sorted"),
                "2",
            ),
            "unknown task": (
                ("--config", str(config), "--set", "evaluation.tasks.0.task=zoo_sort_of"),
                "2",
            ),
            "granularity that does not divide": (
                ("--config", str(config), "--set", "layer_granularity=3"),
                "2",
            ),
        }
        rows = [
            [name, spread([seconds(*words) for _ in range(5)]), limit]
            for name, (words, limit) in cases.items()
        ]
    lines = heading("Start-up", "help under 1 second, a mistake within 2 seconds.")
    keep("startup", lines + table(["command", "seconds, median of 5 (range)", "limit"], rows))


if __name__ == "__main__":
    main()
