"""A folder that appears complete or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from auto_merge.errors import CheckpointError


@contextlib.contextmanager
def staged_folder(out: Path, *, overwrite: bool, protected: Collection[Path]) -> Iterator[Path]:
    """Yields an empty sibling folder that becomes ``out`` when the block ends without an error.

    After an error it is removed and ``out`` is as before. What a killed process left behind is
    removed by the next call for the same ``out``.

    Args:
        out: The folder to be. Its parents are created.
        overwrite: Whether an existing model folder may be replaced.
        protected: Folders that must not be replaced, whatever ``overwrite`` says.

    Raises:
        CheckpointError: ``out`` exists and may not be replaced, or cannot be created.
    """
    out = out.expanduser().absolute()
    _check_target(out, overwrite, protected)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(out)
        part = _sibling(out)
        part.mkdir()
    except OSError as error:
        raise CheckpointError(f"cannot write to {out.parent}: {error.strerror}") from error
    try:
        yield part
        _sync_folder(part)
        _replace(part, out)
    except OSError as error:
        raise CheckpointError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check_target(out: Path, overwrite: bool, protected: Collection[Path]) -> None:
    resolved = out.resolve()
    for folder in protected:
        if resolved == folder.resolve() or resolved in folder.resolve().parents:
            raise CheckpointError(f"{out} holds the model {folder}, which goes into this merge")
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir() or out.is_symlink():
        raise CheckpointError(f"{out} exists and is not a folder; choose another name")
    if not any(out.iterdir()):
        return
    if not overwrite:
        raise CheckpointError(f"{out} exists already; choose another name or pass --overwrite")
    if not (out / "config.json").is_file():
        raise CheckpointError(f"{out} is not a model folder, so it is not overwritten")


def _remove_abandoned(out: Path) -> None:
    """Removes staging folders of processes that are no more."""
    pattern = re.compile(rf"\.{re.escape(out.name)}\.(\d+)\.\w+")
    for folder in out.parent.iterdir():
        match = pattern.fullmatch(folder.name)
        if match and folder.is_dir() and not _runs(int(match.group(1))):
            shutil.rmtree(folder, ignore_errors=True)


def _sibling(out: Path) -> Path:
    """Returns a new hidden name beside ``out`` that tells which process uses it."""
    return out.with_name(f".{out.name}.{os.getpid()}.{secrets.token_hex(4)}")


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _replace(part: Path, out: Path) -> None:
    """Renames ``part`` to ``out``; an old ``out`` steps aside and comes back if that fails."""
    if not out.exists() or not any(out.iterdir()):
        part.replace(out)
    else:
        aside = _sibling(out)
        out.replace(aside)
        try:
            part.replace(out)
        except OSError:
            aside.replace(out)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    _sync_folder(out.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
