"""Exports of models with different vocabularies load, with their tokenizer and equal logits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from merge_recipes import opened
from pico import VOCABULARY
from transformers import AutoModelForCausalLM, AutoTokenizer
from vocabulary_models import METHODS, ids_of, linear, logits, make_model, merge

from auto_merge.checkpoints.checkpoint import open_checkpoint
from auto_merge.merging.export import export_model
from auto_merge.merging.live import LiveModel
from auto_merge.merging.plan import build_plan

N = len(VOCABULARY)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("family", "dtype"),
    [("llama", "float32"), ("llama_tied", "bfloat16"), ("phi", "float32"), ("gemma", "bfloat16")],
)
def test_exports_load_with_equal_logits(
    tmp_path: Path, family: str, method: str, dtype: str
) -> None:
    flags = {"special": True, "rstrip": True}
    models = {"base": make_model(tmp_path / "base", family=family, dtype=dtype, rows=66)}
    common: dict[str, Any] = {"family": family, "dtype": dtype, "flags": flags}
    models["a"] = make_model(tmp_path / "a", ["<x>", "<y>"], seed=1, **common)
    models["b"] = make_model(tmp_path / "b", ["<z>", "<x>"], seed=2, rows=70, **common)
    checkpoints = opened(models)
    plan = build_plan(merge(method, ["a", "b"]), checkpoints, token_sources=["a", "b"])
    out = export_model(plan, checkpoints, tmp_path / "out", files={}, shard_bytes=5000)
    model, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(info.values())
    assert model.config.vocab_size == N + 3
    tokenizer = AutoTokenizer.from_pretrained(out)
    prompt = tokenizer("ab<x> c<y><z>").input_ids
    assert prompt == [4, 5, N, 6, N + 1, N + 2]  # rstrip took the blank
    assert tokenizer.decode(prompt, skip_special_tokens=True) == "abc"
    live = LiveModel(checkpoints).materialise(plan)
    assert torch.equal(logits(model, prompt), logits(live, prompt))
    reopened = open_checkpoint(out)
    assert reopened.vocabulary == {**ids_of(models["base"]), "<x>": N, "<y>": N + 1, "<z>": N + 2}
    again = {"again": reopened, **checkpoints}
    assert build_plan(linear(again=1, a=1), again).config["vocab_size"] == N + 3


def test_the_donors_other_files_stay_as_they_are(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    (base / "chat_template.jinja").write_text("{{ messages }}\n")
    (base / "special_tokens_map.json").write_text('{"eos_token": "</s>"}')
    (base / "added_tokens.json").write_text('{"<unk>": 3}')
    settings = json.loads((base / "tokenizer_config.json").read_text())
    settings["added_tokens_decoder"] = {"3": {"content": "<unk>", "special": True}}
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    models = {"base": base, "a": make_model(tmp_path / "a", ["<é>"], seed=1)}
    checkpoints = opened(models)
    plan = build_plan(linear(a=1, base=1), checkpoints)
    out = export_model(plan, checkpoints, tmp_path / "out", files={})
    for name in ("chat_template.jinja", "special_tokens_map.json"):
        assert (out / name).read_bytes() == (base / name).read_bytes()
    assert json.loads((out / "added_tokens.json").read_text()) == {"<unk>": 3, "<é>": N}
    changed = json.loads((out / "tokenizer_config.json").read_text())
    assert changed["added_tokens_decoder"].pop(str(N))["content"] == "<é>"
    assert changed == settings
    old, new = (json.loads((f / "tokenizer.json").read_text("utf-8")) for f in (base, out))
    assert new["added_tokens"].pop()["content"] == "<é>"
    assert new == old


MEMORY = """
import sys; sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from merge_recipes import opened, part, recipe
import auto_merge.merging.export as export
from auto_merge.merging.plan import build_plan
from auto_merge.methods import status; import torch; status()
def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(l.split()[1]) for l in lines if l.startswith("RssAnon"))
models = opened({n: Path(sys.argv[3]) / n for n in ("base", "a", "b")})
plan = build_plan(recipe(part("ties", ["a", "b"], (0, 1), density=.5)), models)
assert len(plan.added_tokens) == 3
before, highest, original = anonymous(), [], export.finish
def watched(*a):
    result = original(*a); highest.append(anonymous()); return result
export.finish = watched
export.export_model(plan, models, Path(sys.argv[4]), files={})
print(max(highest) - before)
"""


@pytest.mark.slow
def test_memory_holds_one_matrix(tmp_path: Path) -> None:
    """Three aligned matrices of 64 MB make one, without a copy of any of them."""
    wide: dict[str, Any] = {"layers": 1, "config": {"hidden_size": 1024}}
    tokens = tuple(f"t{number}" for number in range(16_000))
    wide["vocabulary"] = VOCABULARY + tokens
    make_model(tmp_path / "base", **wide)
    make_model(tmp_path / "a", ["<x>", "<y>"], seed=1, **wide)
    make_model(tmp_path / "b", ["<y>", "<z>", "<x>"], seed=2, **wide)
    here = Path(__file__).parent
    command = [sys.executable, "-c", MEMORY, str(here), str(here.parent), str(tmp_path)]
    done = subprocess.run(
        [*command, str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) * 1024 < 64e6 * 1.5
