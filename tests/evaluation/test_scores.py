from __future__ import annotations

import math

import numpy as np
import pytest

from auto_merge.evaluation.scores import DocumentScores, document_weights, task_score


def scores(
    values: list[float], leaves: str, by_size: bool = True, clusters: list[int] | None = None
) -> DocumentScores:
    return DocumentScores(
        task="t",
        metric="acc,none",
        values=np.array(values, dtype=np.float64),
        weights=document_weights(tuple(leaves), by_size),
        leaves=tuple(leaves),
        documents=tuple(str(i) for i in range(len(values))),
        clusters=None if clusters is None else np.array(clusters),
    )


def test_weights_by_size_and_by_leaf() -> None:
    assert document_weights("aab", True).tolist() == [1 / 3, 1 / 3, 1 / 3]
    assert document_weights("aab", False).tolist() == [0.25, 0.25, 0.5]


def test_single_task_has_the_usual_standard_error() -> None:
    score = task_score(scores([1, 0, 1, 1], "aaaa"))
    assert score.mean == 0.75
    assert score.num_documents == 4
    assert score.standard_error == pytest.approx(0.5 / math.sqrt(4))


def test_group_by_hand() -> None:
    # Leaf a: 1, 0 (variance 1/2); leaf b: 1, 1, 0, 0 (variance 1/3).
    by_leaf = task_score(scores([1, 0, 1, 1, 0, 0], "aabbbb", by_size=False))
    assert by_leaf.mean == pytest.approx((0.5 + 0.5) / 2)
    assert by_leaf.standard_error == pytest.approx(math.sqrt(0.25 * 0.5 / 2 + 0.25 / 3 / 4))
    by_size = task_score(scores([1, 0, 1, 1, 1, 1], "aabbbb"))
    assert by_size.mean == pytest.approx(5 / 6)
    assert by_size.standard_error == pytest.approx(math.sqrt((1 / 3) ** 2 * 0.5 / 2))


def test_leaf_with_one_document_borrows_the_spread_of_all() -> None:
    score = task_score(scores([1, 0, 0, 1], "aaab"))
    spread = np.var([1, 0, 0, 1], ddof=1)
    expected = 0.75**2 * np.var([1, 0, 0], ddof=1) / 3 + 0.25**2 * spread
    assert score.standard_error == pytest.approx(math.sqrt(expected))


def test_one_document_has_no_error() -> None:
    assert task_score(scores([1], "a")).standard_error == 0.0
    assert task_score(scores([1, 0], "aa", clusters=[0, 0])).standard_error == 0.0


def test_singleton_clusters_change_nothing() -> None:
    values = [1, 0, 1, 1, 0, 1]
    plain = task_score(scores(values, "aaaaaa"))
    clustered = task_score(scores(values, "aaaaaa", clusters=list(range(6))))
    assert clustered.standard_error == pytest.approx(plain.standard_error)


def test_copies_in_a_cluster_count_once() -> None:
    values = [1, 0, 1, 1]
    single = task_score(scores(values, "aaaa"))
    doubled = task_score(scores(values * 2, "aaaaaaaa", clusters=[0, 1, 2, 3] * 2))
    assert doubled.standard_error == pytest.approx(single.standard_error)
