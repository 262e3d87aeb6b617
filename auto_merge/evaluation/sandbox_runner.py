"""The first program inside the sandbox: limits itself, runs the model's program, reports.

It is passed to a bare interpreter as text, so it uses the standard library only. Standard input
holds the number of bytes of the program in a line, the program, and a token. The token is read
only after the program ran to its end, and written back as proof of that.
"""

from __future__ import annotations

import os
import resource
import sys

_FILE_BYTES = 8 * 2**20
_OPEN_FILES = 64
_THREADS = 256
_REASON_CHARACTERS = 300


def set_limits(seconds: int, memory_bytes: int) -> None:
    """Lowers every limit for good.

    Args:
        seconds: Processor seconds; the process is killed one second later.
        memory_bytes: Address space in bytes.
    """
    for kind, soft, hard in (
        (resource.RLIMIT_CPU, seconds, seconds + 1),
        (resource.RLIMIT_AS, memory_bytes, memory_bytes),
        (resource.RLIMIT_FSIZE, _FILE_BYTES, _FILE_BYTES),
        (resource.RLIMIT_NOFILE, _OPEN_FILES, _OPEN_FILES),
        # New processes are refused by the system call filter; this one bounds threads.
        (resource.RLIMIT_NPROC, _THREADS, _THREADS),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        resource.setrlimit(kind, (soft, hard))


def read_program(source: int) -> str:
    """Reads the line with the size, then so many bytes; what follows stays unread."""
    digits = b""
    while not digits.endswith(b"\n"):
        digits += os.read(source, 1)
    parts = []
    missing = int(digits)
    while missing:
        parts.append(os.read(source, missing))
        missing -= len(parts[-1])
    return b"".join(parts).decode("utf-8")


def run(source: str) -> str:
    """Runs a program to its end; returns what stopped it, ``""`` if nothing did."""
    name = "program"
    module = type(sys)(name)
    sys.modules[name] = module
    kind, limit = type, _REASON_CHARACTERS
    try:
        code = compile(source, f"<{name}>", "exec", dont_inherit=True)
        exec(code, module.__dict__)  # noqa: S102 - its purpose
    except BaseException as error:  # noqa: BLE001 - SystemExit before the tests is a failure too
        try:
            return f"{kind(error).__name__}: {error}"[:limit]
        except BaseException:  # noqa: BLE001 - the program may have made errors unprintable
            return "an error that cannot be printed"
    return ""


def main() -> None:
    """Runs the program of standard input under the limits of the arguments."""
    set_limits(int(sys.argv[1]), int(sys.argv[2]))
    incoming, report = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    # The program shares this process and may replace these.
    read, write, leave = os.read, os.write, os._exit
    source = read_program(incoming)
    write(report, b"ready\n")
    reason = run(source)
    if reason:
        write(report, b"failed " + reason.encode("utf-8", "replace"))
    else:
        write(report, b"passed " + read(incoming, 64))
    leave(0)


if __name__ == "__main__":
    main()
