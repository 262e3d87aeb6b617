"""What the benchmark scripts share: machine line, tables, result files."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # measure this checkout, installed or not
RESULTS = ROOT / "benchmarks/results"
_PACKAGES = ("torch", "transformers", "lm-eval", "smac", "ConfigSpace", "numpy")


def heading(title: str, expected: str) -> list[str]:
    """Title, command, versions, machine and what was expected beforehand, as Markdown lines."""
    words = list(sys.argv[1:])
    if "--work" in words:  # a folder of one machine
        place = words.index("--work")
        del words[place : place + 2]
    command = " ".join(["python", os.path.relpath(sys.argv[0], ROOT), *words])
    from auto_merge import __version__

    versions = f"auto_merge {__version__}, "
    versions += ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    return [
        f"# {title}",
        "",
        f"Command: `{command}` ({date.today().isoformat()})",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; "
        f"{versions}",
        "",
        f"Expected beforehand: {expected}",
        "",
    ]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "?"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Median with minimum and maximum."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def keep(name: str, lines: Sequence[str]) -> None:
    """Prints the lines and writes them to ``benchmarks/results/NAME.md``."""
    text = "\n".join(lines) + "\n"
    print(text)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, "utf-8")
