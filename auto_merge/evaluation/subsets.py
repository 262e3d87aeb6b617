"""Which documents of a task are scored, and in which order. Pure data; knows no vendor.

Every order in this module depends only on the seed and on the *content* of the documents, never on
their position in a file: reordering a data file changes nothing, and two tasks that share documents
put them on the same side of the search / held-out border.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Document:
    """One document of a leaf task.

    Attributes:
        index: Row in its dataset split, from 0.
        key: Content hash, see :func:`document_key`.
        content: The document as the task sees it.
        stratum: Value of the task's stratum field; ``""`` if it has none.
        passage: Value of the task's passage field, shared by documents that are not independent
            (questions on one text); ``""`` if it has none.
    """

    index: int
    key: str
    content: Mapping[str, Any] = field(compare=False, repr=False, default_factory=dict)
    stratum: str = ""
    passage: str = ""


@dataclass(frozen=True)
class Parts:
    """A leaf task's documents, divided. No key occurs in two parts.

    Attributes:
        search: Documents that a search may look at, in scoring order.
        heldout: Documents for the final comparison, in scoring order.
        fewshot: Documents set aside as few-shot examples; empty unless some were reserved.
    """

    search: tuple[Document, ...]
    heldout: tuple[Document, ...]
    fewshot: tuple[Document, ...] = ()


def _plain(value: Any) -> Any:
    """JSON form of the values that datasets put into documents (arrays, dates, bytes)."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return repr(value)


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces, unicode as it is."""
    return json.dumps(
        value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=_plain
    )


def digest(*parts: str) -> str:
    """First 128 bits of SHA-256 over length-prefixed parts, as 32 hexadecimal digits."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.hexdigest()[:32]


def document_key(content: Mapping[str, Any]) -> str:
    """Content hash of a document; equal documents have equal keys on every machine."""
    return digest(canonical_json(content))


def interleave(sizes: Sequence[int], weights: Sequence[float]) -> list[int]:
    """Order in which leaves give their documents so that every prefix follows the weights.

    The next document comes from the leaf with the smallest ``(2 n + 1) / weight``, n being the
    number it has given (Webster's, or Sainte-Laguë's, divisor method). Largest remainders would be
    as fair at one size, but they are not monotone: a leaf's share can fall when the total grows
    (the Alabama paradox), and a larger subset would then not contain the smaller one.

    Args:
        sizes: Number of documents of each leaf, >= 0.
        weights: Share of each leaf, > 0; the unit does not matter.

    Returns:
        Leaf indices, ``sum(sizes)`` of them; leaf i occurs ``sizes[i]`` times. When a leaf has
        given everything, the others go on.
    """
    heap = [(1.0 / w, i) for i, (n, w) in enumerate(zip(sizes, weights, strict=True)) if n > 0]
    heapq.heapify(heap)
    given = [0] * len(sizes)
    order = []
    while heap:
        _, leaf = heap[0]
        order.append(leaf)
        given[leaf] += 1
        if given[leaf] < sizes[leaf]:
            heapq.heapreplace(heap, ((2 * given[leaf] + 1) / weights[leaf], leaf))
        else:
            heapq.heappop(heap)
    return order


def arrange(documents: Sequence[Document], seed: int) -> list[Document]:
    """Seeded, stratified order without exact duplicates.

    Any prefix holds every stratum in proportion to its size. Of documents with the same key the one
    with the smallest index stays.
    """
    first: dict[str, Document] = {}
    for document in sorted(documents, key=lambda d: d.index):
        first.setdefault(document.key, document)
    strata: dict[str, list[Document]] = {}
    for document in sorted(first.values(), key=lambda d: digest(str(seed), d.key)):
        strata.setdefault(document.stratum, []).append(document)
    groups = [strata[name] for name in sorted(strata)]
    sizes = [len(group) for group in groups]
    sources = [iter(group) for group in groups]
    return [next(sources[i]) for i in interleave(sizes, sizes)]


def halve(documents: Sequence[Document]) -> tuple[list[Document], list[Document]]:
    """Cuts an arranged sequence in two, the first half being the larger by at most one.

    Documents of one passage stay together, as answers to questions on a text that was searched on
    are no independent proof; the halves then differ by up to one passage.
    """
    sizes: dict[str, int] = {}
    for document in documents:
        name = document.passage or document.key
        sizes[name] = sizes.get(name, 0) + 1
    kept: set[str] = set()
    count = 0
    for name, size in sizes.items():
        if 2 * count >= len(documents):
            break
        kept.add(name)
        count += size
    search = [d for d in documents if (d.passage or d.key) in kept]
    heldout = [d for d in documents if (d.passage or d.key) not in kept]
    return search, heldout


def divide(
    documents: Sequence[Document],
    *,
    seed: int,
    other: Sequence[Document] | None = None,
    num_reserved: int = 0,
) -> Parts:
    """Divides a leaf task's documents into search, held-out and few-shot documents.

    Args:
        documents: The documents that the task evaluates.
        seed: Seed of the order.
        other: Documents of another dataset split that are to be the held-out ones; a search
            document that occurs among them is dropped. ``None`` holds out the second half.
        num_reserved: Documents taken from the end of ``documents`` as few-shot examples, for tasks
            that would otherwise draw their examples from what they are scored on.
    """
    ordered = arrange(documents, seed)
    cut = max(0, len(ordered) - num_reserved)
    reserved = tuple(ordered[cut:])
    ordered = ordered[:cut]
    if other is None:
        search, heldout = halve(ordered)
    else:
        taken = {document.key for document in reserved}
        heldout = [d for d in arrange(other, seed) if d.key not in taken]
        proof = {document.key for document in heldout}
        search = [d for d in ordered if d.key not in proof]
    return Parts(tuple(search), tuple(heldout), reserved)


def clamp(num_documents: int, available: int, limit: float | None = None) -> int:
    """Number of documents scored when ``num_documents`` are asked for.

    Args:
        num_documents: Documents asked for, >= 1.
        available: Documents there are.
        limit: Upper bound as lm-eval means it: a number of documents, or a fraction if below 1.
    """
    if limit is not None:
        bound = math.ceil(limit * available) if limit < 1 else int(limit)
        available = min(available, bound)
    return min(num_documents, available)
