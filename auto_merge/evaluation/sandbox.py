"""Runs programs that a model wrote, where they can do no harm.

Each program gets an interpreter of its own inside bubblewrap: new user, process, network and mount
namespaces, no file of this machine but the interpreter's own, all of them read-only, a small
private ``/tmp``, no new processes, no sockets, bounded time and memory. What it prints is thrown
away.

A program passes if it runs to its end; tests are therefore its last lines. Ending early does not
count: the proof is a token that is read after the last line. The program shares the process with
the code that reads it, so this stops accidents and cheap tricks, not a program that searches the
process for the token; that one still gets no further than its own verdict.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import platform
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from auto_merge.errors import SandboxError, TaskError
from auto_merge.evaluation.sandbox_files import Interpreter, find_interpreter
from auto_merge.evaluation.sandbox_filter import system_call_filter
from auto_merge.evaluation.subsets import digest

_READY = b"ready\n"
_REPORT_BYTES = 64 * 2**10
_SCRATCH_BYTES = 16 * 2**20
_NOBODY = "65534"
# Waiting costs no processor time, and a busy machine makes every program wait.
_PATIENCE = 4
_PATIENCE_ALONE = 20
_PROBE = """
import os
assert os.listdir("/tmp") == [] and not os.path.exists("/etc") and not os.path.exists("/proc")
import hashlib, json, math, random, re, threading
"""


@dataclass(frozen=True)
class Program:
    """A program and what it may use.

    Attributes:
        source: Python source text whose last lines are tests.
        seconds: Processor time in seconds, above 0; it is rounded up. Four times as much may pass
            on the clock, and twenty times where that was not enough and nothing else runs.
        memory_bytes: Address space in bytes; an interpreter alone takes about 30 MB.
    """

    source: str
    seconds: float = 3.0
    memory_bytes: int = 512 * 2**20


@dataclass(frozen=True)
class Verdict:
    """What became of a program.

    Attributes:
        passed: Whether it ran to its end.
        reason: One line that says what stopped it; ``""`` if it passed. The program has a say in
            it, so it is for reading only.
        waited: Whether the clock ended it before its processor time was used up, so that a busy
            machine may be to blame.
    """

    passed: bool
    reason: str
    waited: bool = False


class Sandbox:
    """A place to run programs.

    Args:
        bubblewrap: Path of the program ``bwrap``.
        interpreter: What runs the programs.
    """

    def __init__(self, bubblewrap: str, interpreter: Interpreter) -> None:
        self._command = [bubblewrap, *_arguments(interpreter)]
        self._filter = system_call_filter()
        runner = Path(__file__).with_name("sandbox_runner.py").read_text(encoding="utf-8")
        self._python = [str(interpreter.executable), "-S", "-s", "-B", "-X", "utf8", "-c", runner]

    def run(self, program: Program, patience: float | None = None) -> Verdict:
        """Runs one program; takes about 20 ms besides the program's own time.

        Args:
            program: The program.
            patience: Seconds on the clock for every second of processor time; default four.

        Raises:
            SandboxError: The sandbox itself could not be started, twice.
        """
        patience = _PATIENCE if patience is None else patience
        try:
            return self._run(program, patience)
        except (SandboxError, OSError):
            time.sleep(1.0)  # out of processes or memory for a moment
        try:
            return self._run(program, patience)
        except OSError as error:
            raise SandboxError(f"the sandbox could not be started: {error}") from error

    def _run(self, program: Program, patience: float) -> Verdict:
        token = secrets.token_hex(32).encode()
        source = program.source.encode("utf-8", "replace")
        seconds = math.ceil(program.seconds)
        text = b"%d\n%b%b" % (len(source), source, token)
        with _readable(text) as incoming, _readable(self._filter) as rules:
            limits = [str(seconds), str(program.memory_bytes)]
            process = subprocess.Popen(
                [*self._command, "--seccomp", str(rules), "--", *self._python, *limits],
                stdin=incoming,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(rules,),
                env={"PYTHONHASHSEED": "0"},
                start_new_session=True,
            )
            with process:
                report, in_time = _collect(process, patience * seconds)
        return _verdict(report, token, in_time, process.returncode, seconds)


@contextlib.contextmanager
def _readable(content: bytes) -> Iterator[int]:
    """An open file that holds some bytes, has no name, and can only be read."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        number = os.open(file.name, os.O_RDONLY)
    try:
        yield number
    finally:
        os.close(number)


def _arguments(interpreter: Interpreter) -> list[str]:
    """The sandbox as bubblewrap's options."""
    arguments = ["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    arguments += ["--uid", _NOBODY, "--gid", _NOBODY, "--hostname", "sandbox"]
    for path in (*interpreter.shared, interpreter.executable, interpreter.library):
        arguments += ["--ro-bind", str(path), str(path)]
    packages = interpreter.library / "site-packages"
    if packages.is_dir():
        arguments += ["--tmpfs", str(packages), "--remount-ro", str(packages)]
    for device in ("/dev/null", "/dev/urandom"):
        arguments += ["--dev-bind", device, device]
    arguments += ["--size", str(_SCRATCH_BYTES), "--tmpfs", "/tmp", "--chdir", "/tmp"]
    return [*arguments, "--remount-ro", "/"]


def _collect(process: subprocess.Popen[bytes], seconds: float) -> tuple[bytes, bool]:
    """Reads a bounded report until the end or the deadline, then ends the whole tree.

    Returns:
        The report, and whether the deadline was kept.
    """
    assert process.stdout is not None, "a pipe was asked for"
    deadline = time.monotonic() + seconds
    report = b""
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while len(report) < _REPORT_BYTES:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return report, False
                part = os.read(process.stdout.fileno(), _REPORT_BYTES)
                if not part:
                    break
                report += part
        # The end of the report is not yet the end of the process, whose exit code is wanted.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.0 if len(report) >= _REPORT_BYTES else _PATIENCE)
        return report, True
    finally:
        # Everything inside dies with the first process of its namespace.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _verdict(report: bytes, token: bytes, in_time: bool, code: int, seconds: int) -> Verdict:
    before, ready, said = report.partition(_READY)
    if not ready:
        raise SandboxError(f"the sandbox could not be started: {_line(before) or 'no answer'}")
    if said == b"passed " + token:
        return Verdict(True, "")
    if said.startswith(b"failed "):
        return Verdict(False, _line(said.removeprefix(b"failed ")))
    if code == 128 + signal.SIGXCPU:
        return Verdict(False, f"took more than {seconds} seconds of processor time")
    if not in_time:
        return Verdict(False, "took too long without using its processor time", waited=True)
    return Verdict(False, f"ended before its last line (exit code {code})")


def _line(text: bytes) -> str:
    line = " ".join(text[:500].decode("utf-8", "replace").split())
    return "".join(character for character in line if character.isprintable())


@functools.cache
def find_sandbox() -> Sandbox:
    """Finds bubblewrap and tries it; the answer is kept for the life of this process.

    Raises:
        TaskError: Programs cannot be run safely on this machine; the message says why.
    """
    try:
        return _tried_sandbox()
    except (SandboxError, OSError) as error:
        raise TaskError(f"generated code cannot be run safely here: {error}") from error


def _tried_sandbox() -> Sandbox:
    if sys.platform != "linux":
        raise OSError(f"the sandbox needs Linux, this is {sys.platform}")
    bubblewrap = shutil.which("bwrap")
    if bubblewrap is None:
        raise OSError("bubblewrap is missing; install the package bubblewrap (program bwrap)")
    if platform.machine() not in ("x86_64", "aarch64"):
        raise OSError(f"the sandbox knows no processor of the kind {platform.machine()}")
    options = subprocess.run([bubblewrap, "--help"], capture_output=True, text=True, check=False)
    if "--size" not in options.stdout + options.stderr:
        raise OSError(f"{bubblewrap} is too old; version 0.7 or newer is needed")
    sandbox = Sandbox(bubblewrap, find_interpreter())
    tried = sandbox.run(Program(_PROBE))
    if not tried.passed:
        raise SandboxError(f"bubblewrap does not isolate as it should: {tried.reason}")
    return sandbox


def rules() -> str:
    """What a verdict depends on besides the model's answer; part of the key of stored scores."""
    names = ("sandbox_runner.py", "sandbox_answers.py")
    texts = [Path(__file__).with_name(name).read_text(encoding="utf-8") for name in names]
    limits = Program("")
    numbers = f"{limits.seconds} s, {limits.memory_bytes} bytes"
    return digest(f"Python {sys.version_info[0]}.{sys.version_info[1]}", numbers, *texts)


def run_program(source: str, *, seconds: float = 3.0, memory_bytes: int = 512 * 2**20) -> Verdict:
    """Runs one program, see :class:`Program`.

    Raises:
        TaskError: Programs cannot be run safely on this machine.
        SandboxError: The sandbox could not be started this time.
    """
    return run_programs([Program(source, seconds, memory_bytes)])[0]


def run_programs(programs: Sequence[Program]) -> list[Verdict]:
    """Runs programs side by side, one per processor; verdicts come in their order.

    Raises:
        TaskError, SandboxError: As for :func:`run_program`.
    """
    if not programs:
        return []
    sandbox = find_sandbox()
    with ThreadPoolExecutor(max_workers=_num_processors()) as pool:
        verdicts = list(pool.map(sandbox.run, programs))
    # On a busy machine a right program may not have had its turn; a verdict is kept for good.
    return [
        sandbox.run(program, _PATIENCE_ALONE) if verdict.waited else verdict
        for program, verdict in zip(programs, verdicts, strict=True)
    ]


def _num_processors() -> int:
    return len(os.sched_getaffinity(0))


def settle(scores: Sequence[Mapping[str, float | Program]]) -> list[dict[str, float]]:
    """Replaces every program among metrics by 1 if it passes and by 0 if it does not.

    Raises:
        TaskError, SandboxError: As for :func:`run_program`.
    """
    programs = [v for metrics in scores for v in metrics.values() if isinstance(v, Program)]
    verdicts = iter(run_programs(programs))
    return [
        {
            key: float(next(verdicts).passed) if isinstance(value, Program) else value
            for key, value in metrics.items()
        }
        for metrics in scores
    ]
