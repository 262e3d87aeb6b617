from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from auto_merge.errors import RunError
from auto_merge.evaluation.ledger import Ledger, Row


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "scores.sqlite"


def rows(candidate: str, numbers: range) -> list[Row]:
    return [Row(candidate, f"doc{i}", {"acc,none": float(i % 2), "len": i / 3}) for i in numbers]


def test_returns_what_was_put(path: Path) -> None:
    ledger = Ledger(path)
    ledger.put(rows("a", range(5)))
    ledger.put(rows("b", range(2)))
    assert ledger.get("a", ["doc1", "doc4", "doc9"]) == {
        "doc1": {"acc,none": 1.0, "len": 1 / 3},
        "doc4": {"acc,none": 0.0, "len": 4 / 3},
    }
    assert ledger.get("nobody", ["doc1"]) == {}
    assert (ledger.count(), ledger.count("a"), ledger.count("nobody")) == (7, 5, 0)
    ledger.close()
    again = Ledger(path)
    assert again.count() == 7
    again.close()


def test_rows_are_written_once(path: Path) -> None:
    ledger = Ledger(path)
    ledger.put([Row("a", "doc", {"acc": 1.0})])
    ledger.put([Row("a", "doc", {"acc": 0.0})])
    assert ledger.get("a", ["doc"]) == {"doc": {"acc": 1.0}}
    ledger.close()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nothing_is_written_if_a_value_is_not_finite(path: Path, value: float) -> None:
    ledger = Ledger(path)
    with pytest.raises(ValueError, match="document doc7: acc is"):
        ledger.put([*rows("a", range(3)), Row("a", "doc7", {"acc": value})])
    assert ledger.count() == 0
    ledger.close()


def test_full_disk_writes_nothing(path: Path) -> None:
    ledger = Ledger(path)
    ledger.put(rows("a", range(3)))
    (pages,) = ledger._connection.execute("PRAGMA page_count").fetchone()
    ledger._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(RunError, match=r"scores\.sqlite: no space left .* nothing was written"):
        ledger.put(rows("b", range(5000)))
    assert (ledger.count("a"), ledger.count("b")) == (3, 0)
    ledger._connection.execute("PRAGMA max_page_count = 100000")
    ledger.put(rows("b", range(50)))
    assert ledger.count("b") == 50
    ledger.close()


def test_file_that_is_no_database(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is not a database, it is a text" * 100)
    with pytest.raises(RunError, match=r"scores\.sqlite is damaged .* delete it"):
        Ledger(path)


def test_torn_database(path: Path) -> None:
    ledger = Ledger(path)
    ledger.put(rows("a", range(3000)))
    ledger.close()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])

    def use() -> None:
        torn = Ledger(path)
        try:
            torn.put(rows("b", range(3000)))
            torn.get("a", [f"doc{i}" for i in range(3000)])
        finally:
            torn.close()

    with pytest.raises(RunError, match=r"scores\.sqlite is damaged"):
        use()


def test_damaged_value(path: Path) -> None:
    ledger = Ledger(path)
    ledger.put(rows("a", range(3)))
    ledger._connection.execute("UPDATE scores SET metrics = '{\"acc'")
    with pytest.raises(RunError, match="damaged"):
        ledger.get("a", ["doc1"])
    ledger.close()


def test_other_format(path: Path) -> None:
    Ledger(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(RunError, match="has format 99, this program writes 1"):
        Ledger(path)


def test_place_that_cannot_hold_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="score ledger"):
        Ledger(tmp_path / "file" / "scores.sqlite")
    with pytest.raises(RunError, match="score ledger"):
        Ledger(tmp_path)


def test_another_writer_that_never_ends(path: Path) -> None:
    first, second = Ledger(path), Ledger(path, timeout=0.05)
    first._connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(RunError, match=r"another process has held it for 0\.05 s"):
        second.put(rows("a", range(1)))
    first._connection.execute("ROLLBACK")
    second.put(rows("a", range(1)))
    assert first.count() == 1
    first.close()
    second.close()


WRITER = """
import sys
from pathlib import Path
from auto_merge.evaluation.ledger import Ledger, Row
ledger = Ledger(Path(sys.argv[1]))
for chunk in range(40):
    numbers = range(chunk * 25, chunk * 25 + 25)
    ledger.put([Row("shared", f"doc{i}", {"acc": float(i % 2)}) for i in numbers])
    ledger.put([Row(sys.argv[2], f"doc{i}", {"acc": 1.0}) for i in numbers])
    print(chunk, flush=True)
"""


def test_two_processes_write_at_once(path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, name]) for name in "ab"]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    ledger = Ledger(path)
    assert [ledger.count(name) for name in ("shared", "a", "b")] == [1000, 1000, 1000]
    ledger.close()


def test_killed_writer_leaves_whole_chunks(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path, "a"], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        while int(writer.stdout.readline()) < 5:
            pass
        os.kill(writer.pid, signal.SIGKILL)
    ledger = Ledger(path)
    assert ledger.count("a") >= 6 * 25
    assert ledger.count("a") % 25 == ledger.count("shared") % 25 == 0
    ledger.close()
