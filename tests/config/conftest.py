from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

TOP = """\
strategy: lfs
global_params:
  random_seed: 0
  cache_dir: ""
  output_path: ""
  evaluation:
    in_memory: true
    vllm: false
    enforce_eager: true
    batch_size: 16
    torch_dtype: float16
    device: cuda
    tasks:
      - task: mmlu
        metric: acc,none
        test_split: validation
      - {task: mbpp, metric: "pass_at_1,none"}
strategies:
  lfs: !include lfs.yaml
"""

LFS = """\
eta: 3
n_workers: 1
n_trials: 500
random_init_points: 0
min_budget: 100
max_budget: 1000
total_budget: 0
base_model: org/base
models:
  - org/one
  - org/two
layer_granularity: 10
filters:
  - self_attn
  - mlp
merging_method:
  task_arithmetic:
    scaling_coefficient: {min: 0, max: 1}
  slerp:
    slerp_t: {min: 0.0, max: 1.0}
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in its own folder, so that messages show short relative names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUTO_MERGE_CACHE", raising=False)


@pytest.fixture
def write() -> Callable[..., str]:
    """Writes ``x.yaml`` with its ``lfs.yaml``, after replacing one text by another in both."""

    def write(old: str = "", new: str = "") -> str:
        assert not old or old in TOP + LFS
        for name, text in (("x.yaml", TOP), ("lfs.yaml", LFS)):
            Path(name).write_text(text.replace(old, new, 1) if old else text)
        return "x.yaml"

    return write
