"""Content fingerprints of model folders, with the hashes of files remembered between processes."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from auto_merge.checkpoints.folder import TOKENIZER_FILES, read_json
from auto_merge.errors import CheckpointError

CACHE_FILE = "file_hashes.sqlite"

_VOLATILE = ("_name_or_path", "transformers_version", "name_or_path", "tokenizer_file")
"""Keys that differ between copies of one model without any effect."""

_TABLE = """
CREATE TABLE IF NOT EXISTS hashes (
  path TEXT, size INTEGER, mtime_ns INTEGER, inode INTEGER, sha256 TEXT NOT NULL,
  PRIMARY KEY (path)
)
"""


class FileHashes:
    """SHA-256 of files; with a folder, remembered there under path, size, mtime and inode.

    A context manager; several processes may share the folder. A damaged or unwritable cache file
    costs time, never an error.

    Args:
        cache_dir: Created if needed; ``None`` remembers nothing.
    """

    def __init__(self, cache_dir: Path | None = None) -> None:
        self._database: sqlite3.Connection | None = None
        if cache_dir is not None:
            self._database = _open(cache_dir / CACHE_FILE)

    def __enter__(self) -> FileHashes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def of(self, files: Sequence[Path]) -> list[str]:
        """Returns the hexadecimal SHA-256 of each file; unknown files are read in parallel.

        Raises:
            CheckpointError: A file cannot be read.
        """
        keys = [_key(file) for file in files]
        known = [self._recall(key) for key in keys]
        unknown = [number for number, digest in enumerate(known) if digest is None]
        with ThreadPoolExecutor(max_workers=4) as pool:
            computed = list(pool.map(lambda number: _hash(files[number]), unknown))
        result = dict(zip(unknown, computed, strict=True))
        for number, digest in result.items():
            self._remember(keys[number], digest)
        return [known_digest or result[n] for n, known_digest in enumerate(known)]

    def _recall(self, key: tuple[Any, ...]) -> str | None:
        if self._database is None:
            return None
        query = "SELECT sha256 FROM hashes WHERE path=? AND size=? AND mtime_ns=? AND inode=?"
        try:
            row = self._database.execute(query, key).fetchone()
        except sqlite3.Error:
            return None
        return str(row[0]) if row else None

    def _remember(self, key: tuple[Any, ...], digest: str) -> None:
        if self._database is None:
            return
        try:
            with self._database:
                self._database.execute(
                    "INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?)", (*key, digest)
                )
        except sqlite3.Error:
            return


def folder_digest(folder: Path, weights: Sequence[Path], hashes: FileHashes) -> str:
    """Hashes weight files, configuration and tokenizer of a model folder by name and content.

    Keys of JSON settings that only record where a copy came from do not count.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for file, content in zip(weights, hashes.of(weights), strict=True):
        digest.update(f"{file.name}:{content}\n".encode())
    digest.update(_settings_digest(folder / "config.json").encode())
    digest.update(tokenizer_digest(folder, hashes).encode())
    return digest.hexdigest()


def tokenizer_digest(folder: Path, hashes: FileHashes) -> str:
    """Hashes what shapes prompts and generation: tokenizer files and generation settings."""
    digest = hashlib.sha256()
    for name in (*TOKENIZER_FILES, "generation_config.json"):
        file = folder / name
        if not file.is_file():
            continue
        settings = name in ("tokenizer_config.json", "generation_config.json")
        content = _settings_digest(file) if settings else hashes.of([file])[0]
        digest.update(f"{name}:{content}\n".encode())
    return digest.hexdigest()


def canonical(data: Any) -> str:
    """Returns JSON text that is equal for equal content: sorted keys, no spaces, no NaN."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def without_volatile(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns JSON settings without the keys that only record where a copy came from."""
    return {key: value for key, value in settings.items() if key not in _VOLATILE}


def _settings_digest(file: Path) -> str:
    settings = without_volatile(read_json(file))
    # Settings may hold NaN or Infinity (Python's JSON writes them), which canonical() refuses.
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _open(file: Path) -> sqlite3.Connection | None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(file, timeout=10.0)
        database.execute(_TABLE)
    except (sqlite3.Error, OSError):
        return None
    return database


def _key(file: Path) -> tuple[str, int, int, int]:
    try:
        status = file.stat()
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from error
    return (str(file.absolute()), status.st_size, status.st_mtime_ns, status.st_ino)


def _hash(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            digest = hashlib.sha256()
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from error
    return digest.hexdigest()
