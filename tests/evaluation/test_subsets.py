from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auto_merge.evaluation.subsets import (
    Document,
    arrange,
    clamp,
    digest,
    divide,
    document_key,
    halve,
    interleave,
)


def make(contents: list[dict[str, Any]]) -> list[Document]:
    return [
        Document(i, document_key(c), c, str(c.get("stratum", "")), str(c.get("passage", "")))
        for i, c in enumerate(contents)
    ]


def numbered(count: int) -> list[Document]:
    return make([{"n": i} for i in range(count)])


rows = st.lists(
    st.fixed_dictionaries(
        {
            "n": st.integers(0, 30),
            "stratum": st.sampled_from("ab"),
            "passage": st.sampled_from(["", "x", "y", "z"]),
        }
    ),
    max_size=60,
)


def test_document_key_depends_on_content_alone() -> None:
    assert document_key({"a": 1, "b": "ä"}) == document_key({"b": "ä", "a": 1})
    assert document_key({"a": 1}) != document_key({"a": "1"})
    assert document_key({"a": [1, 2]}) != document_key({"a": [12]})
    assert len(document_key({"lone surrogate": "\ud800"})) == 32


def test_digest_keeps_parts_apart() -> None:
    assert digest("ab", "c") != digest("a", "bc")


def test_interleave_by_hand() -> None:
    # Weights 3 : 1. Quotients (2n+1)/w: leaf 0 at 1/3, 1, 5/3; leaf 1 at 1. Ties go to leaf 0.
    assert interleave([3, 1], [3, 1]) == [0, 0, 1, 0]
    assert interleave([2, 2, 2], [1, 1, 1]) == [0, 1, 2, 0, 1, 2]


def test_interleave_goes_on_when_a_leaf_is_complete() -> None:
    assert interleave([1, 4], [1, 1]) == [0, 1, 1, 1, 1]
    assert interleave([0, 2], [1, 1]) == [1, 1]


sizes_and_weights = st.lists(
    st.tuples(st.integers(0, 40), st.floats(0.1, 100.0)), min_size=1, max_size=8
)


@given(sizes_and_weights)
def test_interleave_uses_everything_once(leaves: list[tuple[int, float]]) -> None:
    sizes = [size for size, _ in leaves]
    order = interleave(sizes, [weight for _, weight in leaves])
    assert Counter(order) == Counter({i: n for i, n in enumerate(sizes) if n})


@given(st.lists(st.floats(0.5, 20.0), min_size=2, max_size=6), st.integers(1, 100))
def test_interleave_follows_the_weights(weights: list[float], count: int) -> None:
    given_out = Counter(interleave([100] * len(weights), weights)[:count])
    shares = [count * weight / sum(weights) for weight in weights]
    # A divisor method stays near the exact share; it may leave the quota only with many leaves.
    for leaf, share in enumerate(shares):
        assert abs(given_out[leaf] - share) <= max(1.0, len(weights) / 2)


@given(rows, st.integers(0, 3))
def test_arrange_is_a_permutation_without_duplicates(
    contents: list[dict[str, Any]], seed: int
) -> None:
    documents = make(contents)
    ordered = arrange(documents, seed)
    assert len({d.key for d in ordered}) == len(ordered)
    assert {d.key for d in ordered} == {d.key for d in documents}


@given(rows, st.randoms(use_true_random=False))
def test_order_does_not_depend_on_the_file(contents: list[dict[str, Any]], random: Any) -> None:
    shuffled = list(contents)
    random.shuffle(shuffled)
    assert [d.key for d in arrange(make(contents), 0)] == [
        d.key for d in arrange(make(shuffled), 0)
    ]


def test_seeds_give_different_orders() -> None:
    orders = {tuple(d.index for d in arrange(numbered(20), seed)) for seed in range(5)}
    assert len(orders) == 5


def test_prefixes_are_stratified() -> None:
    documents = make([{"n": i, "stratum": "a" if i < 60 else "b"} for i in range(80)])
    ordered = arrange(documents, 0)
    for count in (4, 8, 20, 40, 80):
        strata = Counter(d.stratum for d in ordered[:count])
        assert abs(strata["a"] - 0.75 * count) <= 1


@given(rows, st.integers(0, 3))
def test_division_is_disjoint_and_complete(contents: list[dict[str, Any]], seed: int) -> None:
    documents = make(contents)
    parts = divide(documents, seed=seed)
    search, heldout = {d.key for d in parts.search}, {d.key for d in parts.heldout}
    assert not search & heldout
    assert search | heldout == {d.key for d in documents}
    assert not {d.passage for d in parts.search if d.passage} & {
        d.passage for d in parts.heldout if d.passage
    }
    assert divide(documents, seed=seed) == parts


def test_halves_differ_by_at_most_one() -> None:
    for count in range(12):
        search, heldout = halve(numbered(count))
        assert (len(search), len(heldout)) == (math.ceil(count / 2), count // 2)


def test_other_split_wins_over_search_documents() -> None:
    documents = make([{"n": i} for i in range(10)])
    other = make([{"n": i} for i in (8, 9, 10, 10)])
    parts = divide(documents, seed=0, other=other)
    assert sorted(d.content["n"] for d in parts.search) == list(range(8))
    assert sorted(d.content["n"] for d in parts.heldout) == [8, 9, 10]


def test_reserved_documents_are_in_no_other_part() -> None:
    documents = numbered(20)
    for other in (None, numbered(20)):
        parts = divide(documents, seed=0, other=other, num_reserved=4)
        keys = [{d.key for d in part} for part in (parts.search, parts.heldout, parts.fewshot)]
        assert len(keys[2]) == 4
        assert not keys[0] & keys[2]
        assert not keys[1] & keys[2]


def test_reserving_more_than_there_is_leaves_nothing() -> None:
    parts = divide(numbered(3), seed=0, num_reserved=4)
    assert (len(parts.search), len(parts.heldout), len(parts.fewshot)) == (0, 0, 3)


@pytest.mark.parametrize(
    ("asked", "available", "limit", "expected"),
    [(5, 10, None, 5), (50, 10, None, 10), (9, 10, 4, 4), (9, 10, 0.25, 3), (9, 10, 100, 9)],
)
def test_clamp(asked: int, available: int, limit: float | None, expected: int) -> None:
    assert clamp(asked, available, limit) == expected
