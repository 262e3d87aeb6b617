"""Per-document scores and what is computed from them. Pure numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from auto_merge.trial import TaskScore

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DocumentScores:
    """One metric of one configured task on one model, document by document.

    All sequences have the same length n and order; the order is the same for every model.

    Attributes:
        task: Configured task or group name.
        metric: Metric key.
        values: ``[n]`` float64, in the metric's own unit.
        weights: ``[n]`` float64, summing to 1: the task's score is ``weights @ values``.
        leaves: Leaf task of each document.
        documents: Content hash of each document.
        clusters: ``[n]`` int64, equal for documents that share a passage; ``None`` if no leaf
            declares passages, so that all documents are independent.
    """

    task: str
    metric: str
    values: Floats
    weights: Floats
    leaves: tuple[str, ...]
    documents: tuple[str, ...]
    clusters: npt.NDArray[np.int64] | None


def _numbered(names: Sequence[object]) -> npt.NDArray[np.int64]:
    """Numbers equal names alike, ``[n]`` int64 from 0 in order of first appearance."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)


def document_weights(leaves: Sequence[str], by_size: bool) -> Floats:
    """Weight of each document in its task's score, ``[n]``, summing to 1.

    Args:
        leaves: Leaf of each document.
        by_size: Leaves count by their number of documents, so that every document counts the same;
            otherwise leaves count the same. Leaves without a document count nothing.
    """
    if by_size:
        return np.full(len(leaves), 1.0 / len(leaves))
    place = _numbered(leaves)
    counts = np.bincount(place)
    return np.divide(1.0, len(counts) * counts[place])


def standard_error(scores: DocumentScores) -> float:
    """Standard error of a task's score, stratified by leaf.

    ``SE^2 = sum over leaves of (sum of weights)^2 s^2 / n``, s being the sample standard deviation
    in the leaf; for a leaf with one document, that of all documents. Where documents share a
    passage, a passage's weighted residuals are summed first (cluster-robust variance of a mean).
    0.0 with fewer than two independent documents.
    """
    leaf = _numbered(scores.leaves)
    if scores.clusters is not None:
        return _clustered_error(scores, leaf)
    if len(scores.values) < 2:
        return 0.0
    total = 0.0
    for index in range(int(leaf.max()) + 1):
        values = scores.values[leaf == index]
        share = float(scores.weights[leaf == index].sum())
        spread = values if len(values) > 1 else scores.values
        total += share**2 * float(spread.var(ddof=1)) / len(values)
    return math.sqrt(total)


def _clustered_error(scores: DocumentScores, leaf: npt.NDArray[np.int64]) -> float:
    residuals = np.zeros_like(scores.values)
    for index in range(int(leaf.max()) + 1):
        here = leaf == index
        residuals[here] = scores.values[here] - scores.values[here].mean()
    assert scores.clusters is not None
    sums = np.bincount(_numbered(scores.clusters.tolist()), weights=scores.weights * residuals)
    count = len(sums)
    if count < 2:
        return 0.0
    return math.sqrt(float((sums**2).sum()) * count / (count - 1))


def task_score(scores: DocumentScores) -> TaskScore:
    """Mean and standard error of a task."""
    return TaskScore(
        task=scores.task,
        metric=scores.metric,
        mean=math.fsum((scores.weights * scores.values).tolist()),
        num_documents=len(scores.values),
        standard_error=standard_error(scores),
    )
