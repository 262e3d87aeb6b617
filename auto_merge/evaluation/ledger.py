"""The score ledger: one SQLite file that remembers what every document scored on every candidate.

It is shared by runs and by processes. A row is written once and never changed, so a reader can
never see a half-known document, and two writers of the same row agree.
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from auto_merge.errors import RunError

Metrics = Mapping[str, float]
"""Metric key (``"acc,none"``) -> value of one document."""

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS candidates (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS documents (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS scores (
    candidate INTEGER NOT NULL REFERENCES candidates (id),
    document INTEGER NOT NULL REFERENCES documents (id),
    metrics TEXT NOT NULL,
    PRIMARY KEY (candidate, document)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Row:
    """What one document scored on one candidate.

    Attributes:
        candidate: Candidate key: the model's digest together with everything else that a score
            depends on (task source, prompt settings, versions).
        document: Document key.
        metrics: All metrics of the document, finite.
    """

    candidate: str
    document: str
    metrics: Metrics


class Ledger:
    """The ledger file.

    One object serves one thread at a time; other processes open the same path.

    Args:
        path: The SQLite file; it and its folder are made if absent.
        timeout: Seconds to wait for another writer's transaction.

    Raises:
        RunError: The file cannot be opened, is no ledger, or is damaged.
    """

    def __init__(self, path: Path, *, timeout: float = 60.0) -> None:
        self.path = path
        self._timeout = timeout
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=timeout, isolation_level=None, check_same_thread=False
            )
            try:
                self._set_up()
            except BaseException:
                self._connection.close()
                raise

    def _set_up(self) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            raise RunError(
                f"score ledger {self.path} has format {version}, this program writes {_VERSION}; "
                "move the file away or use another cache_dir"
            )
        self._connection.execute("PRAGMA journal_mode = WAL")
        # A killed process loses nothing with NORMAL; a power cut may lose the last chunks, which
        # are then scored again. The file stays whole either way.
        self._connection.execute("PRAGMA synchronous = NORMAL")
        if version == 0:
            self._connection.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;"
            )

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turns SQLite's and the file system's errors into one line that names the file."""
        try:
            yield
        except sqlite3.OperationalError as error:
            text = str(error)
            if "full" in text:
                hint = "no space left on its device; nothing was written, free space and run again"
            elif "locked" in text or "busy" in text:
                hint = f"another process has held it for {self._timeout:g} s; try again later"
            else:
                hint = f"{text}; check that its folder exists and can be written to"
            raise RunError(f"score ledger {self.path}: {hint}") from error
        except (sqlite3.DatabaseError, json.JSONDecodeError) as error:
            raise RunError(
                f"score ledger {self.path} is damaged ({error}); delete it, "
                "the scores in it are then computed again"
            ) from error
        except OSError as error:
            raise RunError(f"score ledger {self.path}: {error.strerror or error}") from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            # SQLite has already rolled back by itself after a full disk.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def get(self, candidate: str, documents: Sequence[str]) -> dict[str, dict[str, float]]:
        """Returns the metrics of those of ``documents`` that were scored, by document key."""
        wanted = set(documents)
        with self._translated():
            rows = self._connection.execute(
                "SELECT d.key, s.metrics FROM candidates c JOIN scores s ON s.candidate = c.id"
                " JOIN documents d ON d.id = s.document WHERE c.key = ?",
                (candidate,),
            )
            return {key: json.loads(metrics) for key, metrics in rows if key in wanted}

    def put(self, rows: Iterable[Row]) -> None:
        """Writes rows in one transaction: all of them or none. Rows that exist stay as they are.

        Raises:
            ValueError: A metric is NaN or infinite; nothing is written.
            RunError: The disk is full, the file is locked or damaged; nothing is written.
        """
        rows = list(rows)
        for row in rows:
            for metric, value in row.metrics.items():
                if not math.isfinite(value):
                    raise ValueError(f"document {row.document}: {metric} is {value}")
        candidates = {(row.candidate,) for row in rows}
        documents = {(row.document,) for row in rows}
        values = [(json.dumps(dict(row.metrics)), row.candidate, row.document) for row in rows]
        with self._translated(), self._transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO candidates (key) VALUES (?)", candidates)
            connection.executemany("INSERT OR IGNORE INTO documents (key) VALUES (?)", documents)
            connection.executemany(
                "INSERT OR IGNORE INTO scores (candidate, document, metrics)"
                " SELECT c.id, d.id, ?1 FROM candidates c, documents d"
                " WHERE c.key = ?2 AND d.key = ?3",
                values,
            )

    def count(self, candidate: str | None = None) -> int:
        """Returns the number of scored documents of one candidate, or of all together."""
        query = "SELECT count(*) FROM scores s JOIN candidates c ON s.candidate = c.id"
        with self._translated():
            if candidate is None:
                (number,) = self._connection.execute(query).fetchone()
            else:
                found = self._connection.execute(f"{query} WHERE c.key = ?", (candidate,))
                (number,) = found.fetchone()
        return int(number)

    def close(self) -> None:
        """Closes the file; using the ledger afterwards is an error."""
        self._connection.close()
