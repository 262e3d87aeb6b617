from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from auto_merge.config import Model, load_config
from auto_merge.config.models import resolve_location
from auto_merge.config.strategies import LfsSection
from auto_merge.errors import ConfigError

Write = Callable[..., str]


def lfs(config: object) -> LfsSection:
    settings = getattr(config, "settings")  # noqa: B009
    assert isinstance(settings, LfsSection)
    return settings


def test_published_files_load_unchanged(write: Write) -> None:
    config = load_config(write())
    assert (config.name, config.strategy, config.random_seed) == ("x", "lfs", 0)
    assert config.output_path == Path("runs/x")
    assert config.evaluation.batch_size == 16
    assert config.evaluation.torch_dtype == "float16"
    assert config.evaluation.device == "cuda"
    assert config.evaluation.tasks[0].overrides == {"test_split": "validation"}
    assert config.search.max_trials == 500
    assert (config.search.min_budget, config.search.max_budget, config.search.eta) == (100, 1000, 3)
    assert config.base_model == Model("org/base", "org/base", "org/base")
    assert [model.name for model in config.models] == ["org/one", "org/two"]
    assert lfs(config).layer_granularity == 10
    assert lfs(config).filters == ("self_attn", "mlp")
    assert lfs(config).ranges == {
        "task_arithmetic": {"scaling_coefficient": (0.0, 1.0)},
        "slerp": {"slerp_t": (0.0, 1.0)},
    }
    assert config.problems() == ()
    assert config.warnings == ()


def test_sections_may_stand_in_one_file(write: Write) -> None:
    expected = load_config(write()).resolved()
    section = yaml.safe_load(Path("lfs.yaml").read_text())
    data = yaml.safe_load(Path("x.yaml").read_text().replace("!include lfs.yaml", "null"))
    data["strategies"]["lfs"] = section
    Path("x.yaml").write_text(yaml.safe_dump(data))
    assert load_config("x.yaml").resolved() == expected


def test_section_wins_over_global_params(write: Write) -> None:
    assert load_config(write("eta: 3\n", "random_seed: 7\n")).random_seed == 7


def test_replaced_sections_warn(write: Write) -> None:
    config = load_config(
        write("eta: 3\n", 'evaluation: {tasks: [{task: wsc, metric: "acc,none"}]}\n')
    )
    assert [entry.task for entry in config.evaluation.tasks] == ["wsc"]
    assert config.evaluation.batch_size == "auto"
    assert config.warnings == (
        "lfs.yaml:1: strategies.lfs.evaluation: replaces global_params.evaluation entirely",
    )


def test_own_search_section(write: Write) -> None:
    file = write("n_trials: 500\n", "search: {max_seconds: 60, optimizer: random, eta: 2}\n")
    with pytest.raises(ConfigError, match=r"^lfs.yaml:1: strategies.lfs.eta: the same setting as"):
        load_config(file)
    Path("lfs.yaml").write_text(Path("lfs.yaml").read_text().replace("eta: 3\n", ""))
    search = load_config(file).search
    assert (search.max_trials, search.max_seconds, search.eta) == (None, 60.0, 2)
    assert search.optimizer == "random"
    assert search.max_budget == 1000


def test_trials_zero_keeps_both_numbers(write: Write) -> None:
    config = load_config(write("n_trials: 500", "n_trials: 0"), ["total_budget=5000"])
    assert (config.search.max_trials, config.search.total_budget) == (0, 5000)


@pytest.mark.parametrize(
    ("compat", "expected"),
    [(None, ("full", True, True)), ("published", ("published", False, False))],
)
def test_compat_selects_defaults(
    write: Write, compat: str | None, expected: tuple[str, bool, bool]
) -> None:
    overrides = [] if compat is None else [f"compat={compat}"]
    settings = lfs(load_config(write(), overrides))
    chosen = (settings.slerp_space, settings.per_source_weights, settings.include_base)
    assert chosen == expected


def test_explicit_keys_beat_compat(write: Write) -> None:
    settings = lfs(load_config(write(), ["compat=published", "include_base=true"]))
    assert settings.include_base is True
    assert settings.slerp_space == "published"


def test_empty_paths_mean_the_default(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert load_config(write()).cache_dir == Path("/home/someone/.cache/auto_merge")
    monkeypatch.setenv("AUTO_MERGE_CACHE", "/cache")
    assert load_config(write()).cache_dir == Path("/cache")
    config = load_config(write(), ["cache_dir=mine", "output_path=out/here", "name=run.1"])
    assert config.cache_dir == Path.cwd() / "mine"
    assert config.output_path == Path("out/here")
    assert config.name == "run.1"


@pytest.mark.parametrize(("stem", "name"), [("my config (2)", "my-config-2-"), ("--", "run")])
def test_name_is_a_folder_name(write: Write, stem: str, name: str) -> None:
    Path(write()).rename(f"{stem}.yaml")
    assert load_config(f"{stem}.yaml").name == name


def test_inputs_are_relative_to_their_file_then_to_the_working_directory(write: Write) -> None:
    Path("sub/near").mkdir(parents=True)
    Path("far").mkdir()
    Path("near").mkdir()
    entries = ["near", "{path: far, name: b}", "./gone", "zoo:sort", "{path: org/x, revision: v1}"]
    write("  - org/one\n  - org/two\n", "".join(f"  - {entry}\n" for entry in entries))
    Path("lfs.yaml").rename("sub/lfs.yaml")
    text = Path("x.yaml").read_text().replace("!include lfs.yaml", "!include sub/lfs.yaml")
    Path("x.yaml").write_text(text.replace("    vllm", "    include_path: [far, sub]\n    vllm"))
    config = load_config("x.yaml")
    here = Path.cwd()
    assert config.models == (
        Model("near", "near", str(here / "sub/near")),
        Model("b", "far", str(here / "far")),
        Model("./gone", "./gone", str(here / "sub/gone")),
        Model("zoo:sort", "zoo:sort", "zoo:sort"),
        Model("org/x", "org/x", "org/x", "v1"),
    )
    assert config.include_paths == (here / "far", here / "sub")


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("zoo:a/b", "zoo:a/b"),
        ("org/name", "org/name"),
        ("gpt2", "gpt2"),
        ("/models/x", "/models/x"),
        ("../up", "{parent}/up"),
        ("a/b/c", "{here}/a/b/c"),
        ("~/x", "/home/someone/x"),
        ("here", "{here}/here"),
    ],
)
def test_locations(path: str, location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    Path("here").mkdir()
    expected = location.format(here=Path.cwd(), parent=Path.cwd().parent)
    assert resolve_location(path) == expected


def test_loading_is_fast(write: Write) -> None:
    file = write()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        load_config(file)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.2


def test_loading_imports_nothing_heavy(write: Write) -> None:
    file = write()
    code = (
        "import sys, json; from auto_merge.config import load_config; load_config(sys.argv[1]); "
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    root = Path(__file__).parents[2]
    run = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r}); {code}", file]
    loaded = json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
    heavy = {"torch", "transformers", "ConfigSpace", "smac", "lm_eval", "numpy", "ray"}
    assert heavy.isdisjoint(loaded)
