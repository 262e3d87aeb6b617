from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from auto_merge.config import load_config
from auto_merge.config.strategies import LfsSection

Write = Callable[..., str]


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("global_params.random_seed=3", ("random_seed",), 3),
        ("random_seed=3", ("random_seed",), 3),
        ("evaluation.batch_size=auto", ("evaluation", "batch_size"), "auto"),
        ("global_params.evaluation.batch_size=4", ("evaluation", "batch_size"), 4),
        ("evaluation.holdout.split=test", ("evaluation", "holdout", "split"), "test"),
        ("evaluation.holdout=null", ("evaluation", "holdout"), None),
        ("evaluation.trial_seconds=1e3", ("evaluation", "trial_seconds"), 1000.0),
        ("evaluation.system_instruction='a: b'", ("evaluation", "system_instruction"), "a: b"),
        ("n_trials=5", ("search", "max_trials"), 5),
        ("search.max_trials=5", ("search", "max_trials"), 5),
        ("strategies.lfs.n_trials=5", ("search", "max_trials"), 5),
        ("strategies.lfs.search.max_trials=5", ("search", "max_trials"), 5),
        ("global_params.search.max_trials=5", ("search", "max_trials"), 5),
        ("search.eta=4", ("search", "eta"), 4),
        ("layer_granularity=2", ("settings", "layer_granularity"), 2),
        ("strategies.lfs.filters=[a, b]", ("settings", "filters"), ("a", "b")),
        ("merging_method.slerp={}", ("settings", "merging_method", "slerp"), {}),
        ("merging_method.ties=null", ("settings", "merging_method", "ties"), {}),
        ("models.1=zoo:sort", ("models", 1, "location"), "zoo:sort"),
        ("base_model=", ("base_model",), None),
        ("name=fast", ("name",), "fast"),
        ("output_path=a=b", ("output_path",), Path("a=b")),
    ],
)  # fmt: skip
def test_one_override(
    write: Write, override: str, path: tuple[str | int, ...], value: object
) -> None:
    found: object = load_config(write(), [override])
    for key in path:
        is_item = isinstance(found, (dict, tuple))
        found = found[key] if is_item else getattr(found, str(key))  # type: ignore[index]
    assert found == value


def test_inside_of_entries_and_ranges(write: Write) -> None:
    file = write("- org/two", "- {name: two, path: org/two}")
    config = load_config(file, ["models.1.path=zoo:sort", "merging_method.slerp.slerp_t.max=0.5"])
    assert (config.models[1].name, config.models[1].location) == ("two", "zoo:sort")
    settings = config.settings
    assert isinstance(settings, LfsSection)
    assert settings.merging_method["slerp"]["slerp_t"].max == 0.5


def test_only_the_named_setting_changes(write: Write) -> None:
    before = load_config(write()).resolved()
    after = load_config(write(), ["evaluation.tasks.0.weight=2"]).resolved()
    assert before["global_params"]["evaluation"]["tasks"][0].pop("weight") == 1.0
    assert after["global_params"]["evaluation"]["tasks"][0].pop("weight") == 2.0
    assert before == after


def test_later_overrides_win_under_either_name(write: Write) -> None:
    assert load_config(write(), ["n_trials=5", "search.max_trials=7"]).search.max_trials == 7
    assert load_config(write(), ["search.max_trials=7", "n_trials=5"]).search.max_trials == 5


def test_relative_paths_of_overrides_start_at_the_working_directory(write: Write) -> None:
    Path("sub/model").mkdir(parents=True)
    Path("model").mkdir()
    write()
    Path("x.yaml").rename("sub/x.yaml")
    Path("lfs.yaml").rename("sub/lfs.yaml")
    config = load_config("sub/x.yaml", ["models.0=model"])
    assert config.models[0].location == str(Path.cwd() / "model")
