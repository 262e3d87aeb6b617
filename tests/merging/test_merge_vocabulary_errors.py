"""Vocabularies that cannot be aligned are refused by token, before any weight is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from merge_recipes import opened, part, recipe
from pico import VOCABULARY
from vocabulary_models import edit, entry, make_model

from auto_merge.checkpoints.mapped import MappedFiles
from auto_merge.errors import CheckpointError, RecipeError, UserError
from auto_merge.merging.plan import build_plan

N = len(VOCABULARY)
BOTH = recipe(part("linear", ["base", "a"], (0, 1)))


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: MappedFiles, info: Any) -> torch.Tensor:
        raise AssertionError(f"read {info.name}")

    monkeypatch.setattr(MappedFiles, "view", refuse)


def refusal(base: Path, other: Path, kind: type[UserError] = RecipeError) -> str:
    with pytest.raises(kind) as caught:
        build_plan(BOTH, opened({"base": base, "a": other}))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pair(folder: Path, change: Callable[[Any], object], **arguments: Any) -> tuple[Path, Path]:
    """Two models of one layer; the tokenizer of the second is changed."""
    base = make_model(folder / "base", layers=1)
    other = make_model(folder / "a", layers=1, **arguments)
    edit(other, change)
    return base, other


def test_ordinary_tokens_with_other_ids(tmp_path: Path) -> None:
    def swap(data: Any) -> None:
        vocab = data["model"]["vocab"]
        vocab["g"], vocab["h"] = vocab["h"], vocab["g"]

    assert refusal(*pair(tmp_path, swap)) == (
        "models 'base' and 'a' have different vocabularies: 2 tokens have different ids, the first "
        "are 'g', 'h'; only added tokens can be aligned, so only one of the two can take part"
    )


@pytest.mark.parametrize("owner", ["base", "a"])
def test_ordinary_tokens_of_one_model(tmp_path: Path, owner: str) -> None:
    longer = (*VOCABULARY, "aa", "bb", "cc", "dd")
    models = {role: make_model(tmp_path / role, layers=1) for role in {"base", "a"} - {owner}}
    models[owner] = make_model(tmp_path / owner, layers=1, vocabulary=longer)
    other = "a" if owner == "base" else "base"
    assert (
        f"4 tokens are ordinary in {owner!r} and missing in {other!r}, the first are "
        "'aa', 'bb', 'cc'; only added"
    ) in refusal(models["base"], models["a"])


def test_one_string_with_two_meanings(tmp_path: Path) -> None:
    mark = entry("%", VOCABULARY.index("%"), special=True)
    base, other = pair(tmp_path, lambda data: data["added_tokens"].append(mark))
    text = "1 token is special in model 'a' and ordinary text in 'base': '%'; only added"
    assert text in refusal(base, other)
    # Without being special, it is the same token.
    plain = tmp_path / "plain"
    make_model(plain, layers=1)
    edit(plain, lambda data: data["added_tokens"].append(mark | {"special": False}))
    assert build_plan(BOTH, opened({"base": base, "a": plain})).added_tokens == ()
    assert build_plan(BOTH, opened({"base": plain, "a": base})).added_tokens == ()


def test_an_ordinary_token_that_was_added_with_another_id(tmp_path: Path) -> None:
    def move(data: Any) -> None:
        del data["model"]["vocab"]["%"]
        data["added_tokens"].append(entry("%", N))

    text = "1 tokens have different ids, the first are '%'"
    assert text in refusal(*pair(tmp_path, move, rows=N + 1))


def as_bpe(data: Any, merges: list[Any]) -> None:
    data["model"] = {
        "type": "BPE",
        "vocab": data["model"]["vocab"],
        "merges": merges,
        "unk_token": "<unk>",
    }


def test_tokenizers_of_different_types(tmp_path: Path) -> None:
    base, other = pair(tmp_path, lambda data: as_bpe(data, []))
    assert "of different types, WordLevel and BPE; only" in refusal(base, other)


def test_merges_that_differ(tmp_path: Path) -> None:
    base, other = pair(tmp_path, lambda data: as_bpe(data, [["a", "b"], ["c", "d"], "e f", "g h"]))
    edit(base, lambda data: as_bpe(data, ["g h"]))
    text = "3 merges or scores are only in one of them, as 'a b', 'c d', 'e f'; only added"
    assert text in refusal(base, other)
    edit(base, lambda data: as_bpe(data, ["g h", "c d", "a b", ["e", "f"]]))
    assert build_plan(BOTH, opened({"base": base, "a": other})).added_tokens == ()


def test_scores_that_differ(tmp_path: Path) -> None:
    def unigram(score: float) -> Callable[[Any], None]:
        def change(data: Any) -> None:
            scores = [[token, score if token == "x" else -1.0] for token in VOCABULARY]
            data["model"] = {"type": "Unigram", "vocab": scores, "unk_id": 3}

        return change

    base, other = pair(tmp_path, unigram(-2.5))
    edit(base, unigram(-2.0))
    assert "2 merges or scores are only in one of them, as 'x -2.0', 'x -2.5'" in refusal(
        base, other
    )


@pytest.mark.parametrize("lacking", ["base", "a"])
def test_without_a_tokenizer_nothing_can_be_aligned(tmp_path: Path, lacking: str) -> None:
    models = {
        "base": make_model(tmp_path / "base", layers=1),
        "a": make_model(tmp_path / "a", layers=1, rows=80),
    }
    (models[lacking] / "tokenizer.json").unlink()
    message = refusal(models["base"], models["a"])
    assert f"model {lacking!r} ({models[lacking]}) has no tokenizer.json" in message
    assert "save its tokenizer with transformers" in message


def test_only_the_models_of_the_outer_slices_are_compared(tmp_path: Path) -> None:
    def rename(data: Any) -> None:
        data["model"]["vocab"] = {f"{token}!": n for token, n in data["model"]["vocab"].items()}

    base, other = pair(tmp_path, rename)
    models = opened({"base": base, "a": other})
    stack = recipe(*(part("passthrough", [role], (0, 1)) for role in ("base", "a", "base")))
    assert build_plan(stack, models).config["num_hidden_layers"] == 3
    with pytest.raises(RecipeError, match="different vocabularies"):
        build_plan(stack, models, token_sources=["a"])
    with pytest.raises(RecipeError, match=r"unknown model 'aa'; did you mean 'a'\?"):
        build_plan(stack, models, token_sources=["aa"])


def test_widths_must_still_agree(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", layers=1)
    other = make_model(tmp_path / "a", ["<x>"], layers=1, config={"hidden_size": 32})
    assert "only models of one shape can be merged" in refusal(base, other, CheckpointError)


def gap(number: int) -> Callable[[Any], None]:
    return lambda data: data["added_tokens"].append(entry("<far>", number))


def test_ids_that_loaders_would_change(tmp_path: Path) -> None:
    base, other = pair(tmp_path, gap(N + 5), rows=N + 6)
    text = f"numbers the added token '<far>' {N + 5}, but loaders give it another id"
    assert text in refusal(base, other)
    assert text in refusal(other, base)


def test_a_donor_with_gaps_takes_no_tokens(tmp_path: Path) -> None:
    other = make_model(tmp_path / "a", ["<x>"], layers=1)
    base = make_model(tmp_path / "base", layers=1)
    far = 2**40
    edit(base, lambda data: data["model"]["vocab"].update({"%": far}))
    edit(other, lambda data: data["model"]["vocab"].update({"%": far}))
    plan = build_plan(BOTH, opened({"base": base, "a": other}))
    assert [token.id for token in plan.added_tokens] == [N]
    for folder in (base, other):
        edit(folder, lambda data: data["model"]["vocab"].update({"%": N}))
    message = refusal(base, other)
    assert "it numbers its tokens with gaps; its model has 64 rows" in message


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["added_tokens"].append({"content": "<x>"}),
        lambda data: data["added_tokens"].append({"content": "<x>", "id": -1}),
        lambda data: data["added_tokens"].append({"content": "<x>", "id": True}),
        lambda data: data["added_tokens"].append({"content": "<x>", "id": 64.5}),
        lambda data: data["added_tokens"].append("<x>"),
        lambda data: data["added_tokens"].extend([entry("<x>", N), entry("<x>", N + 1)]),
        lambda data: data.update(added_tokens=7),
        lambda data: data.update(model=[]),
        lambda data: data["model"].update(vocab={"a": "0"}),
        lambda data: data["model"].update(vocab=[["a"]]),
        lambda data: data["model"].update(merges=[1]),
        lambda data: data["model"].update(merges=5),
    ],
)
def test_damaged_tokenizers(tmp_path: Path, change: Callable[[Any], object]) -> None:
    base, other = pair(tmp_path, change)
    assert "holds no readable vocabulary; download it again" in refusal(
        base, other, CheckpointError
    )
