"""Writes safetensors shards tensor by tensor: headers first, since every size is known before."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_FORMAT_NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


@dataclass(frozen=True)
class Shard:
    """Consecutive tensors that share a file.

    Attributes:
        file: File name.
        names: Tensor names in the order of their bytes.
        shapes: Their shapes.
        dtype: Their dtype, a name in torch.
    """

    file: str
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, the header not counted."""
        return sum(tensor_bytes(shape, self.dtype) for shape in self.shapes)

    def header(self) -> bytes:
        """Returns the file's first bytes, up to the first tensor, padded to a multiple of 8."""
        entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
        position = 0
        for name, shape in zip(self.names, self.shapes, strict=True):
            end = position + tensor_bytes(shape, self.dtype)
            entries[name] = {
                "dtype": _FORMAT_NAMES[self.dtype],
                "shape": list(shape),
                "data_offsets": [position, end],
            }
            position = end
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text


def tensor_bytes(shape: Sequence[int], dtype: str) -> int:
    """Returns the size of a tensor in bytes."""
    return math.prod(shape) * _ITEM_BYTES[dtype]


def divide(
    tensors: Sequence[tuple[str, tuple[int, ...]]], dtype: str, shard_bytes: int
) -> list[Shard]:
    """Deals tensors out to files of at most ``shard_bytes``, in order.

    A larger tensor has a file of its own. A single file is called ``model.safetensors``.

    Args:
        tensors: Name and shape of each tensor.
        dtype: Name in torch.
        shard_bytes: Limit, > 0.
    """
    groups: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    filled = 0
    for name, shape in tensors:
        size = tensor_bytes(shape, dtype)
        if groups[-1] and filled + size > shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append((name, shape))
        filled += size
    count = len(groups)
    return [
        Shard(
            "model.safetensors" if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors",
            tuple(name for name, _ in group),
            tuple(shape for _, shape in group),
            dtype,
        )
        for number, group in enumerate(groups, start=1)
    ]


def write_shard(folder: Path, shard: Shard, tensors: Iterator[torch.Tensor]) -> None:
    """Writes one shard and forces it to the disk.

    Args:
        folder: Where the file goes.
        shard: What it holds.
        tensors: Yields the next tensor of the plan, on the CPU and contiguous; each is used up
            before the next one is asked for, so they may share memory.
    """
    import torch

    with (folder / shard.file).open("xb") as stream:
        stream.write(shard.header())
        for shape in shard.shapes:
            tensor = next(tensors)
            assert tuple(tensor.shape) == shape, "tensors must come in the order of the shard"
            if tensor.numel():
                stream.write(tensor.view(-1).view(torch.uint8).numpy().data)
        stream.flush()
        os.fsync(stream.fileno())


def index_text(shards: Sequence[Shard]) -> str:
    """Returns the content of ``model.safetensors.index.json``."""
    weight_map = {name: shard.file for shard in shards for name in shard.names}
    total = sum(shard.nbytes for shard in shards)
    data = {"metadata": {"total_size": total}, "weight_map": weight_map}
    return json.dumps(data, indent=2, sort_keys=True) + "\n"
