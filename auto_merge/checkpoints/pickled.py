"""Weights in PyTorch's pickle format, read without running code, where that is allowed."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from auto_merge.checkpoints.headers import WEIGHT_DTYPES, TensorInfo
from auto_merge.errors import CheckpointError

if TYPE_CHECKING:
    import torch


def read_pickled(files: list[Path]) -> tuple[dict[str, TensorInfo], dict[str, torch.Tensor]]:
    """Reads the tensors of ``pytorch_model*.bin`` files with torch's restricted unpickler.

    Returns:
        The descriptions (``start`` is 0: a pickle has no fixed layout) and the mapped tensors.

    Raises:
        CheckpointError: A file is damaged or holds anything but tensors of a known dtype.
    """
    import torch

    names = {f"torch.{name}": short for short, name in WEIGHT_DTYPES.items()}
    infos: dict[str, TensorInfo] = {}
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except (OSError, RuntimeError, pickle.UnpicklingError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise CheckpointError(f"cannot read {file} safely: {reason}") from error
        for name, tensor in content.items():
            if not isinstance(tensor, torch.Tensor) or str(tensor.dtype) not in names:
                raise CheckpointError(f"{file}: {name} is not a floating-point tensor")
            tensors[name] = tensor.contiguous()
            short, shape = names[str(tensor.dtype)], tuple(tensor.shape)
            infos[name] = TensorInfo(name, short, shape, file, 0, tensor.nbytes)
    return infos, tensors
