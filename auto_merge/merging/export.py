"""Writes a planned merge as an ordinary Hugging Face model folder, one tensor at a time."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from auto_merge.checkpoints.checkpoint import Checkpoint
from auto_merge.checkpoints.folder import INDEX, TOKENIZER_FILES
from auto_merge.checkpoints.vocab_files import extended_files
from auto_merge.errors import CheckpointError
from auto_merge.merging.execute import check_finite, finish, start_block, start_step
from auto_merge.merging.layout import Reference
from auto_merge.merging.memo import TensorMemo
from auto_merge.merging.plan import Plan
from auto_merge.merging.shards import Shard, divide, index_text, write_shard
from auto_merge.merging.staging import staged_folder

if TYPE_CHECKING:
    import torch

_SPARE_BYTES = 1 << 20  # for headers, index and whatever the file system adds


def export_model(
    plan: Plan,
    checkpoints: Mapping[str, Checkpoint],
    out: Path,
    *,
    files: Mapping[str, str],
    shard_bytes: int = 4 << 30,
    overwrite: bool = False,
) -> Path:
    """Merges a plan into a new model folder, which appears complete or not at all.

    Memory holds the inputs of one tensor (as file mappings) and one output tensor.

    Args:
        plan: What to build.
        checkpoints: Role -> opened model.
        out: Folder to create.
        files: Further text files, name -> content (``README.md``).
        shard_bytes: Largest size of a weight file, unless one tensor is larger.
        overwrite: Whether a model folder that exists at ``out`` is replaced.

    Returns:
        The absolute path of the new folder.

    Raises:
        CheckpointError: The folder exists, is one of the sources or cannot be written; the disk
            has not enough room.
        InvalidWeightsError: A merged tensor contains NaN or infinity.
    """
    out = out.expanduser().absolute()
    donor = checkpoints[plan.donor].path
    shards = divide([(s.output, s.shape) for s in plan.steps], plan.dtype, shard_bytes)
    texts = _texts(plan, shards, files) | extended_files(donor, plan.added_tokens)
    copies = [n for n in _copied_names() if (donor / n).is_file() and n not in texts]
    sources = {checkpoint.path for checkpoint in checkpoints.values()}
    with staged_folder(out, overwrite=overwrite, protected=sources) as folder:
        _check_space(folder, out, shards, texts, [donor / name for name in copies])
        for name in copies:
            shutil.copyfile(donor / name, folder / name)
            _sync(folder / name)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
            _sync(folder / name)
        tensors = merged_tensors(plan, checkpoints)
        for shard in shards:
            write_shard(folder, shard, tensors)
    return out


def merged_tensors(plan: Plan, checkpoints: Mapping[str, Checkpoint]) -> Iterator[torch.Tensor]:
    """Yields the tensors of a plan in order; each is valid only until the next one is asked for.

    Raises:
        InvalidWeightsError: A merged tensor contains NaN or infinity.
    """
    import torch

    dtype: torch.dtype = getattr(torch, plan.dtype)
    longest = max(math.prod(step.shape) for step in plan.steps)
    scratch = torch.empty(longest, dtype=dtype)

    def tensor(reference: Reference) -> torch.Tensor:
        role, name = reference
        return checkpoints[role].tensor(name)

    for step in plan.steps:
        sources = [tensor(reference) for reference in step.inputs]
        if step.is_copy and sources[0].dtype == dtype:
            yield sources[0]
            continue
        base = None if step.base is None else tensor(step.base)
        result = scratch[: math.prod(step.shape)].view(step.shape)
        with torch.no_grad():
            if step.blocks:
                started = [start_block(b, tensor, result, TensorMemo()) for b in step.blocks]
            else:
                started = [start_step(step, sources, base, result, TensorMemo())]
            counts = finish(started)
        check_finite(step, sum(counts))
        yield result


def _copied_names() -> tuple[str, ...]:
    return (*TOKENIZER_FILES, "generation_config.json")


def _texts(plan: Plan, shards: list[Shard], files: Mapping[str, str]) -> dict[str, str]:
    own = {"config.json": json.dumps(dict(plan.config), indent=2, sort_keys=True) + "\n"}
    if len(shards) > 1:
        own[INDEX] = index_text(shards)
    taken = {*own, *_copied_names(), *(shard.file for shard in shards)}
    for name in files:
        if name in taken or Path(name).name != name:
            raise ValueError(f"{name!r} cannot be an additional file of a model folder")
    return own | dict(files)


def _check_space(
    folder: Path, out: Path, shards: list[Shard], texts: Mapping[str, str], copies: list[Path]
) -> None:
    needed = sum(shard.nbytes for shard in shards) + sum(file.stat().st_size for file in copies)
    needed += sum(len(text.encode()) for text in texts.values())
    free = shutil.disk_usage(folder).free
    if needed + _SPARE_BYTES > free:
        raise CheckpointError(
            f"{out} needs {needed / 1e9:.2f} GB, but the disk has {free / 1e9:.2f} GB left; "
            "free some space or choose another place"
        )


def _sync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
