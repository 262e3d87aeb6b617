"""The run folder on disk.

======================  =======================================================================
``manifest.json``       resolved config, versions, fingerprints, seeds; written once
``run.sqlite``          every ask and tell in order (the truth), notes, the final result
``run.lock``            held by the one process that works on the run
``best/``               the exported winner
``report.html``         the report
======================  =======================================================================
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from auto_merge.errors import RunError
from auto_merge.trial import Outcome, Trial

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    sequence INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('ask', 'tell')),
    trial INTEGER NOT NULL,
    payload TEXT NOT NULL,
    at REAL NOT NULL,
    active_seconds REAL NOT NULL,
    waiting_seconds REAL NOT NULL,
    documents INTEGER NOT NULL,
    UNIQUE (kind, trial)
);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
VERSION = 1
_LEFTOVERS = ("run.sqlite", "run.sqlite-wal", "run.sqlite-shm", "run.lock", "run.lock.manifest")


@dataclass(frozen=True)
class Clock:
    """Running totals of a run over all its processes.

    Attributes:
        active_seconds: Wall seconds in which a process worked on the run.
        waiting_seconds: Part of it in which nothing was merged or evaluated.
        documents: Documents newly scored, all tasks together.
    """

    active_seconds: float = 0.0
    waiting_seconds: float = 0.0
    documents: int = 0


@dataclass(frozen=True)
class Event:
    """One row of the log: an ask carries the trial, a tell its outcome."""

    kind: str
    trial: int
    payload: Mapping[str, Any]
    clock: Clock

    def asked(self) -> Trial:
        """The trial of an ask."""
        return Trial(**self.payload)

    def told(self) -> Outcome:
        """The outcome of a tell."""
        return Outcome.from_json(self.payload)


class RunStore:
    """Reads and appends the state of one run.

    Args:
        folder: The run folder.

    Raises:
        RunError: The folder holds no run, or its database is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = _read_manifest(folder)
        self._database = self._connect()

    @classmethod
    def create(cls, folder: Path, manifest: Mapping[str, Any]) -> RunStore:
        """Starts a run in an empty or absent folder.

        The manifest is written last, by rename: a folder with a manifest is a whole run.

        Raises:
            RunError: The folder holds something else, or cannot be written.
        """
        cls.check_free(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / "run.lock", timeout=10):
                cls._write(folder, manifest)
        except (OSError, sqlite3.Error) as error:
            for name in _LEFTOVERS:
                with contextlib.suppress(OSError):
                    (folder / name).unlink(missing_ok=True)
            reason = getattr(error, "strerror", None) or error
            raise RunError(f"{folder}: cannot be written: {reason}") from None
        return cls(folder)

    @classmethod
    def _write(cls, folder: Path, manifest: Mapping[str, Any]) -> None:
        """Writes database and manifest of a new run; the caller holds its lock."""
        if cls.exists(folder):
            raise RunError(f"{folder}: another process has just started a run here")
        database = sqlite3.connect(folder / "run.sqlite")
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(_SCHEMA)
        database.close()
        temporary = folder / "run.lock.manifest"
        temporary.write_text(json.dumps({"version": VERSION, **manifest}, indent=1), "utf-8")
        os.replace(temporary, folder / "manifest.json")

    @staticmethod
    def check_free(folder: Path) -> None:
        """Refuses a folder that holds anything but the leftovers of a start that was cut off.

        Raises:
            RunError: It does, or is no folder.
        """
        if not folder.exists():
            return
        if not folder.is_dir():
            raise RunError(f"{folder}: is a file; choose another --output")
        strangers = sorted(path.name for path in folder.iterdir() if path.name not in _LEFTOVERS)
        if strangers:
            raise RunError(
                f"{folder}: the output folder is not empty (holds {strangers[0]!r}) and is no "
                "run; choose another --output"
            )

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether the folder holds a run."""
        return (folder / "manifest.json").is_file()

    def close(self) -> None:
        """Closes the database."""
        self._database.close()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the run for this process; the kernel lets go of it when the process dies.

        Raises:
            RunError: Another process works on the run.
        """
        lock = FileLock(self.folder / "run.lock")
        try:
            # A reader that asks for the state holds the lock for an instant: wait it out.
            lock.acquire(timeout=2)
        except Timeout:
            raise self._in_use() from None
        try:
            yield
        finally:
            lock.release()

    def is_locked(self) -> bool:
        """Whether a process works on the run now."""
        lock = FileLock(self.folder / "run.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False

    def refuse_if_locked(self) -> None:
        """Refuses early what :meth:`lock` would refuse later.

        Raises:
            RunError: Another process works on the run.
        """
        if self.is_locked():
            raise self._in_use()

    def _in_use(self) -> RunError:
        return RunError(f"{self.folder}: another process works on this run; see its status")

    def append(
        self, clock: Clock, *, ask: Trial | None, tell: tuple[Trial, Outcome] | None
    ) -> None:
        """Appends an ask, a tell, or both (the ask first) in one durable transaction."""
        rows = []
        if ask is not None:
            rows.append(("ask", ask.index, ask.to_json()))
        if tell is not None:
            rows.append(("tell", tell[0].index, tell[1].to_json()))
        now = time.time()
        with self._writing():
            self._database.executemany(
                "INSERT INTO events (kind, trial, payload, at, active_seconds, waiting_seconds, "
                "documents) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        kind,
                        index,
                        json.dumps(payload),
                        now,
                        clock.active_seconds,
                        clock.waiting_seconds,
                        clock.documents,
                    )
                    for kind, index, payload in rows
                ],
            )

    def events(self) -> list[Event]:
        """All events in order.

        Raises:
            RunError: The database is damaged.
        """
        rows = self._select(
            "SELECT kind, trial, payload, active_seconds, waiting_seconds, documents "
            "FROM events ORDER BY sequence"
        )
        return [
            Event(kind, trial, json.loads(payload), Clock(active, waiting, documents))
            for kind, trial, payload, active, waiting, documents in rows
        ]

    def forget_events(self) -> None:
        """Removes all events, for a run that never got off the ground."""
        with self._writing():
            self._database.execute("DELETE FROM events")

    def set_fact(self, name: str, value: Any) -> None:
        """Stores a JSON-able value under a name, replacing an earlier one."""
        with self._writing():
            self._database.execute(
                "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = ?",
                (name, json.dumps(value), json.dumps(value)),
            )

    def fact(self, name: str, default: Any = None) -> Any:
        """Returns the value stored under a name."""
        rows = self._select("SELECT value FROM facts WHERE name = ?", name)
        return json.loads(rows[0][0]) if rows else default

    def _select(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        try:
            return self._database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise RunError(f"{self.folder / 'run.sqlite'}: damaged: {error}") from None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._database:
                yield
        except sqlite3.Error as error:
            raise RunError(f"{self.folder / 'run.sqlite'}: cannot be written: {error}") from None

    def _connect(self) -> sqlite3.Connection:
        path = self.folder / "run.sqlite"
        try:
            # Never created here: a run whose database is gone is not an empty run.
            place = f"{path.absolute().as_uri()}?mode=rw"
            database = sqlite3.connect(place, timeout=30, uri=True)
            database.execute("PRAGMA synchronous = FULL")
            database.execute("SELECT COUNT(*) FROM facts")
        except sqlite3.Error as error:
            raise RunError(f"{path}: not a readable run database: {error}") from None
        return database


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.is_file():
        raise RunError(f"{folder}: not a run folder (no manifest.json)")
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise RunError(f"{path}: damaged ({error}); restore it or start a new run") from None
    if not isinstance(manifest, dict) or not {"name", "objectives"} <= set(manifest):
        raise RunError(f"{path}: damaged (not a manifest); restore it or start a new run")
    if manifest.get("version") != VERSION:
        raise RunError(
            f"{path}: format version {manifest.get('version')!r}, this program reads {VERSION}"
        )
    return manifest
