from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_recipes import IDS, linear, opened, part, recipe
from pico import FAMILIES, make_models, read_tensors, write_tensors
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

import auto_merge.merging.export as export
from auto_merge.checkpoints.checkpoint import Checkpoint, open_checkpoint
from auto_merge.errors import CheckpointError, InvalidWeightsError
from auto_merge.merging.export import export_model, merged_tensors
from auto_merge.merging.live import LiveModel
from auto_merge.merging.plan import Plan, build_plan
from auto_merge.merging.shards import divide, index_text

MIXED = recipe(
    part("linear", ["source_1", "source_2"], (0, 1)),
    part("ties", ["source_1", "source_2"], (1, 2), density=0.5, scale=0.7),
    part("slerp", ["source_1", "source_2"], (2, 3), t=0.4),
    part("passthrough", ["source_2"], (3, 4)),
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_models(tmp_path_factory.mktemp("models"), 2)


@pytest.fixture(scope="module")
def checkpoints(models: dict[str, Path]) -> dict[str, Checkpoint]:
    return opened(models)


@pytest.fixture(scope="module")
def plan(checkpoints: dict[str, Checkpoint]) -> Plan:
    return build_plan(MIXED, checkpoints)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_and_equals_the_live_model(
    tmp_path: Path, family: str, dtype: str
) -> None:
    checkpoints = opened(make_models(tmp_path, 2, family=family, layers=2, dtype=dtype))
    merged = build_plan(recipe(part("linear", ["source_1", "source_2"], (0, 2))), checkpoints)
    out = export_model(merged, checkpoints, tmp_path / "out", files={}, shard_bytes=10_000)
    model, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(info.values())
    assert model.dtype == getattr(torch, dtype)
    live = LiveModel(checkpoints).materialise(merged)
    assert torch.equal(logits(model), logits(live))
    assert model.config.to_dict() | {"_name_or_path": ""} == live.config.to_dict() | {
        "_name_or_path": "",
        "architectures": model.config.architectures,
    }


def test_the_folder_is_complete(
    models: dict[str, Path], checkpoints: dict[str, Checkpoint], plan: Plan, tmp_path: Path
) -> None:
    (models["base"] / "generation_config.json").write_text('{"repetition_penalty": 1.5}')
    files = {"README.md": "# Größe\n", "recipe.yaml": "recipe: 1\n"}
    try:
        out = export_model(plan, checkpoints, tmp_path / "a" / "out", files=files)
    finally:
        (models["base"] / "generation_config.json").unlink()
    assert sorted(file.name for file in out.iterdir()) == [
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "recipe.yaml",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert [file.name for file in out.parent.iterdir()] == ["out"]
    assert (out / "README.md").read_text("utf-8") == "# Größe\n"
    assert AutoTokenizer.from_pretrained(out)("abc").input_ids == [4, 5, 6]
    assert json.loads((out / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    with safe_open(out / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    reopened = open_checkpoint(out)
    assert set(reopened.tensors) == {step.output for step in plan.steps}
    plain = tmp_path / "plain"
    plain.mkdir()
    assert stat.S_IMODE(out.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_an_export_can_be_merged_again(
    checkpoints: dict[str, Checkpoint], plan: Plan, tmp_path: Path
) -> None:
    out = export_model(plan, checkpoints, tmp_path / "out", files={}, shard_bytes=5000)
    again = {"again": open_checkpoint(out)}
    copy = build_plan(recipe(part("passthrough", ["again"]), base=None), again)
    live = LiveModel(again).materialise(copy)
    assert torch.equal(logits(live), logits(LiveModel(checkpoints).materialise(plan)))


@settings(max_examples=12, deadline=None)
@given(shard_bytes=st.integers(500, 50_000), threads=st.integers(1, 3))
def test_streaming_equals_in_memory_at_any_shard_size(
    checkpoints: dict[str, Checkpoint],
    plan: Plan,
    tmp_path_factory: pytest.TempPathFactory,
    shard_bytes: int,
    threads: int,
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        live = LiveModel(checkpoints).materialise(plan).state_dict()
    finally:
        torch.set_num_threads(before)
    out = tmp_path_factory.mktemp("export") / "out"
    export_model(plan, checkpoints, out, files={}, shard_bytes=shard_bytes)
    written = read_tensors(out)
    assert written.keys() == live.keys()
    assert all(torch.equal(written[name], live[name]) for name in live)
    files = [file.stat().st_size for file in out.glob("*.safetensors")]
    tensors = max(tensor.nbytes for tensor in written.values())
    assert all(size <= max(shard_bytes, tensors) + 8192 for size in files)
    shutil.rmtree(out)


@settings(max_examples=30, deadline=None)
@given(
    chosen=st.sampled_from(["base", "source_1", "source_2"]),
    weight=st.floats(0.01, 1e5),
    dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
)
def test_one_hot_weights_return_the_source(
    checkpoints: dict[str, Checkpoint], chosen: str, weight: float, dtype: str
) -> None:
    weights = dict.fromkeys(["base", "source_1", "source_2"], 0.0) | {chosen: weight}
    merged = build_plan(linear(**weights), checkpoints, dtype=dtype)
    source = checkpoints[chosen]
    for step, tensor in zip(merged.steps, merged_tensors(merged, checkpoints), strict=True):
        assert torch.equal(tensor, source.tensor(step.output).to(getattr(torch, dtype)))


def test_shards_keep_order_and_size() -> None:
    tensors = [("a", (4,)), ("b", (4,)), ("big", (100,)), ("c", ()), ("none", (0, 3)), ("d", (7,))]
    shards = divide(tensors, "bfloat16", 16)
    assert [shard.names for shard in shards] == [("a", "b"), ("big",), ("c", "none", "d")]
    assert [shard.nbytes for shard in shards] == [16, 200, 16]
    assert shards[2].file == "model-00003-of-00003.safetensors"
    index = json.loads(index_text(shards))
    assert index["metadata"]["total_size"] == 232
    assert index["weight_map"]["big"] == "model-00002-of-00003.safetensors"
    assert all(len(shard.header()) % 8 == 0 for shard in shards)


def test_nothing_is_overwritten_unasked(
    checkpoints: dict[str, Checkpoint], plan: Plan, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    export_model(plan, checkpoints, out, files={})  # an empty folder is no loss
    before = (out / "model.safetensors").stat().st_ino
    with pytest.raises(CheckpointError, match=r"exists already; .* --overwrite"):
        export_model(plan, checkpoints, out, files={})
    assert (out / "model.safetensors").stat().st_ino == before
    (out / "old").write_text("")
    export_model(plan, checkpoints, out, files={}, overwrite=True)
    assert not (out / "old").exists()
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_only_model_folders_are_overwritten(
    models: dict[str, Path], checkpoints: dict[str, Checkpoint], plan: Plan, tmp_path: Path
) -> None:
    def refusal(out: Path) -> str:
        with pytest.raises(CheckpointError) as caught:
            export_model(plan, checkpoints, out, files={}, overwrite=True)
        return str(caught.value)

    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "important.txt").write_text("x")
    assert "is not a model folder" in refusal(tmp_path / "notes")
    assert "is not a folder" in refusal(tmp_path / "notes" / "important.txt")
    (tmp_path / "link").symlink_to(tmp_path / "notes")
    assert "is not a folder" in refusal(tmp_path / "link")
    assert "goes into this merge" in refusal(models["source_1"])
    assert "goes into this merge" in refusal(models["source_1"].parent)
    (tmp_path / "link").unlink()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["notes"]


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "../x", "a/b", "tokenizer.json"]
)
def test_additional_files_cannot_replace_or_escape(
    checkpoints: dict[str, Checkpoint], plan: Plan, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ValueError, match="cannot be an additional file"):
        export_model(plan, checkpoints, tmp_path / "out", files={name: ""})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("stop", [0, 1, 20])
def test_an_error_half_way_leaves_nothing(
    checkpoints: dict[str, Checkpoint],
    plan: Plan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: int,
    overwrite: bool,
) -> None:
    out = tmp_path / "out"
    if overwrite:
        export_model(plan, checkpoints, out, files={"README.md": "old"})

    def failing(*arguments: Any) -> Iterator[torch.Tensor]:
        for number, tensor in enumerate(merged_tensors(*arguments)):
            if number == stop:
                raise KeyboardInterrupt
            yield tensor

    monkeypatch.setattr(export, "merged_tensors", failing)
    with pytest.raises(KeyboardInterrupt):
        export_model(plan, checkpoints, out, files={}, shard_bytes=3000, overwrite=overwrite)
    assert [file.name for file in tmp_path.iterdir()] == (["out"] if overwrite else [])
    if overwrite:
        assert (out / "README.md").read_text() == "old"


def test_invalid_weights_leave_nothing(tmp_path: Path) -> None:
    models = make_models(tmp_path / "models", 1)
    tensors = read_tensors(models["source_1"])
    tensors["model.norm.weight"][0] = float("nan")
    write_tensors(models["source_1"], tensors)
    checkpoints = opened(models)
    spoiled = build_plan(linear(base=1, source_1=1), checkpoints)
    with pytest.raises(InvalidWeightsError, match=r"model\.norm\.weight"):
        export_model(spoiled, checkpoints, tmp_path / "out", files={})
    assert [file.name for file in tmp_path.iterdir()] == ["models"]


def test_a_full_disk_is_noticed_before_writing(
    checkpoints: dict[str, Checkpoint],
    plan: Plan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 20_000))
    with pytest.raises(CheckpointError, match=r"needs 0\.00 GB, but the disk has 0\.00 GB left"):
        export_model(plan, checkpoints, tmp_path / "out", files={})
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_while_writing_leaves_nothing(
    checkpoints: dict[str, Checkpoint],
    plan: Plan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "write_shard", full)
    with pytest.raises(CheckpointError, match=r"cannot write .*: No space left on device"):
        export_model(plan, checkpoints, tmp_path / "out", files={})
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(
    checkpoints: dict[str, Checkpoint], plan: Plan, tmp_path: Path
) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(CheckpointError, match="cannot write to"):
            export_model(plan, checkpoints, tmp_path / "out", files={})
    finally:
        tmp_path.chmod(0o700)


KILLED = """
import sys, time
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from merge_recipes import linear, opened
import auto_merge.merging.export as export
from auto_merge.merging.plan import build_plan
models = opened({n: Path(sys.argv[3]) / n for n in ("base", "source_1", "source_2")})
original = export.merged_tensors
def slow(*arguments):
    for number, tensor in enumerate(original(*arguments)):
        if number == 5:
            print("half", flush=True)
            time.sleep(60)
        yield tensor
export.merged_tensors = slow
plan = build_plan(linear(source_1=1, source_2=1), models)
export.export_model(plan, models, Path(sys.argv[4]), files={}, shard_bytes=2000)
"""


def test_a_killed_export_leaves_no_model_and_is_cleaned_up(
    models: dict[str, Path], checkpoints: dict[str, Checkpoint], plan: Plan, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    here = Path(__file__).parent
    command = [sys.executable, "-c", KILLED, str(here), str(here.parent)]
    command += [str(models["base"].parent), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        # While that one runs, another export beside it touches nothing of it.
        export_model(plan, checkpoints, tmp_path / "other", files={})
        assert len(list(tmp_path.iterdir())) == 2
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    export_model(plan, checkpoints, out, files={})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["other", "out"]


@pytest.mark.slow
def test_memory_holds_one_tensor_at_a_time(tmp_path: Path) -> None:
    """Exporting 240 MB of weights needs far less memory of its own."""
    config = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}
    make_models(tmp_path, 2, layers=16, config=config)
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "from pathlib import Path\n"
        "from merge_recipes import opened, part, recipe\n"
        "from auto_merge.merging.export import export_model\n"
        "from auto_merge.merging.plan import build_plan\n"
        "from auto_merge.methods import status; import torch; status()\n"
        "def anonymous():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return next(int(l.split()[1]) for l in lines if l.startswith('RssAnon'))\n"
        "models = opened({n: Path(sys.argv[3]) / n for n in ('base', 'source_1', 'source_2')})\n"
        "given = recipe(part('ties', ['source_1', 'source_2'], (0, 16), density=.5))\n"
        "before, highest = anonymous(), []\n"
        "import auto_merge.merging.export as export; original = export.finish\n"
        "def watched(*a):\n"
        "    result = original(*a); highest.append(anonymous()); return result\n"
        "export.finish = watched\n"
        "export_model(build_plan(given, models), models, Path(sys.argv[4]), files={})\n"
        "print(max(highest) - before)"
    )
    here = Path(__file__).parent
    command = [sys.executable, "-c", code, str(here), str(here.parent), str(tmp_path)]
    done = subprocess.run(
        [*command, str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    total = sum(file.stat().st_size for file in (tmp_path / "out").glob("*.safetensors"))
    assert total > 200e6
    assert int(done.stdout) * 1024 < 50e6
