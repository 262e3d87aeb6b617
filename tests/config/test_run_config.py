from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from auto_merge.config import differing_keys, load_config, metrics
from auto_merge.config.loading import load_resolved
from auto_merge.errors import ConfigError
from auto_merge.trial import Objective

Write = Callable[..., str]


def test_objectives(write: Write) -> None:
    config = load_config(write(), ["evaluation.tasks.1.weight=3"])
    assert config.objectives() == (
        Objective("mmlu", "acc,none", "maximize", (0.0, 1.0), 1.0),
        Objective("mbpp", "pass_at_1,none", "maximize", (0.0, 1.0), 3.0),
    )


@pytest.mark.parametrize(
    ("metric", "direction", "bounds"),
    [
        ("acc_norm,none", "maximize", (0.0, 1.0)),
        ("exact_match,custom-strict-match", "maximize", (0.0, 1.0)),
        ("f1,none", "maximize", (0.0, 1.0)),
        ("pass@10,n=10", "maximize", (0.0, 1.0)),
        ("bleu,none", "maximize", (0.0, 100.0)),
        ("mcc,none", "maximize", (-1.0, 1.0)),
        ("brier_score,none", "minimize", (0.0, 2.0)),
    ],
)
def test_known_metrics(
    write: Write, metric: str, direction: str, bounds: tuple[float, float]
) -> None:
    (objective, _) = load_config(write("metric: acc,none", f"metric: {metric}")).objectives()
    assert (objective.direction, objective.bounds) == (direction, bounds)


def test_given_bounds_and_direction_win(write: Write) -> None:
    given_bounds = "metric: word_perplexity,none\n        bounds: [1, 50]"
    (objective, _) = load_config(write("metric: acc,none", given_bounds)).objectives()
    assert (objective.direction, objective.bounds) == ("minimize", (1.0, 50.0))
    own = "metric: mine,none\n        bounds: [0, 9]\n        direction: minimize"
    (objective, _) = load_config(write("metric: acc,none", own)).objectives()
    assert (objective.direction, objective.bounds) == ("minimize", (0.0, 9.0))


def test_every_known_metric_has_ordered_bounds() -> None:
    for metric in metrics.KNOWN.values():
        assert metric.bounds is None or metric.bounds[0] < metric.bounds[1]


def test_resolved_is_json_and_loads_again(write: Write) -> None:
    file = write("test_split: validation", "metadata: {version: 2, tags: [a, null]}")
    config = load_config(file, ["compat=published", "models.1={name: b, path: ./m}", "eta=4"])
    resolved = json.loads(json.dumps(config.resolved(), allow_nan=False))
    Path("elsewhere").mkdir()
    Path("elsewhere/again.yaml").write_text(yaml.safe_dump(resolved))
    again = load_config("elsewhere/again.yaml")
    assert again.resolved() == resolved
    restored = load_resolved(resolved, Path("run"))
    assert restored.resolved() == resolved
    assert restored.models == again.models
    assert again.identity() == config.identity()


def test_a_damaged_resolved_configuration_is_refused(write: Write) -> None:
    resolved = load_config(write()).resolved()
    resolved["global_params"]["random_seed"] = "0"
    message = r"^run/manifest.json: global_params.random_seed: must be an integer, got '0'$"
    with pytest.raises(ConfigError, match=message):
        load_resolved(resolved, Path("run"))


FREE = [
    "n_trials=3",
    "search.max_seconds=9",
    "n_workers=2",
    "evaluation.batch_size=auto",
    "evaluation.device=cpu",
    "evaluation.limit=4",
    "name=other",
    "output_path=there",
    "cache_dir=there",
]


@pytest.mark.parametrize("override", FREE)
def test_identity_ignores(write: Write, override: str) -> None:
    config = load_config(write())
    changed = load_config(write(), [override])
    assert differing_keys(config.identity(), changed.identity()) == ()
    assert changed.resolved() != config.resolved()


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("random_seed=1", "random_seed"),
        ("evaluation.torch_dtype=float32", "evaluation.torch_dtype"),
        ("evaluation.tasks.1.weight=2", "evaluation.tasks.1.weight"),
        ("evaluation.tasks.0.test_split=test", "evaluation.tasks.0.test_split"),
        ("evaluation.tasks=[{task: a, metric: 'acc,none'}]", "evaluation.tasks"),
        ("evaluation.holdout.split=test", "evaluation.holdout"),
        ("evaluation.trial_seconds=5", "evaluation.trial_seconds"),
        ("eta=4", "search.eta"),
        ("search.optimizer=random", "search.optimizer"),
        ("models.0=org/three", "models.0"),
        ("base_model.revision=v2", "revisions.org/base"),
        ("layer_granularity=5", "layer_granularity"),
        ("merging_method.slerp.slerp_t.max=0.5", "merging_method.slerp.slerp_t.max"),
        ("slerp_space=published", "slerp_space"),
    ],
)
def test_identity_names_what_differs(write: Write, override: str, key: str) -> None:
    file = write("base_model: org/base", "base_model: {path: org/base}")
    one, other = load_config(file).identity(), load_config(file, [override]).identity()
    assert differing_keys(one, other) == (key,)
    assert differing_keys(other, one) == (key,)


def test_spelling_out_defaults_is_the_same_run(write: Write) -> None:
    spelled = [
        "evaluation.tasks.0.bounds=[0, 1]",
        "evaluation.tasks.0.direction=maximize",
        "include_base=true",
    ]
    assert load_config(write(), spelled).identity() == load_config(write()).identity()


nested = st.recursive(
    st.integers(0, 2) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=6,
)


sections = st.dictionaries(st.sampled_from("abc"), nested)


@given(sections, sections)
def test_differing_keys_are_none_exactly_for_equals(
    one: dict[str, object], other: dict[str, object]
) -> None:
    assert differing_keys(one, one) == ()
    assert differing_keys(one, other) == differing_keys(other, one)
    assert (differing_keys(one, other) == ()) is (one == other)


def test_problems_do_not_stop_loading(write: Write) -> None:
    file = write("vllm: false", "vllm: true\n    include_path: gone")
    config = load_config(file, ["n_workers=4"])
    here = Path.cwd()
    assert config.problems() == (
        "x.yaml:8: global_params.evaluation.vllm: vLLM is not available in this version; "
        "set it to false",
        "--set n_workers=4: strategies.lfs.n_workers: more than one worker is not available in "
        "this version; set it to 1",
        f"x.yaml:9: global_params.evaluation.include_path: no folder {here / 'gone'}",
    )
    with pytest.raises(ConfigError, match=r"^x.yaml:8: global_params.evaluation.vllm: vLLM is not"):
        config.check_supported()
    load_config(write()).check_supported()


def test_limit_is_ignored_with_a_warning(write: Write) -> None:
    config = load_config(write("vllm: false", "limit: 10"))
    assert config.warnings == (
        "x.yaml:8: global_params.evaluation.limit: ignored, a search scores as many documents as "
        "its rungs say",
    )


def test_is_frozen_and_comparable(write: Write) -> None:
    config = load_config(write())
    assert config == load_config(write())
    with pytest.raises(AttributeError):
        config.name = "other"  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        config.search.eta = 5
