from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from pico import make_family, make_llama, read_tensors, write_tensors
from safetensors.torch import save_file

from auto_merge.checkpoints.checkpoint import Checkpoint, open_checkpoint
from auto_merge.errors import CheckpointError

INDEX = "model.safetensors.index.json"


def complaint(folder: Path | str) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(file: Path, **changes: object) -> None:
    data = json.loads(file.read_text())
    file.write_text(json.dumps(data | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_llama(tmp_path / "model", layers=2, shards=2)


def assert_tensors_equal(checkpoint: Checkpoint, folder: Path) -> None:
    expected = read_tensors(folder)
    assert set(checkpoint.tensors) == set(expected)
    for name, tensor in expected.items():
        assert checkpoint.tensor(name).dtype == tensor.dtype
        assert torch.equal(checkpoint.tensor(name), tensor)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("shards", [1, 3])
def test_tensors_equal_those_of_the_library(tmp_path: Path, dtype: str, shards: int) -> None:
    folder = make_llama(tmp_path / "model", layers=2, dtype=dtype, shards=shards)
    checkpoint = open_checkpoint(folder)
    assert_tensors_equal(checkpoint, folder)
    assert checkpoint.num_layers == 2
    assert checkpoint.family.name == "llama"
    assert checkpoint.dtype == dtype


def test_tensors_are_views_of_one_mapping(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    name = "model.norm.weight"
    assert checkpoint.tensor(name).data_ptr() == checkpoint.tensor(name).data_ptr()
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("needs /proc")
    mapped = [line.split()[1] for line in maps.read_text().splitlines() if str(folder) in line]
    assert mapped
    assert set(mapped) == {"r--s"}  # readable, not writable, shared


def test_unaligned_tensors_are_read(folder: Path) -> None:
    """A header of odd length is legal; the tensors then lie at odd addresses."""
    file = next(folder.glob("*.safetensors"))
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    text = content[8 : 8 + length].rstrip()
    text += b" " * (1 - len(text) % 2)
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    assert len(text) % 2 == 1
    assert_tensors_equal(open_checkpoint(folder), folder)


def test_relative_folders_are_made_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert open_checkpoint("model").path == folder


def test_an_unknown_tensor_gets_a_suggestion(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"did you mean 'model.norm.weight'"):
        open_checkpoint(folder).tensor("model.norm.weights")


def test_a_file_that_shrinks_later_is_noticed(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    for file in folder.glob("*.safetensors"):
        os.truncate(file, file.stat().st_size - 8)
    with pytest.raises(CheckpointError, match="became shorter"):
        [checkpoint.tensor(name) for name in checkpoint.tensors]


def test_missing_things_are_named(folder: Path) -> None:
    assert "does not exist" in complaint(folder / "nowhere")
    (folder / "config.json").rename(folder / "c")
    assert "no config.json" in complaint(folder)
    (folder / "adapter_config.json").write_text("{}")
    assert "adapter" in complaint(folder)
    (folder / "c").rename(folder / "config.json")
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert "lacks model-00002-of-00002.safetensors" in complaint(folder)
    (folder / INDEX).unlink()
    assert "neither model.safetensors nor" in complaint(folder)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised (gptq)"),
        ({"quantization_config": "odd"}, "quantised (unknown method)"),
        ({"model_type": None}, "names no model_type"),
        ({"num_hidden_layers": None}, "num_hidden_layers must be a positive"),
        ({"num_hidden_layers": True}, "num_hidden_layers must be a positive"),
        ({"num_hidden_layers": 3}, "layers [2] have no tensors"),
        ({"num_hidden_layers": 1}, "tensors count 2"),
    ],
)
def test_unfit_configurations(folder: Path, changes: dict[str, object], reason: str) -> None:
    edit(folder / "config.json", **changes)
    assert reason in complaint(folder)


@pytest.mark.parametrize(
    "text", ["{", "[]", "", "[" * 100_000, "\ud800".encode("utf-8", "replace")]
)
def test_configurations_that_are_no_json_object(folder: Path, text: str | bytes) -> None:
    content = text.encode() if isinstance(text, str) else b"\xff"
    (folder / "config.json").write_bytes(content)
    assert "config.json" in complaint(folder)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/hostname", "a/b", "..", "", "a\\b"])
def test_the_index_cannot_leave_the_folder(folder: Path, name: str) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["model.norm.weight"] = name
    (folder / INDEX).write_text(json.dumps(index))
    assert "must lie in the folder itself" in complaint(folder)


def test_links_out_of_the_folder_are_refused(folder: Path) -> None:
    shard = folder / "model-00001-of-00002.safetensors"
    shard.rename(folder.parent / "elsewhere.safetensors")
    shard.symlink_to(folder.parent / "elsewhere.safetensors")
    assert "outside the model folder" in complaint(folder)


def test_links_of_the_hub_cache_are_followed(tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "models--x" / "snapshots" / "abc", layers=2)
    blobs = tmp_path / "models--x" / "blobs"
    blobs.mkdir()
    for file in list(folder.iterdir()):
        file.rename(blobs / file.name)
        file.symlink_to(Path("../../blobs") / file.name)
    assert_tensors_equal(open_checkpoint(folder), folder)


def test_an_index_that_disagrees_with_its_shards(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["model.extra"] = "model-00001-of-00002.safetensors"
    (folder / INDEX).write_text(json.dumps(index))
    assert "places model.extra in model-00001" in complaint(folder)
    edit(folder / INDEX, weight_map=[])
    assert "no weight_map" in complaint(folder)


def test_integer_weights_are_refused_by_name(tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "model", layers=1)
    tensors = read_tensors(folder)
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.ones(24, 16, dtype=torch.int8)
    write_tensors(folder, tensors)
    assert "model.layers.0.mlp.up_proj.weight has dtype I8" in complaint(folder)


def test_leftover_buffers_are_passed_over(tmp_path: Path) -> None:
    folder = make_family(tmp_path / "model", "gpt_neox", layers=1)
    tensors = read_tensors(folder)
    tensors["gpt_neox.layers.0.attention.bias"] = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    tensors["gpt_neox.layers.0.attention.rotary_emb.inv_freq"] = torch.ones(2)
    write_tensors(folder, tensors)
    checkpoint = open_checkpoint(folder)
    assert len(checkpoint.tensors) == len(tensors) - 2


def test_pickle_is_read_only_when_allowed(folder: Path) -> None:
    tensors = read_tensors(folder)
    for file in [*folder.glob("*.safetensors"), folder / INDEX]:
        file.unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert "pickled weights" in complaint(folder)
    checkpoint = open_checkpoint(folder, allow_pickle=True)
    assert set(checkpoint.tensors) == set(tensors)
    assert torch.equal(checkpoint.tensor("model.norm.weight"), tensors["model.norm.weight"])
    assert len(checkpoint.fingerprint) == 64


class Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("ran",))


def test_allowed_pickle_still_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_llama(tmp_path / "model", layers=1)
    (folder / "model.safetensors").unlink()
    torch.save({"a": Hostile()}, folder / "pytorch_model.bin")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"cannot read .* safely"):
        open_checkpoint(folder, allow_pickle=True)
    assert not (tmp_path / "ran").exists()


def test_tied_by_configuration_or_by_lack_of_a_head(tmp_path: Path) -> None:
    untied = make_llama(tmp_path / "untied", layers=1)
    assert not open_checkpoint(untied).tied
    assert open_checkpoint(make_llama(tmp_path / "tied", layers=1, tied=True)).tied
    tensors = read_tensors(untied)
    del tensors["lm_head.weight"]
    save_file(tensors, untied / "model.safetensors")
    assert open_checkpoint(untied).tied
    gemma = make_family(tmp_path / "gemma", "gemma", layers=1)
    config = json.loads((gemma / "config.json").read_text())
    del config["tie_word_embeddings"]
    (gemma / "config.json").write_text(json.dumps(config))
    assert open_checkpoint(gemma).tied
