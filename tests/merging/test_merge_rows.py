"""Any vocabularies, any heights: every merged row is what the rules say, computed row by row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from auto_merge.checkpoints.checkpoint import Checkpoint
from auto_merge.checkpoints.vocabulary import AddedToken, Vocabulary
from auto_merge.merging.execute import finish, start_block
from auto_merge.merging.memo import TensorMemo
from auto_merge.merging.rows import Block, Matrix, RowInput, build_blocks, gather
from auto_merge.merging.vocabularies import MergedVocabulary, merge_vocabularies
from auto_merge.methods.base import METHODS, Call

ORDINARY = tuple("abcde")
N = len(ORDINARY)
WIDTH = 3


@dataclass(frozen=True)
class Toy:
    """A matrix and the tokens of its first rows."""

    role: str
    tokens: tuple[str, ...]
    tensor: torch.Tensor

    @property
    def matrix(self) -> Matrix:
        return Matrix(self.role, (self.role, "e"), len(self.tensor))

    def row(self, token: str) -> torch.Tensor | None:
        number = self.tokens.index(token) if token in self.tokens else len(self.tensor)
        return self.tensor[number] if number < len(self.tensor) else None

    def checkpoint(self) -> Checkpoint:
        trained = {token: number for number, token in enumerate(ORDINARY)}
        added = [AddedToken(t, N + number) for number, t in enumerate(self.tokens[N:])]
        return cast(
            Checkpoint,
            SimpleNamespace(
                path=Path(self.role),
                family=SimpleNamespace(embedding="e"),
                tensors={"e": SimpleNamespace(shape=self.tensor.shape)},
                vocabulary=Vocabulary(trained, added, "BPE", (), Path(self.role)),
                vocabulary_digest=" ".join(self.tokens),
            ),
        )


@st.composite
def toys(draw: st.DrawFn) -> list[Toy]:
    found = []
    for number, role in enumerate(("base", "one", "two", "three")):
        added = draw(st.lists(st.sampled_from("VWXYZ"), unique=True, max_size=4))
        tokens = (*ORDINARY, *added)
        height = max(N, len(tokens) + draw(st.integers(-1, 3)))
        generator = torch.Generator().manual_seed(number)
        tensor = torch.randn(height, WIDTH, generator=generator)
        found.append(Toy(role, tokens, tensor))
    return found


def merged(models: list[Toy]) -> MergedVocabulary | None:
    checkpoints = {toy.role: toy.checkpoint() for toy in models}
    return merge_vocabularies("base", [toy.role for toy in models], checkpoints)


def run(blocks: tuple[Block, ...], models: list[Toy], height: int) -> torch.Tensor:
    tensors = {toy.role: toy.tensor for toy in models}
    out = torch.full((height, WIDTH), torch.nan)
    jobs = [start_block(b, lambda ref: tensors[ref[0]], out, TensorMemo()) for b in blocks]
    assert sum(finish(jobs)) == 0
    return out


def mean(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(rows).double().mean(0)


def expected_row(token: str, acting: list[Toy], others: list[Toy]) -> list[torch.Tensor]:
    """The rows that the acting models bring along for a token, by the rules."""
    for group in (acting, others):
        owned = [row for toy in group if (row := toy.row(token)) is not None]
        if owned:
            own = [toy.row(token) for toy in acting]
            return [mean(owned) if row is None else row.double() for row in own]
    return [mean([row for t in toy.tokens if (row := toy.row(t)) is not None]) for toy in acting]


def output_tokens(vocabulary: MergedVocabulary, donor: Toy) -> dict[int, str]:
    found = dict(enumerate(donor.tokens))
    found |= {entry.id: entry.content for entry in vocabulary.added}
    return {number: token for number, token in found.items() if number < vocabulary.height}


WEIGHTS = st.sampled_from([-0.5, 0.0, 0.25, 1.0, 2.0])


@settings(max_examples=150, deadline=None)
@given(
    models=toys(),
    method=st.sampled_from(["linear", "task_arithmetic"]),
    weights=st.lists(WEIGHTS, min_size=2, max_size=2),
)
def test_every_row_follows_the_rules(models: list[Toy], method: str, weights: list[float]) -> None:
    vocabulary = merged(models)
    base, *_, three = models
    is_linear = method == "linear"
    if vocabulary is None or (is_linear and sum(weights) == 0.0):
        return
    arguments: dict[str, Any] = {"weight": tuple(weights)} | ({} if is_linear else {"scale": 1.0})
    call = METHODS.get(method).simplify(
        Call(method, ("one", "two"), None if is_linear else "base", arguments)
    )
    matrices = {toy.role: toy.matrix for toy in models}
    blocks = build_blocks(call, matrices, [three.matrix], base.matrix, vocabulary)
    acting = [toy for toy in models if toy.role in (*call.sources, call.base)]
    if not blocks:
        assert all(vocabulary.is_unchanged(toy.role, len(toy.tensor)) for toy in acting)
        return
    covered = sorted(row for block in blocks for pair in block.rows for row in range(*pair))
    assert covered == list(range(vocabulary.height))
    out = run(blocks, models, vocabulary.height)
    tokens = output_tokens(vocabulary, base)
    total = sum(weights) if is_linear else 1.0
    for number in range(vocabulary.height):
        if number not in tokens:
            assert torch.equal(out[number], base.tensor[number])
            continue
        rows = dict(
            zip(
                [toy.role for toy in acting],
                expected_row(tokens[number], acting, [three]),
                strict=True,
            )
        )
        start = torch.zeros(WIDTH).double() if is_linear else rows.get("base")
        if start is None:  # a lone source of weight 1: the base does not take part
            assert torch.allclose(out[number].double(), next(iter(rows.values())), atol=1e-5)
            continue
        wanted = start.clone()
        for role, weight in zip(("one", "two"), weights, strict=True):
            if weight:
                wanted += weight / total * (rows[role] - (0.0 if is_linear else start))
        assert torch.allclose(out[number].double(), wanted, atol=1e-5), tokens[number]


@settings(max_examples=60, deadline=None)
@given(models=toys(), method=st.sampled_from(["ties", "slerp", "linear", "task_arithmetic"]))
def test_rows_of_one_owner_are_copied(models: list[Toy], method: str) -> None:
    vocabulary = merged(models)
    if vocabulary is None:
        return
    chosen = METHODS.get(method)
    arguments = {
        parameter.name: (0.3, 0.6) if parameter.per_source else 0.4
        for parameter in chosen.parameters
    }
    base = "base" if chosen.needs_base else None
    call = chosen.simplify(Call(method, ("one", "two"), base, arguments))
    matrices = {toy.role: toy.matrix for toy in models}
    blocks = build_blocks(call, matrices, [], matrices["base"], vocabulary)
    if not blocks:
        return
    out = run(blocks, models, vocabulary.height)
    acting = [toy for toy in models if toy.role in (*call.sources, call.base)]
    for number, token in output_tokens(vocabulary, models[0]).items():
        owned = [row for toy in acting if (row := toy.row(token)) is not None]
        if len(owned) == 1:
            assert torch.equal(out[number], owned[0])


@settings(max_examples=100, deadline=None)
@given(models=toys())
def test_tokens_keep_the_donors_ids_and_follow_in_order(models: list[Toy]) -> None:
    vocabulary = merged(models)
    rowed = [t for toy in models for t in toy.tokens[N:] if toy.row(t) is not None]
    new = [t for t in dict.fromkeys(rowed) if t not in models[0].tokens]
    if vocabulary is None:
        assert not new
        assert len({len(toy.tensor) for toy in models}) == 1
        return
    assert [entry.content for entry in vocabulary.added] == new
    assert [entry.id for entry in vocabulary.added] == [
        len(models[0].tokens) + number for number in range(len(new))
    ]
    highest = max([len(models[0].tokens) + len(new)] if new else [0])
    assert vocabulary.height >= max(len(models[0].tensor), highest)
    for toy in models:
        runs = vocabulary.runs(toy.role, len(toy.tensor))
        tokens = output_tokens(vocabulary, models[0])
        found = {tokens[a + i]: toy.tensor[b + i] for a, b, count in runs for i in range(count)}
        owned = {t: row for t in tokens.values() if (row := toy.row(t)) is not None}
        assert found.keys() == owned.keys()
        assert all(torch.equal(found[token], owned[token]) for token in owned)


def test_rows_side_by_side_are_a_view() -> None:
    tensor = torch.arange(12.0).view(6, 2)
    rows = RowInput(((("m", "e"), ((1, 4),)),))
    found = gather(rows, lambda reference: tensor)
    assert found.data_ptr() == tensor[1].data_ptr()
    assert torch.equal(found, tensor[1:4])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_means_are_float32(dtype: torch.dtype) -> None:
    tensors = {"m": torch.arange(12.0).view(6, 2).to(dtype), "n": torch.ones(6, 2, dtype=dtype)}
    parts = ((("m", "e"), ((5, 6), (0, 1))), (("n", "e"), ((2, 4),)))
    found = gather(RowInput(parts), lambda reference: tensors[reference[0]])
    assert found.dtype == torch.float32
    assert found.tolist() == [[5.5, 6.0], [0.5, 1.0]]
    pooled = RowInput(((("m", "e"), ((0, 2), (4, 6))),), repeat=2)
    assert gather(pooled, lambda reference: tensors["m"]).tolist() == [[5.0, 6.0]] * 2


def test_one_dimensional_tensors_have_rows_too() -> None:
    bias = torch.tensor([1.0, 2.0, 6.0])
    pooled = RowInput(((("m", "b"), ((0, 3),)),), repeat=2)
    assert gather(pooled, lambda reference: bias).tolist() == [3.0, 3.0]
