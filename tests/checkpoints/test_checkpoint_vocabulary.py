from __future__ import annotations

import json
from pathlib import Path

import pytest
from pico import VOCABULARY, make_llama

from auto_merge.checkpoints.checkpoint import open_checkpoint
from auto_merge.checkpoints.vocabulary import differing_tokens, read_vocabulary
from auto_merge.errors import CheckpointError


def test_tokens_are_read_with_their_ids(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(make_llama(tmp_path / "m", layers=1))
    assert checkpoint.vocabulary == {token: number for number, token in enumerate(VOCABULARY)}


def test_added_tokens_and_unigram_lists(tmp_path: Path) -> None:
    data = {
        "model": {"vocab": [["a", -1.0], ["b", -2.0]]},
        "added_tokens": [{"content": "<x>", "id": 7}],
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    assert read_vocabulary(tmp_path) == {"a": 0, "b": 1, "<x>": 7}


def test_no_tokenizer_is_nothing_to_compare(tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "m", layers=1)
    (folder / "tokenizer.json").unlink()
    checkpoint = open_checkpoint(folder)
    assert checkpoint.vocabulary is None
    assert checkpoint.vocabulary_digest == ""


@pytest.mark.parametrize(
    "data", [{}, {"model": 1}, {"model": {"vocab": {"a": "x"}}}, {"model": {"vocab": [1]}}]
)
def test_unreadable_vocabularies(tmp_path: Path, data: object) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match="no readable vocabulary"):
        read_vocabulary(tmp_path)


def test_differences_are_sorted_by_id() -> None:
    first = {"a": 0, "b": 1, "c": 2, "d": 3}
    second = {"a": 0, "b": 2, "c": 1, "e": 3}
    assert differing_tokens(first, first) == []
    assert differing_tokens(first, second) == ["b", "c", "d", "e"]
