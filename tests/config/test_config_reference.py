from __future__ import annotations

import re
from pathlib import Path

import pytest

from auto_merge.config import load_config
from auto_merge.config.reference import walk
from auto_merge.config.run_section import HeadSection, RunSection
from auto_merge.config.schema import SCHEMA_FILE, schema, schema_text, write_schema
from auto_merge.config.search import PUBLISHED_NAMES
from auto_merge.config.strategies import SECTIONS

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(
    file
    for pattern in ("config_*.yaml", "normal_*.yaml")
    for file in (ROOT / "exp_config").rglob(pattern)
)
FRAGMENTS = sorted(set((ROOT / "exp_config").rglob("*.yaml")) - set(SHIPPED))
MODELS = (HeadSection, RunSection, *SECTIONS.values())
FIELDS = [(name, info) for model in MODELS for name, info in walk(model)]


def test_every_key_says_what_it_means() -> None:
    for name, info in FIELDS:
        assert info.description, name
        assert info.description.rstrip().endswith((".", "`")), name


def table_rows() -> dict[str, str]:
    text = (ROOT / "docs" / "config.md").read_text()
    found: dict[str, str] = {}
    for row, key in re.findall(r"^(\| `([^`]+)` .*)$", text, re.MULTILINE):
        found[key] = f"{found.get(key, '')}{row}\n"  # strategies share some names
    return found


def test_documentation_lists_every_key_with_its_meaning() -> None:
    rows = table_rows()
    for name, info in FIELDS:
        key = name.replace("base_model.", "models.N.")
        assert " ".join((info.description or "").split()) in rows[key], f"docs/config.md: {key}"
    for published, own in PUBLISHED_NAMES.items():
        assert f"`{published}`" in rows[f"search.{own}"]


def test_documentation_lists_no_other_key() -> None:
    extra = set(table_rows()) - {name for name, _ in FIELDS} - {"global_params", "strategies"}
    assert extra == set()


def test_documentation_shows_the_defaults() -> None:
    rows = table_rows()
    for name, info in FIELDS:
        if isinstance(info.default, (bool, int, float, str)):
            shown = str(info.default).lower() if isinstance(info.default, bool) else info.default
            assert f"| `{shown}` |" in rows[name], name


def test_documentation_names_every_strategy() -> None:
    text = (ROOT / "docs" / "config.md").read_text()
    for strategy in SECTIONS:
        assert f"`{strategy}`" in text


def test_stored_schema_is_current(tmp_path: Path) -> None:
    again = "run auto_merge.config.schema.write_schema()"
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), again
    assert write_schema(tmp_path / "s.json").read_text(encoding="utf-8") == schema_text()


def test_schema_has_every_key_of_the_file() -> None:
    properties = schema()["properties"]
    assert set(properties) == {*HeadSection.model_fields, "global_params", "strategies"}
    for name, model in SECTIONS.items():
        section = properties["strategies"]["properties"][name]["anyOf"][1]
        expected = {*RunSection.model_fields, *PUBLISHED_NAMES, *model.model_fields}
        assert set(section["properties"]) == expected
        assert section["additionalProperties"] is False


def test_configurations_are_shipped() -> None:
    assert ROOT / "exp_config" / "config_lfs.yaml" in SHIPPED
    assert ROOT / "exp_config" / "paper" / "config_lfs.yaml" in SHIPPED


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: str(file.relative_to(ROOT)))
def test_shipped_configurations_load(file: Path) -> None:
    config = load_config(file)
    paper = "paper" in file.parts
    assert config.warnings == ()
    assert bool(config.problems()) is paper
    assert config.compat == ("published" if paper else None)
    first, *_ = file.read_text().splitlines()
    link = first.removeprefix("# yaml-language-server: $schema=")
    assert (file.parent / link).resolve() == SCHEMA_FILE.resolve()


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: str(file.relative_to(ROOT)))
def test_shipped_configurations_fit_the_schema(file: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(schema())
    config = load_config(file)
    assert config.merged is not None
    validator.validate(config.merged.tree.data)
    validator.validate(config.resolved())
    wrong = {**config.resolved(), "startegy": "lfs"}
    assert not validator.is_valid(wrong)


def test_fragments_are_included_by_a_configuration() -> None:
    read = set()
    for file in SHIPPED:
        merged = load_config(file).merged
        assert merged is not None
        read |= {Path(place.file).resolve() for place in merged.tree.places.values()}
    assert {file.resolve() for file in FRAGMENTS} <= read


def test_the_default_uses_embedded_models_and_tasks() -> None:
    config = load_config(ROOT / "exp_config" / "config_lfs.yaml")
    (folder,) = config.include_paths
    for model in (*config.models, config.base_model):
        assert model is not None
        assert (ROOT / "auto_merge" / "zoo" / "models" / model.location[len("zoo:") :]).is_dir()
    for task in config.evaluation.tasks:
        assert (folder / f"{task.task}.yaml").is_file()
    assert config.search.min_budget * len(config.evaluation.tasks) >= 250
