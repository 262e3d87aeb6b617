from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pico import SPECIAL_TOKENS, VOCABULARY, make_llama, write_tokenizer

from auto_merge.checkpoints.checkpoint import open_checkpoint
from auto_merge.checkpoints.vocab_files import extended_files, extended_tokenizer
from auto_merge.checkpoints.vocabulary import AddedToken, Vocabulary, ranges, read_vocabulary
from auto_merge.errors import CheckpointError

N = len(VOCABULARY)


def read(folder: Path, data: Any) -> Vocabulary:
    (folder / "tokenizer.json").write_text(json.dumps(data))
    found = read_vocabulary(folder)
    assert found is not None
    return found


def test_tokens_are_read_with_their_ids(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(make_llama(tmp_path / "m", layers=1))
    assert checkpoint.vocabulary == {token: number for number, token in enumerate(VOCABULARY)}
    vocabulary = read_vocabulary(tmp_path / "m")
    assert vocabulary is not None
    assert tuple(vocabulary.added) == SPECIAL_TOKENS
    assert vocabulary.added["<s>"] == AddedToken("<s>", 1, special=True)
    assert vocabulary.ordinary_ranges == ((4, N),)
    assert (vocabulary.kind, vocabulary.next_id, vocabulary.misnumbered) == ("WordLevel", N, None)


def test_added_tokens_and_unigram_lists(tmp_path: Path) -> None:
    data = {
        "model": {"vocab": [["a", -1.0], ["b", -2.0]]},
        "added_tokens": [{"content": "<x>", "id": 7}],
    }
    vocabulary = read(tmp_path, data)
    assert vocabulary == {"a": 0, "b": 1, "<x>": 7}
    assert vocabulary.next_id == 8
    assert vocabulary.misnumbered == AddedToken("<x>", 7)  # loaders give it 2


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


def test_what_was_added_does_not_change_how_text_is_cut(tmp_path: Path) -> None:
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}
    plain = read(tmp_path, {"model": model})
    more = read(tmp_path, {"model": model, "added_tokens": [{"content": "<x>", "id": 3}]})
    pairs = read(tmp_path, {"model": model | {"merges": [["a", "b"]]}})
    none = read(tmp_path, {"model": model | {"merges": []}})
    assert plain.ordinary_digest == more.ordinary_digest == pairs.ordinary_digest
    assert none.ordinary_digest != plain.ordinary_digest


@given(st.sets(st.integers(0, 40)))
def test_ranges_hold_their_numbers(numbers: set[int]) -> None:
    found = ranges(numbers)
    assert [n for start, stop in found for n in range(start, stop)] == sorted(numbers)
    assert all(first[1] < second[0] for first, second in pairwise(found))


TOKENS = (AddedToken("<x>", N, special=True), AddedToken("<y>", N + 1, lstrip=True))


@pytest.fixture
def donor(tmp_path: Path) -> Path:
    folder = tmp_path / "donor"
    folder.mkdir()
    write_tokenizer(folder)
    (folder / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 9}')
    return folder


def test_an_extended_tokenizer_loads_with_its_tokens(donor: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    (donor / "chat_template.jinja").write_text("{{ messages[0].content }}<x>")
    folder = extended_tokenizer(donor, TOKENS, tmp_path / "cache")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("a<x>b <y>").input_ids == [4, N, 5, N + 1]
    assert tokenizer.decode([4, N, N + 1], skip_special_tokens=True) == "a<y>"
    message = [{"role": "user", "content": "ab"}]
    assert tokenizer.apply_chat_template(message, return_dict=False) == [4, 5, N]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("</s>", "<pad>")
    assert json.loads((folder / "config.json").read_text())["max_position_embeddings"] == 9
    vocabulary = read_vocabulary(folder)
    assert vocabulary is not None
    assert vocabulary.added["<y>"] == TOKENS[1]
    assert vocabulary.misnumbered is None


def test_one_folder_per_content(donor: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert extended_tokenizer(donor, (), cache) == donor
    assert not cache.exists()
    folder = extended_tokenizer(donor, TOKENS, cache)
    written = (folder / "tokenizer.json").stat().st_mtime_ns
    assert extended_tokenizer(donor, TOKENS, cache) == folder
    assert (folder / "tokenizer.json").stat().st_mtime_ns == written
    assert extended_tokenizer(donor, TOKENS[:1], cache) != folder
    (donor / "config.json").write_text('{"model_type": "llama"}')
    assert extended_tokenizer(donor, TOKENS, cache) != folder
    assert len(list((cache / "tokenizers").iterdir())) == 3  # and nothing half written


def test_a_token_must_get_its_id(donor: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"'<x>' gets id {N}, not {N + 1}; save the tokeni"):
        extended_files(donor, [AddedToken("<x>", N + 1)])


def test_a_tokenizer_that_cannot_be_loaded(donor: Path) -> None:
    data = json.loads((donor / "tokenizer.json").read_text())
    data["model"] = {"type": "Novel", "vocab": data["model"]["vocab"]}
    (donor / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be loaded: "):
        extended_files(donor, TOKENS)


def test_a_cache_that_cannot_be_written(donor: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write"):
        extended_tokenizer(donor, TOKENS, tmp_path / "file")
