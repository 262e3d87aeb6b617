"""Tensors as views of shared, read-only file mappings: nothing is copied, nothing can be changed.

Pages belong to the file and are shared by all processes, so sources larger than memory work.
Writing to such a tensor ends the process (the pages are protected); callers only read.
"""

from __future__ import annotations

import mmap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from auto_merge.checkpoints.headers import WEIGHT_DTYPES, TensorInfo
from auto_merge.errors import CheckpointError

if TYPE_CHECKING:
    import torch


class MappedFiles:
    """Maps weight files on first use and hands out views of their tensors."""

    def __init__(self) -> None:
        self._bytes: dict[Path, torch.Tensor] = {}

    def view(self, info: TensorInfo) -> torch.Tensor:
        """Returns a read-only view of a tensor with its own dtype and shape.

        Raises:
            CheckpointError: The file has vanished, or was truncated since it was opened.
        """
        import torch

        dtype = getattr(torch, WEIGHT_DTYPES[info.dtype])
        if info.nbytes == 0:
            return torch.empty(info.shape, dtype=dtype)
        if info.file not in self._bytes:
            self._bytes[info.file] = _map(info.file)
        content = self._bytes[info.file]
        if info.start + info.nbytes > content.numel():
            raise CheckpointError(f"{info.file} became shorter while it was in use")
        part = content[info.start : info.start + info.nbytes]
        if info.start % dtype.itemsize:
            part = part.clone()  # a legal file may be unaligned; torch cannot view that
        return part.view(dtype).view(info.shape)


def _map(file: Path) -> torch.Tensor:
    """Returns all bytes of a file as a uint8 tensor."""
    import torch

    try:
        with file.open("rb") as stream:
            # Shared and read-only: such a mapping counts against no memory limit, a private
            # writable one does.
            mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot map {file}: {error}") from error
    with warnings.catch_warnings():
        # torch warns that it cannot protect the buffer from writes; the page table does.
        warnings.filterwarnings("ignore", message=".*not writable.*", category=UserWarning)
        return torch.frombuffer(mapping, dtype=torch.uint8)
