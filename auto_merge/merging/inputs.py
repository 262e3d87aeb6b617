"""Source tensors on the device where merging happens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from auto_merge.checkpoints.checkpoint import Checkpoint
from auto_merge.merging.layout import Reference

if TYPE_CHECKING:
    import torch

_SHARE_OF_FREE_MEMORY = 0.5


class Inputs:
    """Hands out source tensors: mapped files on the CPU, resident copies on an accelerator.

    An accelerator keeps source tensors for later candidates, up to half of the memory that was
    free at the start; what does not fit is sent again every time.

    Args:
        checkpoints: Role -> opened model.
        device: Where the tensors are wanted.
    """

    def __init__(self, checkpoints: Mapping[str, Checkpoint], device: torch.device) -> None:
        self._checkpoints = checkpoints
        self._device = device
        self._resident: dict[tuple[str, str], torch.Tensor] = {}
        self._room = _free_bytes(device)

    def get(self, reference: Reference) -> torch.Tensor:
        """Returns a tensor that must not be written to."""
        kept = self.kept(reference)
        if kept is not None:
            return kept
        role, name = reference
        return self._checkpoints[role].tensor(name).to(self._device)

    def kept(self, reference: Reference) -> torch.Tensor | None:
        """Returns a tensor that stays in memory anyway, ``None`` if there is no room to keep it."""
        role, name = reference
        tensor = self._checkpoints[role].tensor(name)
        if self._device.type == "cpu":
            return tensor
        # By content: two roles may be the same model.
        key = (self._checkpoints[role].fingerprint, name)
        if key not in self._resident:
            if tensor.nbytes > self._room:
                return None
            self._room -= tensor.nbytes
            self._resident[key] = tensor.to(self._device)
        return self._resident[key]


def _free_bytes(device: torch.device) -> int:
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * _SHARE_OF_FREE_MEMORY)
    return 0
