"""Rooms import downwards only, one vendor has one module, importing the package is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "auto_merge"

# Room or module -> floor. Rooms on one floor do not import each other.
FLOORS = {
    "errors": 0,
    "registry": 0.5,
    "recipe": 1,
    "config": 1,
    "trial": 1,
    "statistics": 1,
    "seams": 1.5,
    "methods": 2,
    "checkpoints": 2,
    "zoo": 2,
    "strategies": 3,
    "optimizers": 3,
    "merging": 3,
    "evaluation": 3,
    "runs": 4,
    "reports": 5,
    "search": 6,
    "cli": 7,
    "__main__": 8,
    "__init__": 0,
}
# The recipe and config rooms may use the values they are made of.
SAME_FLOOR = {("config", "trial"), ("config", "recipe"), ("statistics", "trial")}
VENDORS = {
    "smac": "auto_merge/optimizers/smac_",
    "lm_eval": "auto_merge/evaluation/lm_harness",
    "ray": "auto_merge/search/ray_",
}
HEAVY = ("torch", "transformers", "smac", "lm_eval", "ray", "ConfigSpace", "matplotlib", "scipy")


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else "__init__"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    here = "cli" if here.startswith("cli") else here
    for name in imports(path):
        if not name.startswith("auto_merge."):
            continue
        there = room(name)
        there = "cli" if there.startswith("cli") else there
        if there in ("__version__", here):
            continue
        assert there in FLOORS, f"{there} has no floor"
        allowed = FLOORS[there] < FLOORS[here] or (here, there) in SAME_FLOOR
        assert allowed, f"{path.name} ({here}) imports {name} ({there})"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_one_vendor_one_module(path: Path) -> None:
    place = path.relative_to(PACKAGE.parent).as_posix()
    for name in imports(path):
        vendor = name.split(".")[0]
        if vendor in VENDORS:
            assert place.startswith(VENDORS[vendor]), f"{place} imports {vendor}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_stay_readable(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 450


def test_importing_light_modules_loads_nothing_heavy() -> None:
    code = (
        "import sys, auto_merge, auto_merge.cli, auto_merge.methods, auto_merge.recipe.files, "
        "auto_merge.config.loading, auto_merge.zoo, auto_merge.runs.store\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
