from __future__ import annotations

from pathlib import Path

import pytest
import torch
from merge_recipes import opened
from pico import make_models

import auto_merge.merging.inputs as module
from auto_merge.merging.inputs import Inputs

NORM, EMBEDDING = ("base", "model.norm.weight"), ("base", "model.embed_tokens.weight")


def test_the_processor_reads_mapped_files(tmp_path: Path) -> None:
    checkpoints = opened(make_models(tmp_path, 1))
    inputs = Inputs(checkpoints, torch.device("cpu"))
    assert inputs.get(NORM) is checkpoints["base"].tensor("model.norm.weight")
    assert inputs.kept(NORM) is inputs.get(NORM)


def test_an_accelerator_keeps_what_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands for one: tensors can be sent there and take no memory."""
    models = make_models(tmp_path, 1)
    monkeypatch.setattr(module, "_free_bytes", lambda device: 100)
    inputs = Inputs(opened({**models, "same": models["base"]}), torch.device("meta"))
    assert inputs.kept(EMBEDDING) is None  # 4096 bytes
    assert inputs.get(EMBEDDING) is not inputs.get(EMBEDDING)
    assert inputs.get(NORM) is inputs.get(NORM)  # 64 bytes
    assert inputs.get(("same", NORM[1])) is inputs.kept(NORM)
    assert inputs.kept(("source_1", NORM[1])) is None  # 36 bytes are left
