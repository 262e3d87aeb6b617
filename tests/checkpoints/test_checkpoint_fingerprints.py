from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from pico import VOCABULARY, make_llama, write_tokenizer

import auto_merge.checkpoints.fingerprints as module
from auto_merge.checkpoints.checkpoint import fingerprint, open_checkpoint
from auto_merge.errors import CheckpointError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_llama(tmp_path / "model", layers=1)


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_copies_share_the_fingerprint(folder: Path) -> None:
    first = open_checkpoint(folder).fingerprint
    other = Path(shutil.copytree(folder, folder.parent / "copy"))
    edit(other / "config.json", _name_or_path="somewhere", transformers_version="0")
    assert open_checkpoint(other).fingerprint == first
    assert len(first) == 64


def test_every_part_counts(folder: Path) -> None:
    seen = {open_checkpoint(folder).fingerprint}

    def changed() -> None:
        found = open_checkpoint(folder).fingerprint
        assert found not in seen
        seen.add(found)

    edit(folder / "config.json", rms_norm_eps=1e-3)
    changed()
    write_tokenizer(folder, (*VOCABULARY[:4], *reversed(VOCABULARY[4:])))
    changed()
    edit(folder / "tokenizer_config.json", model_max_length=7)
    changed()
    (folder / "generation_config.json").write_text('{"temperature": 0.5}')
    changed()
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    changed()


def test_known_files_are_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = folder.parent / "cache"
    first = fingerprint(open_checkpoint(folder), cache)
    assert first == open_checkpoint(folder).fingerprint

    def refuse(file: Path) -> str:
        raise AssertionError(f"read {file} again")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_hash", refuse)
        assert fingerprint(open_checkpoint(folder), cache) == first
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(1, 1))
    assert fingerprint(open_checkpoint(folder), cache) != first


def test_a_damaged_cache_only_costs_time(folder: Path) -> None:
    cache = folder.parent / "cache"
    cache.mkdir()
    (cache / module.CACHE_FILE).write_bytes(b"no database" * 100)
    assert fingerprint(open_checkpoint(folder), cache) == open_checkpoint(folder).fingerprint


def test_a_cache_that_cannot_be_made_only_costs_time(folder: Path) -> None:
    blocked = folder / "config.json" / "cache"
    assert len(fingerprint(open_checkpoint(folder), blocked)) == 64


def test_a_locked_cache_only_costs_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = folder.parent / "cache"
    fingerprint(open_checkpoint(make_llama(folder.parent / "other", layers=1)), cache)
    connect = sqlite3.connect
    monkeypatch.setattr(
        module.sqlite3, "connect", lambda file, timeout: connect(file, timeout=0.01)
    )
    blocker = connect(cache / module.CACHE_FILE)
    blocker.execute("BEGIN EXCLUSIVE")
    try:
        assert len(fingerprint(open_checkpoint(folder), cache)) == 64
    finally:
        blocker.close()


def test_a_file_that_vanished_is_named(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"cannot read .*model\.safetensors"):
        _ = checkpoint.fingerprint
