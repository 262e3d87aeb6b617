"""Programs in the sandbox: what gets through, what does not, and what is said."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from auto_merge.errors import AutoMergeError, SandboxError, TaskError
from auto_merge.evaluation import sandbox
from auto_merge.evaluation.sandbox import (
    Program,
    Sandbox,
    Verdict,
    find_sandbox,
    run_program,
    run_programs,
    settle,
)
from auto_merge.evaluation.sandbox_files import find_interpreter
from auto_merge.evaluation.sandbox_filter import system_call_filter

try:
    find_sandbox()
    MISSING = ""
except TaskError as error:
    MISSING = str(error)
needs_sandbox = pytest.mark.skipif(bool(MISSING), reason=MISSING)

ADD = "def add(a, b):\n    return a + b\n"


def run(source: str, seconds: float = 1.0) -> Verdict:
    return run_program(textwrap.dedent(source), seconds=seconds)


@needs_sandbox
@pytest.mark.parametrize(
    "source",
    [
        ADD + "assert add(2, 3) == 5",
        "",
        "import asyncio, collections, dataclasses, hashlib, heapq, itertools, math, random, re",
        "é = 'ü'\nassert len(é) == 1",
        "open('/tmp/note', 'w').write('x')\nassert open('/tmp/note').read() == 'x'",
        """
        import threading
        seen = []
        workers = [threading.Thread(target=seen.append, args=(i,)) for i in range(20)]
        [worker.start() for worker in workers]
        [worker.join() for worker in workers]
        assert sorted(seen) == list(range(20))
        """,
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()",
        """
        from dataclasses import dataclass
        @dataclass
        class Point:
            x: int
        assert Point.__annotations__ == {'x': int} and Point(1) == Point(1)
        """,
        "def deep(n):\n    return n and deep(n - 1)\nassert deep(500) == 0",
        "print('x' * 10**6)\nimport sys\nsys.stderr.write('y' * 10**6)",
        "if __name__ == '__main__':\n    raise SystemExit(1)",
        "import sys\nassert sys.flags.hash_randomization == 0",
    ],
)
def test_correct_programs_pass(source: str) -> None:
    assert run(source) == Verdict(True, "")


@needs_sandbox
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (ADD + "assert add(2, 3) == 6", "AssertionError:"),
        (ADD + "assert add(2, 3) == 5\nraise ValueError('two\\nlines\\x00')", "two lines"),
        ("def f(:", "SyntaxError"),
        ("x = '\x00'", "null bytes"),
        ("x = " + "(" * 5000 + ")" * 5000, "SyntaxError"),
        ("def f():\n    return f()\nf()", "RecursionError"),
        ("input()", "EOFError"),
        ("import numpy_of_nobody", "ModuleNotFoundError"),
    ],
)
def test_wrong_programs_fail(source: str, reason: str) -> None:
    verdict = run(source)
    assert not verdict.passed
    assert reason in verdict.reason
    assert "\n" not in verdict.reason


@needs_sandbox
@pytest.mark.parametrize(
    "source",
    [
        "import sys\nsys.exit(0)",
        "raise SystemExit",
        "import os\nos._exit(0)",
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
        "import os\n[os.close(n) for n in range(3, 20)]",
        "import atexit, os\natexit.register(print, 'passed')\nassert False",
        "import builtins\nbuiltins.AssertionError = builtins.type = None\nassert False",
        """
        import builtins, os
        os.write = os._exit = os.read = lambda *rest: None
        for name in ('compile', 'exec', 'print', 'open', 'isinstance'):
            setattr(builtins, name, None)
        assert False
        """,
        """
        import os
        for number in range(64):
            try:
                os.write(number, b'passed ' + b'0' * 64)
            except OSError:
                pass
        os._exit(0)
        """,
        """
        class Sly(BaseException):
            def __str__(self):
                raise self
        raise Sly
        """,
    ],
)
def test_ending_early_is_no_pass(source: str) -> None:
    assert not run(source + "\nassert False").passed


# --- the walls ------------------------------------------------------------------------------------


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret.txt"
    file.write_text("secret")
    file.chmod(0o644)
    return file


@needs_sandbox
def test_no_file_of_the_host_can_be_read(secret: Path) -> None:
    verdict = run(f"open({str(secret)!r}).read()")
    assert "FileNotFoundError" in verdict.reason
    for path in ("/etc/passwd", "/proc/1/environ", "/sys/kernel", str(Path.home() / ".ssh")):
        assert not run(f"import os\nassert os.path.exists({path!r})").passed


@needs_sandbox
def test_nothing_can_be_written_outside(tmp_path: Path) -> None:
    target = tmp_path / "written"
    assert not run(f"open({str(target)!r}, 'w')").passed
    library = Path(os.__file__)
    for path in ("/written", str(library), str(library.parent / "written"), sys.base_prefix):
        assert not run(f"open({path!r}, 'a')").passed
    assert not target.exists()
    assert run("open('/tmp/kept', 'w')").passed
    assert not run("open('/tmp/kept')").passed
    assert not Path("/tmp/kept").exists()


@needs_sandbox
def test_nothing_of_this_process_is_inherited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_OF_SOMEBODY", "secret")
    open_files = """
        import os, stat
        def writable(number):
            try:
                kind = os.fstat(number).st_mode
                os.write(number, b"")
            except OSError:
                return False
            return not stat.S_ISCHR(kind)
        # The report is a pipe; what else can be written is /dev/null.
        assert sum(writable(number) for number in range(256)) == 1
        assert set(os.environ) <= {"PWD", "PYTHONHASHSEED"}, set(os.environ)
        assert os.getuid() == os.getgid() == 65534
        """
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        assert run(open_files) == Verdict(True, "")
    assert not run("import pytest").passed


@needs_sandbox
def test_no_socket_can_be_opened() -> None:
    verdict = run("import socket\nsocket.socket()")
    assert "PermissionError" in verdict.reason


@needs_sandbox
def test_a_fork_bomb_fails_at_once() -> None:
    started = time.monotonic()
    assert "PermissionError" in run("import os\nwhile True:\n    os.fork()").reason
    for call in ("subprocess.run(['x'])", "subprocess.run([sys.executable, '-c', ''])"):
        assert not run(f"import subprocess, sys\n{call}").passed
    assert not run("import multiprocessing\nmultiprocessing.Process(target=print).start()").passed
    assert time.monotonic() - started < 16


@needs_sandbox
def test_four_gigabytes_are_too_much() -> None:
    # On a busy machine the memory must run out before the time does.
    assert "MemoryError" in run("block = bytearray(4 * 2**30)", seconds=20).reason
    assert run("block = bytearray(100 * 2**20)", seconds=20).passed
    grow = "blocks = []\nwhile True:\n    blocks.append(bytearray(2**24))"
    assert "MemoryError" in run(grow, seconds=20).reason


@needs_sandbox
@pytest.mark.parametrize(
    "source",
    [
        "i = 0\nwhile True:\n    open(f'/tmp/{i}', 'wb').write(bytes(2**20))\n    i += 1",
        "f = open('/tmp/big', 'wb')\nwhile True:\n    f.write(bytes(2**20))",
        "import os\nos.memfd_create('x')",
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (99, 99))",
        "files = [open('/dev/null') for _ in range(100)]",
    ],
)
def test_limits_hold(source: str) -> None:
    assert not run(source).passed


@needs_sandbox
def test_endless_programs_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_PATIENCE", 30)
    started = time.monotonic()
    verdicts = run_programs(
        [
            Program("while True:\n    pass", 0.5),
            Program("while True:\n    print('x' * 10**5)", 0.5),
            Program(
                "import signal\nsignal.signal(signal.SIGXCPU, lambda *_: None)\n"
                "while True:\n    pass",
                0.5,
            ),
            Program(
                "import os\nwhile True:\n    for n in range(3, 9):\n        try:\n"
                "            os.write(n, bytes(2**16))\n        except OSError:\n            pass",
                0.5,
            ),
        ]
    )
    assert [verdict.passed for verdict in verdicts] == [False] * 4
    assert verdicts[0].reason == "took more than 1 seconds of processor time"
    assert verdicts[2].reason == "ended before its last line (exit code 137)"
    assert time.monotonic() - started < 30


@needs_sandbox
def test_nothing_is_left_running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_PATIENCE", 1)
    assert (
        run("import time\ntime.sleep(600)").reason
        == "took too long without using its processor time"
    )
    run("import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()")
    assert bubblewraps_of(os.getpid()) == set()


def bubblewraps_of(parent: int) -> set[Path]:
    """Folders under /proc of the bubblewrap processes below a process, theirs included."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, _, fields = (folder / "stat").read_text().rpartition(")")
        except OSError:
            continue
        if name.endswith("(bwrap"):
            parents[int(folder.name)] = int(fields.split()[1])
    found: set[int] = set()
    while more := {pid for pid, above in parents.items() if above in {parent, *found}} - found:
        found |= more
    return {Path(f"/proc/{pid}") for pid in found}


@needs_sandbox
def test_the_sandbox_ends_with_its_owner() -> None:
    code = (
        "from auto_merge.evaluation.sandbox import *\nrun_program('import time\\ntime.sleep(60)')"
    )
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as owner:
        # The one outside, and the first process inside; the second call finds them settled.
        wait_for(lambda: len(bubblewraps_of(owner.pid)) == 2)
        started = bubblewraps_of(owner.pid)
        owner.send_signal(signal.SIGKILL)
    wait_for(lambda: not any(folder.exists() for folder in started))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- order, metrics, the filter -------------------------------------------------------------------


@needs_sandbox
def test_verdicts_come_in_order() -> None:
    programs = [Program(f"assert {i} % 3") for i in range(12)]
    assert [v.passed for v in run_programs(programs)] == [bool(i % 3) for i in range(12)]
    assert run_programs([]) == []


@needs_sandbox
def test_programs_among_metrics_become_numbers() -> None:
    scores = [{"a": 0.5, "b": Program("")}, {"b": Program("assert 0"), "c": Program("")}, {}]
    assert settle(scores) == [{"a": 0.5, "b": 1.0}, {"b": 0.0, "c": 1.0}, {}]
    assert settle([{"a": 2.0}]) == [{"a": 2.0}]


def steps(code: bytes) -> list[tuple[int, int, int, int]]:
    return list(struct.iter_unpack("=HBBI", code))


def decide(code: bytes, architecture: int, number: int, argument: int = 0) -> int:
    """Interprets a filter as the kernel does."""
    data = {0: number, 4: architecture, 16: argument}
    program, place, value = steps(code), 0, 0
    while True:
        kind, if_true, if_false, constant = program[place]
        place += 1
        if kind == 0x20:
            value = data[constant]
        elif kind == 0x06:
            return constant
        else:
            holds = {
                0x15: value == constant,
                0x35: value >= constant,
                0x45: bool(value & constant),
            }[kind]
            place += if_true if holds else if_false


@pytest.mark.parametrize(
    ("machine", "architecture", "calls"),
    [
        ("x86_64", 0xC000003E, {"clone": 56, "clone3": 435, "socket": 41, "fork": 57, "read": 0}),
        ("aarch64", 0xC00000B7, {"clone": 220, "clone3": 435, "socket": 198, "read": 63}),
    ],
)
def test_the_filter_decides_as_it_should(
    machine: str, architecture: int, calls: dict[str, int]
) -> None:
    code = system_call_filter(machine)
    allow, refuse, absent, kill = 0x7FFF0000, 0x50001, 0x50026, 0x80000000
    assert decide(code, architecture, calls["read"]) == allow
    assert decide(code, architecture, calls["socket"]) == refuse
    assert decide(code, architecture, calls["clone3"]) == absent
    assert decide(code, architecture, calls["clone"], 17) == refuse
    assert decide(code, architecture, calls["clone"], 0x3D0F00) == allow
    assert decide(code, architecture, 0x40000000) == refuse
    assert decide(code, 0x40000003, calls["read"]) == kill
    if "fork" in calls:
        assert decide(code, architecture, calls["fork"]) == refuse
    with pytest.raises(KeyError):
        system_call_filter("vax")


# --- no sandbox -----------------------------------------------------------------------------------


@pytest.fixture
def fresh() -> Iterator[None]:
    find_sandbox.cache_clear()
    yield
    find_sandbox.cache_clear()


def refusal() -> str:
    with pytest.raises(TaskError) as caught:
        find_sandbox()
    text = str(caught.value)
    assert text.startswith("generated code cannot be run safely here: ")
    assert "\n" not in text
    return text


@pytest.mark.usefixtures("fresh")
def test_without_bubblewrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install the package bubblewrap" in refusal()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "needs Linux, this is darwin" in refusal()


def fake(folder: Path, script: str) -> None:
    file = folder / "bwrap"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


@pytest.mark.usefixtures("fresh")
def test_with_a_bubblewrap_that_does_not_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    fake(tmp_path, "echo --seccomp")
    assert "is too old; version 0.7" in refusal()
    fake(tmp_path, 'test "$1" = --help && echo --size || echo "No permissions" >&2')
    assert "could not be started: No permissions" in refusal()
    monkeypatch.setattr(sandbox.platform, "machine", lambda: "vax")
    assert "processor of the kind vax" in refusal()


@pytest.mark.usefixtures("fresh")
def test_a_sandbox_without_walls_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    skip = 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"'
    fake(tmp_path, f'test "$1" = --help && echo --size && exit\n{skip}')
    assert "does not isolate as it should: AssertionError" in refusal()


def test_a_failed_start_is_no_verdict(tmp_path: Path) -> None:
    fake(tmp_path, "exit 1")
    with pytest.raises(AutoMergeError, match="could not be started: no answer"):
        Sandbox(str(tmp_path / "bwrap"), find_interpreter()).run(Program(""))


@needs_sandbox
def test_a_program_that_had_to_wait_gets_a_second_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_PATIENCE", 0.5)
    monkeypatch.setattr(sandbox, "_PATIENCE_ALONE", 30)
    assert run("import time\ntime.sleep(1.5)").passed


def test_a_sandbox_that_cannot_start_is_tried_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def failing(self: object, program: object, patience: float) -> Verdict:
        tries.append(patience)
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(sandbox.Sandbox, "_run", failing)
    monkeypatch.setattr(sandbox.time, "sleep", lambda seconds: None)
    place = object.__new__(sandbox.Sandbox)
    with pytest.raises(SandboxError, match="no more processes"):
        place.run(sandbox.Program("pass"))
    assert len(tries) == 2
