"""Merges matrices with a row per token whose rows stand for different tokens: block by block.

The rows of the result are divided by who has them, and by whether all have them in the same place.
Each block is merged by the step's own method as a tensor of its own (with its own trimming
threshold and angle), from inputs that are

- the model's own rows, where it has the tokens;
- where it has not, the mean of the rows of the models of this merge that have them. So a row that
  one model has comes out as that model's, whatever the weights, and a model without the token has
  no task vector there, nor does the base pull towards anything else;
- where no model of this merge has them, the mean of the rows of the models merged on the other
  side of the layers that have them;
- where those have not either, the mean row of the tokens that the model has. Its logit is the mean
  of the others: never the largest, and it changes no log-probability by more than 1/n for n tokens.

Padding rows, which belong to no token, are the donor's.

A model takes part in a merge if its weight is not 0. The common tokens are usually the first rows
of every matrix: that block reads them where they lie. Only where the places of common rows have
gaps (special tokens in another order) they are copied, which takes the memory of the inputs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from auto_merge.checkpoints.vocabulary import Ranges
from auto_merge.merging.layout import Reference
from auto_merge.merging.vocabularies import MergedVocabulary, Run
from auto_merge.methods.base import METHODS, Call

if TYPE_CHECKING:
    import torch

_CHUNK = 4096


@dataclass(frozen=True)
class RowInput:
    """One input of a block: the mean, row by row, of rows of one or more tensors.

    Attributes:
        parts: Tensors and the rows of them in the order of the block, equally many each.
        repeat: If not 0, all rows are averaged to one, which is repeated so often.
    """

    parts: tuple[tuple[Reference, Ranges], ...]
    repeat: int = 0


@dataclass(frozen=True)
class Block:
    """Rows of a result that the same models have.

    Attributes:
        rows: Which rows of the result.
        call: Method and parameters in simplest form; keys tell content and rows.
        inputs: One per source of the call.
        base: The call's base, ``None`` if it has none.
    """

    rows: Ranges
    call: Call
    inputs: tuple[RowInput, ...]
    base: RowInput | None


@dataclass(frozen=True)
class Matrix:
    """A tensor with a row per token, of one model.

    Attributes:
        key: Content of the tensor as text.
        reference: Role and name.
        height: Number of rows.
    """

    key: str
    reference: Reference
    height: int


def build_blocks(
    call: Call,
    matrices: Mapping[str, Matrix],
    others: Sequence[Matrix],
    donor: Matrix | None,
    vocabulary: MergedVocabulary,
) -> tuple[Block, ...]:
    """Divides a merge of matrices into blocks.

    Args:
        call: The merge in simplest form; its keys are those of ``matrices``.
        matrices: Key -> matrix.
        others: Matrices of models on the other side of the layers.
        donor: The donor's matrix; ``None`` if it has none (a bias that only others have).
        vocabulary: The tokens.

    Returns:
        Blocks that cover all rows of the result; none if no input has to be rearranged.
    """
    keys = dict.fromkeys((*call.sources, *([] if call.base is None else [call.base])))
    inputs = [matrices[key] for key in keys]
    if all(vocabulary.is_unchanged(m.reference[0], m.height) for m in inputs):
        return ()
    table = _Table([*inputs, *others], len(inputs), vocabulary)
    groups: dict[_Group, list[tuple[int, int]]] = {}
    for start, stop in table.segments():
        groups.setdefault(table.group(start), []).append((start, stop))
    blocks = []
    for group, found in groups.items():
        rows = _connected(found)
        if group.is_padding and donor is not None and rows[-1][1] <= donor.height:
            source = RowInput(((donor.reference, rows),))
            copied = Call("passthrough", (_key(donor.key, rows),), None, {"scale": 1.0})
            blocks.append(Block(rows, copied, (source,), None))
        else:
            blocks.append(_block(call, inputs, others, table, group, rows))
    return tuple(sorted(blocks, key=lambda block: block.rows))


@dataclass(frozen=True)
class _Group:
    """What rows of one block have in common.

    Attributes:
        owners: Numbers of the matrices whose rows are used.
        in_place: Whether the rows have the same number in all of them and in the result.
        is_padding: Whether they belong to no token.
    """

    owners: frozenset[int]
    in_place: bool
    is_padding: bool


class _Table:
    """Which matrix has which row of the result; the first ``num_inputs`` are those merged."""

    def __init__(
        self, matrices: Sequence[Matrix], num_inputs: int, vocabulary: MergedVocabulary
    ) -> None:
        self._vocabulary = vocabulary
        self._num_inputs = num_inputs
        self._runs = [vocabulary.runs(m.reference[0], m.height) for m in matrices]
        self._starts = [[run[0] for run in runs] for runs in self._runs]

    def segments(self) -> list[tuple[int, int]]:
        """Ranges of rows inside which no model's rows begin, end or jump."""
        cuts = {0, self._vocabulary.height}
        cuts.update(cut for pair in self._vocabulary.tokens for cut in pair)
        for runs in self._runs:
            cuts.update(cut for target, _, count in runs for cut in (target, target + count))
        ordered = sorted(cuts)
        return list(pairwise(ordered))

    def group(self, row: int) -> _Group:
        """Returns the group of a row of the result.

        Matrices that are not merged are used only where none of the others has the row.
        """
        if not any(start <= row < stop for start, stop in self._vocabulary.tokens):
            return _Group(frozenset(), in_place=True, is_padding=True)
        runs = {number: self._find(number, row) for number in range(len(self._runs))}
        found = {number: run for number, run in runs.items() if run is not None}
        inputs = {number: run for number, run in found.items() if number < self._num_inputs}
        used = inputs or found
        in_place = all(target == own for target, own, _ in used.values())
        return _Group(frozenset(used), in_place, is_padding=False)

    def own_rows(self, number: int, rows: Ranges) -> Ranges:
        """Returns where a matrix has rows of the result, all of which it must have."""
        found: list[tuple[int, int]] = []
        for start, stop in rows:
            while start < stop:
                run = self._find(number, start)
                assert run is not None, "only for rows that the model has"
                target, own, count = run
                end = min(stop, target + count)
                found.append((own + start - target, own + end - target))
                start = end
        return _connected(found)

    def all_rows(self, number: int) -> Ranges:
        """Returns the rows of a matrix that belong to tokens of the result, ascending."""
        return _connected(sorted((own, own + count) for _, own, count in self._runs[number]))

    def _find(self, number: int, row: int) -> Run | None:
        place = bisect_right(self._starts[number], row) - 1
        if place < 0:
            return None
        run = self._runs[number][place]
        return run if row < run[0] + run[2] else None


def _block(
    call: Call,
    inputs: Sequence[Matrix],
    others: Sequence[Matrix],
    table: _Table,
    group: _Group,
    rows: Ranges,
) -> Block:
    """The call on some rows, with what stands in for rows that a model lacks."""
    matrices = [*inputs, *others]
    having = {n: (matrices[n], table.own_rows(n, rows)) for n in sorted(group.owners)}
    found: dict[str, tuple[str, RowInput]] = {}
    for number, matrix in enumerate(inputs):
        if number in having:
            found[matrix.key] = _mean([having[number]])
        elif having:
            found[matrix.key] = _mean(list(having.values()))
        else:
            found[matrix.key] = _average(matrix, table.all_rows(number), rows)
    base = None if call.base is None else found[call.base][0]
    renamed = Call(call.method, tuple(found[k][0] for k in call.sources), base, call.arguments)
    simple = METHODS.get(call.method).simplify(renamed)
    by_key = dict(found.values())
    used = tuple(by_key[key] for key in simple.sources)
    return Block(rows, simple, used, None if simple.base is None else by_key[simple.base])


def _mean(parts: Sequence[tuple[Matrix, Ranges]]) -> tuple[str, RowInput]:
    """Key and input for the mean of rows; the order of the models and copies do not matter."""
    keyed = {_key(matrix.key, rows): (matrix.reference, rows) for matrix, rows in parts}
    keys = sorted(keyed)
    name = keys[0] if len(keys) == 1 else f"mean({','.join(keys)})"
    return name, RowInput(tuple(keyed[key] for key in keys))


def _average(matrix: Matrix, known: Ranges, rows: Ranges) -> tuple[str, RowInput]:
    count = _count(rows)
    return f"average({_key(matrix.key, known)}){count}", RowInput(
        ((matrix.reference, known),), repeat=count
    )


def _key(key: str, rows: Ranges) -> str:
    return f"{key}[{','.join(f'{start}:{stop}' for start, stop in rows)}]"


def _count(rows: Ranges) -> int:
    return sum(stop - start for start, stop in rows)


def _connected(rows: Sequence[tuple[int, int]]) -> Ranges:
    """Joins ranges that follow each other without a gap; the order stays as it is."""
    found: list[tuple[int, int]] = []
    for start, stop in rows:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((start, stop))
    return tuple(found)


def gather(rows: RowInput, tensor: Callable[[Reference], torch.Tensor]) -> torch.Tensor:
    """Returns the rows of an input: a view where they lie side by side in one tensor.

    Args:
        rows: The input.
        tensor: Returns a tensor by its reference.

    Returns:
        ``[n, ...]``, contiguous, never to be written to; float32 where rows were averaged.
    """
    import torch

    if rows.repeat:
        ((reference, ranges),) = rows.parts
        mean = _mean_row(tensor(reference), ranges)
        return mean.repeat(rows.repeat, *[1] * (mean.dim() - 1))
    found = [_select(tensor(reference), ranges) for reference, ranges in rows.parts]
    if len(found) == 1:
        return found[0]
    total = torch.zeros(found[0].shape, dtype=torch.float32, device=found[0].device)
    for part in found:
        total += part
    return total / len(found)


def _select(tensor: torch.Tensor, rows: Ranges) -> torch.Tensor:
    import torch

    parts = [tensor[start:stop] for start, stop in rows]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _mean_row(tensor: torch.Tensor, rows: Ranges) -> torch.Tensor:
    """Mean of rows in float64, in chunks of fixed size and order: ``[1, ...]``, float32."""
    import torch

    total = torch.zeros((1, *tensor.shape[1:]), dtype=torch.float64, device=tensor.device)
    for first, last in rows:
        for start in range(first, last, _CHUNK):
            part = tensor[start : min(start + _CHUNK, last)]
            total += part.sum(0, keepdim=True, dtype=torch.float64)
    return (total / _count(rows)).float()
