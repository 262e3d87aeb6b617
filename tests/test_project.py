"""Documents and project files say what is true."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from auto_merge.cli import run_command
from auto_merge.config import load_config

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "search_config/README.md",
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("examples/*/README.md"),
    ]
)
COMMAND = re.compile(r"^python merge\.py (.+?)(?:\s+#.*)?$", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


def commands() -> list[tuple[Path, str]]:
    return [(page, line) for page in PAGES for line in COMMAND.findall(page.read_text("utf-8"))]


def test_there_are_commands_to_test() -> None:
    assert len(commands()) >= 4


@pytest.mark.parametrize(
    ("page", "words"), commands(), ids=lambda value: getattr(value, "name", value)
)
def test_every_documented_command_is_understood(
    page: Path, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--help` behind the words: the parser knows the command and every option on the line."""
    arguments = shlex.split(words)
    first = arguments[0]
    if not first.startswith("-"):
        options = [word for word in arguments[1:] if word.startswith("--")]
        assert run_command([first, "--help"]) == 0
    else:
        options = [word for word in arguments if word.startswith("--")]
        assert run_command(["--help"]) == 0
    text = capsys.readouterr().out
    for option in options:
        assert option in text, f"{page.name}: {option} is no option of {first}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text("utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_example_is_a_legal_configuration(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    example = next(
        block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "strategy" in block
    )
    file = tmp_path / "my_search.yaml"
    file.write_text(example, "utf-8")
    assert load_config(file).strategy == "lfs"


def test_environment_installs_the_pinned_versions() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    pip = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert "--constraint constraints.txt" in pip
    assert "--editable .[ray,dev]" in pip


def test_constraints_pin_every_dependency() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    block = project.split("dependencies = [", 1)[1].split("]", 1)[0]
    wanted = {name.lower() for name in re.findall(r'"([A-Za-z0-9_.-]+)', block)}
    pinned = {
        line.split("==")[0].lower()
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if "==" in line
    }
    assert wanted <= pinned
    assert "+" not in (ROOT / "constraints.txt").read_text("utf-8"), "a local version tag"


def test_no_path_of_one_machine() -> None:
    pattern = re.compile(r"(^|[^A-Za-z0-9_.])/(work|farm|root|home/[a-z]|tmp/[a-z])")
    folders = ("auto_merge", "exp_config", "custom_tasks", "docs", "benchmarks", "examples")
    for folder in folders:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".yaml", ".md", ".toml") and "out" not in path.parts:
                text = path.read_text("utf-8")
                assert not pattern.search(text), path


@pytest.mark.parametrize(
    "path", sorted((ROOT / "search_config").rglob("*.json")), ids=lambda path: path.stem
)
def test_stored_search_configurations_decode(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(ROOT / "exp_config/config_lfs.yaml")
    assert run_command(["recipe", str(path), "--config", config]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["recipe"] == 1
