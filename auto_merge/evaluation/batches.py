"""Cuts work into batches that fit, and the few tensor helpers that batches need."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

import torch

from auto_merge.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Item = TypeVar("Item")

# "auto": tokens per batch. On a CPU more rows bring nothing once the matrices fill the caches; on
# an accelerator it is a first guess, halved whenever memory runs out.
_TOKENS_CPU = 4096
_TOKENS_ACCELERATOR = 65536
_MAX_ROWS = 512


class Batcher:
    """Runs items in batches.

    Args:
        batch_size: Items per batch, >= 1, or ``"auto"``: bounded by tokens, and halved for the rest
            of this object's life when an accelerator runs out of memory.
    """

    def __init__(self, batch_size: int | Literal["auto"]) -> None:
        self._batch_size = batch_size
        self._shrink = 1

    def _rows(self, length: int, device: str) -> int:
        if self._batch_size != "auto":
            return self._batch_size
        budget = _TOKENS_CPU if device == "cpu" else _TOKENS_ACCELERATOR
        return max(1, min(_MAX_ROWS, budget // max(length, 1)) // self._shrink)

    def run(
        self,
        device: str,
        ordered: Sequence[Item],
        length: Callable[[Item], int],
        run: Callable[[list[Item]], None],
    ) -> None:
        """Calls ``run`` on consecutive batches.

        Args:
            device: Device type, ``"cpu"`` or an accelerator's.
            ordered: Items, longest first, so that the first of a batch tells its width.
            length: Tokens of an item.
            run: Works on one batch.

        Raises:
            torch.OutOfMemoryError: Not even one item fits, or a fixed batch does not.
            MemoryError: The same on a CPU.
        """
        start = 0
        while start < len(ordered):
            rows = self._rows(length(ordered[start]), device)
            batch = list(ordered[start : start + rows])
            if self._attempt(run, batch):
                start += len(batch)
            else:
                # The failed batch's tensors are gone with the exception; give their blocks back.
                torch.cuda.empty_cache()

    def _attempt(self, run: Callable[[list[Item]], None], batch: list[Item]) -> bool:
        """Runs a batch; ``False`` if it did not fit and a smaller one is to be tried."""
        try:
            with _memory_errors():
                run(batch)
        except torch.OutOfMemoryError:
            if self._batch_size != "auto" or len(batch) == 1:
                raise
            self._shrink *= 2
            return False
        return True


@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
    """Gives the CPU allocator's failure its proper type; the accelerators' have theirs."""
    try:
        yield
    except RuntimeError as error:
        if "can't allocate memory" in str(error) or "not enough memory" in str(error):
            raise MemoryError(str(error)) from error
        raise


def pad(rows: Sequence[Sequence[int]], side: Literal["left", "right"], fill: int) -> torch.Tensor:
    """Token matrix ``[n, longest]``, int64, on the CPU."""
    longest = max(len(row) for row in rows)
    if side == "left":
        return torch.tensor([[fill] * (longest - len(row)) + list(row) for row in rows])
    return torch.tensor([list(row) + [fill] * (longest - len(row)) for row in rows])


def check_tokens(model: PreTrainedModel, tokens: torch.Tensor) -> None:
    """Refuses tokens without an embedding; on a GPU they would take the whole process down."""
    size = model.get_input_embeddings().weight.shape[0]
    largest = int(tokens.max())
    if largest >= size:
        raise CheckpointError(
            f"the tokenizer gives token {largest}, but the model has only {size} embeddings; "
            "use the tokenizer that belongs to the model"
        )


def keep_arguments(model: PreTrainedModel, count: int) -> dict[str, int]:
    """Asks a model for its last ``count`` outputs only, if it can be asked."""
    known = "logits_to_keep" in inspect.signature(model.forward).parameters
    return {"logits_to_keep": count} if known else {}
