"""A search over sources of which one has a token more."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from world import make_world

from auto_merge.cli import run_command

TOKEN = "<think>"


def add_token(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.add_tokens([TOKEN]) == 1
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize("with_base", [True, False])
def test_the_result_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_base: bool
) -> None:
    monkeypatch.setenv("AUTO_MERGE_CACHE", str(tmp_path / "cache"))
    file = make_world(tmp_path, max_trials=4)
    add_token(tmp_path / "models/right")
    words = ["--config", str(file), "--output", str(tmp_path / "run"), "--quiet"]
    if not with_base:
        for change in ("base_model=null", "merging_method={linear: {weights: {min: 0, max: 1}}}"):
            words += ["--set", f"strategies.lfs.{change}"]
    assert run_command(words) == 0
    best = tmp_path / "run/best"
    tokenizer = AutoTokenizer.from_pretrained(best)
    number = len(AutoTokenizer.from_pretrained(tmp_path / "models/left"))
    assert tokenizer.convert_tokens_to_ids(TOKEN) == number
    model = AutoModelForCausalLM.from_pretrained(best)
    assert model.get_input_embeddings().weight.shape[0] == number + 1
    again = tmp_path / "again"
    assert run_command(["merge", str(best / "recipe.yaml"), str(again), "--quiet"]) == 0
    first, second = (
        AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (best, again)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert AutoTokenizer.from_pretrained(again).convert_tokens_to_ids(TOKEN) == number
