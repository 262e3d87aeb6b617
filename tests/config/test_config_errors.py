# ruff: noqa: E501 (one mistake and its message per line)
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from auto_merge.config import load_config
from auto_merge.errors import ConfigError

Write = Callable[..., str]


def refused(file: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(file, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


IN_FILES = [
    # top of the file
    ("strategy: lfs\n", "", "x.yaml:1: strategy: required key is missing; known: lfs, lfs_multiobj, dis, prune, normal_models, normal_slices"),
    ("strategy: lfs", "strategy: lsf", "x.yaml:1: strategy: unknown strategy 'lsf'; did you mean 'lfs'?"),
    ("strategy: lfs", "strategy: prun", "x.yaml:1: strategy: unknown strategy 'prun'; did you mean 'prune'?"),
    ("strategy: lfs", "strategy: [lfs]", "x.yaml:1: strategy: must be the name of a strategy, got a list"),
    ("strategy: lfs", "strategy: dis", "x.yaml:18: strategies: no section 'dis', only lfs"),
    ("  lfs: !inc", "  lsf: !inc", "x.yaml:19: strategies.lsf: unknown strategy 'lsf'; did you mean 'lfs'?"),
    ("strategies:", "strategy_: 1\nstrategies:", "x.yaml:18: strategy_: unknown key; did you mean 'strategy'?"),
    ("global_params:", "name: 3\nglobal_params:", "x.yaml:2: name: must be text, got 3"),
    ("global_params:", "name: ../up\nglobal_params:", "x.yaml:2: name: must start with a letter or digit and hold "),
    ("global_params:", "compat: true\nglobal_params:", "x.yaml:2: compat: must be 'published', got true"),
    ("!include lfs.yaml", "3", "x.yaml:19: strategies.lfs: must be a section of keys, got 3"),
    # all strategies
    ("random_seed: 0", "random_sed: 0", "x.yaml:3: global_params.random_sed: unknown key; did you mean 'random_seed'?"),
    ("random_seed: 0", "random_seed: -1", "x.yaml:3: global_params.random_seed: must be at least 0, got -1"),
    ("random_seed: 0", "random_seed: true", "x.yaml:3: global_params.random_seed: must be an integer, got true"),
    ("random_seed: 0", "batch_size: 4", "x.yaml:3: global_params.batch_size: unknown key here; did you mean 'evaluation.batch_size'?"),
    ('cache_dir: ""', "cache_dir: 5", "x.yaml:4: global_params.cache_dir: must be text, got 5"),
    # evaluation
    ("batch_size: 16", "batch_sizes: 16", "x.yaml:10: global_params.evaluation.batch_sizes: unknown key; did you mean 'batch_size'?"),
    ("batch_size: 16", "batch_size: 0", "x.yaml:10: global_params.evaluation.batch_size: must be 'auto' or an integer of at least 1, got 0"),
    ("batch_size: 16", "batch_size: '16'", "x.yaml:10: global_params.evaluation.batch_size: must be 'auto' or an integer of at least 1, got '16'"),
    ("float16", "flot16", "x.yaml:11: global_params.evaluation.torch_dtype: must be 'float32', 'float16', 'bfloat16' or 'auto', got 'flot16'; did you mean 'float16'?"),
    ("device: cuda", "device: tpu", "x.yaml:12: global_params.evaluation.device: must be auto, cpu, mps, cuda or cuda:N, got 'tpu'"),
    ("vllm: false", "vllm: maybe", "x.yaml:8: global_params.evaluation.vllm: must be true or false, got 'maybe'"),
    ("vllm: false", "trial_seconds: 0", "x.yaml:8: global_params.evaluation.trial_seconds: must be above 0, got 0"),
    ("vllm: false", "num_fewshot: -2", "x.yaml:8: global_params.evaluation.num_fewshot: must be at least 0, got -2"),
    ("vllm: false", "holdout: 3", "x.yaml:8: global_params.evaluation.holdout: must be a section of keys, got 3"),
    ("vllm: false", "holdout: {splt: a}", "x.yaml:8: global_params.evaluation.holdout.splt: unknown key; did you mean 'split'?"),
    ("vllm: false", "holdout: {}", "x.yaml:8: global_params.evaluation.holdout.split: required key is missing"),
    ("vllm: false", "holdout: {split: ''}", "x.yaml:8: global_params.evaluation.holdout.split: must not be empty, got ''"),
    ("vllm: false", "fewshot_as_multiturn: true", "x.yaml:8: global_params.evaluation.fewshot_as_multiturn: needs apply_chat_template: true"),
    ("vllm: false", "include_path: [3]", "x.yaml:8: global_params.evaluation.include_path.0: must be text, got 3"),
    ("vllm: false", "limit: many", "x.yaml:8: global_params.evaluation.limit: must be a number, got 'many'"),
    # tasks
    ("metric: acc,none", "metric: acc", "x.yaml:15: global_params.evaluation.tasks.0.metric: must be '<metric>,<filter>' as lm-eval prints it, for example 'acc,none', got 'acc'"),
    ("metric: acc,none", "metric: acy,none", "x.yaml:15: global_params.evaluation.tasks.0.metric: the range of metric 'acy,none' is not known; did you mean 'acc'?; add 'bounds: [low, high]' to the task"),
    ("metric: acc,none", "metric: perplexity,none", "x.yaml:15: global_params.evaluation.tasks.0.metric: the range of metric 'perplexity,none' is not known; add 'bounds: [low, high]' to the task"),
    ("        metric: acc,none\n", "", "x.yaml:14: global_params.evaluation.tasks.0.metric: required key is missing"),
    ("test_split: validation", "weight: 0", "x.yaml:16: global_params.evaluation.tasks.0.weight: must be above 0, got 0"),
    ("test_split: validation", "weigth: 2", "x.yaml:14: global_params.evaluation.tasks.0: unknown key 'weigth'; did you mean 'weight'?"),
    ("test_split: validation", "bounds: [1, 0]", "x.yaml:16: global_params.evaluation.tasks.0.bounds: must be two numbers [low, high] with low < high, got [1, 0]"),
    ("test_split: validation", "bounds: [1]", "x.yaml:16: global_params.evaluation.tasks.0.bounds: must be two numbers [low, high] with low < high, got [1]"),
    ("test_split: validation", "floor: 0.5", "x.yaml:16: global_params.evaluation.tasks.0.floor: must be a section of keys, got 0.5"),
    ("test_split: validation", "direction: up", "x.yaml:16: global_params.evaluation.tasks.0.direction: must be 'maximize' or 'minimize', got 'up'"),
    ('mbpp, metric: "pass_at_1,none"', "mmlu, metric: 'acc,none'", "x.yaml:13: global_params.evaluation.tasks: task 'mmlu' with metric 'acc,none' is given twice"),
    ('mbpp, metric: "pass_at_1,none"', "mmlu, metric: 'f1,none'", "x.yaml:13: global_params.evaluation.tasks: task 'mmlu' is given twice with different settings"),
    # search
    ("n_trials: 500", "n_trails: 500", "lfs.yaml:3: strategies.lfs.n_trails: unknown key; did you mean 'n_trials'?"),
    ("n_trials: 500", "n_trials: -1", "lfs.yaml:3: strategies.lfs.n_trials: must be at least 0, got -1"),
    ("n_trials: 500", "n_trials: 0", "x.yaml:19: strategies.lfs: max_trials (n_trials) 0 needs a total_budget above 0"),
    ("n_trials: 500\n", "", "x.yaml:19: strategies.lfs: a search needs an end: give max_trials (n_trials) or max_seconds"),
    ("n_workers: 1", "n_workers: 0", "lfs.yaml:2: strategies.lfs.n_workers: must be at least 1, got 0"),
    ("eta: 3", "eta: 1", "lfs.yaml:1: strategies.lfs.eta: must be at least 2, got 1"),
    ("eta: 3", "search: {eta: 1}", "lfs.yaml:1: strategies.lfs.search.eta: must be at least 2, got 1"),
    ("eta: 3", "search: {max_trial: 1}", "lfs.yaml:1: strategies.lfs.search.max_trial: unknown key; did you mean 'max_trials'?"),
    ("eta: 3", "search: {max_trials: 1}", "lfs.yaml:3: strategies.lfs.n_trials: the same setting as search.max_trials (lfs.yaml:1); give one of them"),
    ("eta: 3", "search: [1]", "lfs.yaml:1: strategies.lfs.search: must be a section of keys, got a list"),
    ("eta: 3", "search: {optimizer: smca}", "lfs.yaml:1: strategies.lfs.search.optimizer: must be 'smac' or 'random', got 'smca'; did you mean 'smac'?"),
    ("eta: 3", "search: {max_seconds: -1}", "lfs.yaml:1: strategies.lfs.search.max_seconds: must be above 0, got -1"),
    ("min_budget: 100", "min_budget: 2000", "lfs.yaml:6: strategies.lfs.max_budget: must be at least min_budget 2000, got 1000"),
    # models
    ("base_model: org/base", "base_modle: org/base", "lfs.yaml:8: strategies.lfs.base_modle: unknown key; did you mean 'base_model'?"),
    ("base_model: org/base", "base_model: {path: a, adapter: b}", "lfs.yaml:8: strategies.lfs.base_model.adapter: not available in this version; remove the key"),
    ("base_model: org/base", "base_model: {pth: a}", "lfs.yaml:8: strategies.lfs.base_model.pth: unknown key; did you mean 'path'?"),
    ("base_model: org/base", "base_model: 'zoo:'", "lfs.yaml:8: strategies.lfs.base_model.path: zoo: needs the name of an embedded model, for example zoo:base"),
    ("base_model: org/base", "base_model: 3", "lfs.yaml:8: strategies.lfs.base_model: must be a section of keys, got 3"),
    ("base_model: org/base", "base_model: {name: org/one, path: x}", "lfs.yaml:10: strategies.lfs.models.0: 'org/one' is also the name of the base model, which is another one; give it a name of its own"),
    ("- org/two", "- org/one", "lfs.yaml:9: strategies.lfs.models: model 'org/one' is listed twice; give each a name of its own"),
    ("- org/two", "- ''", "lfs.yaml:11: strategies.lfs.models.1: must not be empty"),
    ("models:\n  - org/one\n  - org/two\n", "models: []\n", "lfs.yaml:9: strategies.lfs.models: must have at least one entry"),
    ("models:\n  - org/one\n  - org/two\n", "", "x.yaml:19: strategies.lfs.models: required key is missing"),
    # lfs
    ("layer_granularity: 10\n", "", "x.yaml:19: strategies.lfs.layer_granularity: required key is missing"),
    ("layer_granularity: 10", "layer_granularity: 0", "lfs.yaml:12: strategies.lfs.layer_granularity: must be at least 1, got 0"),
    ("layer_granularity: 10", "layer_granularty: 10", "lfs.yaml:12: strategies.lfs.layer_granularty: unknown key; did you mean 'layer_granularity'?"),
    ("- mlp", "- self_attn", "lfs.yaml:13: strategies.lfs.filters: filter 'self_attn' is given twice"),
    ("- mlp", "- base", "lfs.yaml:13: strategies.lfs.filters: a filter cannot be called 'base', the set of all other tensors"),
    ("{min: 0, max: 1}", "{min: 1, max: 0}", "lfs.yaml:18: strategies.lfs.merging_method.task_arithmetic.scaling_coefficient.max: must be at least min 1, got 0"),
    ("{min: 0, max: 1}", "{min: 0, maximum: 1}", "lfs.yaml:18: strategies.lfs.merging_method.task_arithmetic.scaling_coefficient.maximum: unknown key; did you mean 'max'?"),
    ("{min: 0, max: 1}", "{min: 0}", "lfs.yaml:18: strategies.lfs.merging_method.task_arithmetic.scaling_coefficient.max: required key is missing"),
    ("{min: 0, max: 1}", "3", "lfs.yaml:18: strategies.lfs.merging_method.task_arithmetic.scaling_coefficient: must be a section of keys, got 3"),
    ("eta: 3", "slerp_space: half", "lfs.yaml:1: strategies.lfs.slerp_space: must be 'published' or 'full', got 'half'"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), IN_FILES)
def test_mistakes_in_files(write: Write, old: str, new: str, message: str) -> None:
    found = refused(write(old, new))
    assert found.startswith(message)
    if not message.endswith("hold "):
        assert found == message


def test_long_values_are_cut(write: Write) -> None:
    message = refused(write("device: cuda", f"device: {'x' * 500}"))
    assert message.endswith("x...")
    assert len(message) < 200


def test_groups_must_be_sections() -> None:
    Path("x.yaml").write_text("strategy: lfs\nglobal_params: [1]\n")
    assert refused("x.yaml") == "x.yaml:2: global_params: must be a section of keys, got a list"
    Path("x.yaml").write_text("strategy: lfs\nstrategies: none\n")
    assert refused("x.yaml") == "x.yaml:2: strategies: must be a section of keys, got 'none'"


def test_nothing_but_a_strategy() -> None:
    Path("x.yaml").write_text("strategy: lfs\nglobal_params:\nstrategies:\n")
    message = "x.yaml:3: strategies.lfs.layer_granularity: required key is missing"
    assert refused("x.yaml") == message


def test_a_missing_section_is_named(write: Write) -> None:
    text = Path(write()).read_text()
    start, end = text.index("  evaluation"), text.index("strategies:")
    Path("x.yaml").write_text(text[:start] + text[end:])
    assert refused("x.yaml") == "x.yaml:2: global_params.evaluation: required key is missing"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("n_trials", "--set n_trials: must be key=value, for example search.max_trials=20"),
        ("=3", "--set =3: must be key=value, for example search.max_trials=20"),
        ("a..b=3", "--set a..b=3: must be key=value, for example search.max_trials=20"),
        (
            "search.max_trials=-1",
            "--set search.max_trials=-1: global_params.search.max_trials: must be at least 0, got -1",
        ),
        (
            "evaluation.batch_sze=4",
            "--set evaluation.batch_sze=4: global_params.evaluation.batch_sze: unknown key; "
            "did you mean 'batch_size'?",
        ),
        (
            "global_parms.evaluation.batch_size=4",
            "--set global_parms.evaluation.batch_size=4: global_parms: unknown key; "
            "did you mean 'global_params'?",
        ),
        (
            "serch.eta=4",
            "--set serch.eta=4: global_params.serch: unknown key; did you mean 'search'?",
        ),
        (
            "models.2=a",
            "--set models.2=a: '2' is not the number of a list entry; there are 2, from 0",
        ),
        (
            "random_seed.x=a",
            "--set random_seed.x=a: global_params.random_seed is 0, not a section or list",
        ),
        ("name=[a", "--set name=[a: not valid YAML: while parsing a flow sequence expected"),
        ("name=!include a", "--set name=!include a: !include works in files only"),
        ("name=!!python/name:os.x a", "--set name=!!python/name:os.x a: tag !!python/name:os.x is"),
        ("strategy=dis", "x.yaml:18: strategies: no section 'dis', only lfs"),
    ],
)
def test_mistakes_in_overrides(write: Write, override: str, message: str) -> None:
    assert refused(write(), override).startswith(message)
