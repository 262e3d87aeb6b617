"""Compiles the C++ kernels once per machine and keeps the library in the cache folder."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

_SOURCE = Path(__file__).with_name("kernels.cpp")
_HEADER = Path(__file__).with_name("blocks.h")

# Contraction into fused multiply-adds would round differently from the torch implementation; traps
# and errno change no value, but the promise to keep them forbids vector comparisons.
_FLAGS = (
    *("-O3", "-std=c++17", "-ffp-contract=off", "-fno-trapping-math", "-fno-math-errno"),
    *("-shared", "-fPIC", "-pthread"),
)
# Some compilers do not know -march=native for their processor; the plain build is the second try.
_TUNINGS = (("-march=native",), ())
_COMPILE_SECONDS = 300


class BuildError(Exception):
    """The kernels cannot be compiled here; the message says why and what would help."""


def find_compiler() -> str:
    """Returns the path of a C++ compiler: ``$CXX`` if set, else c++, g++ or clang++.

    Raises:
        BuildError: There is none.
    """
    wanted = os.environ.get("CXX")
    names = (wanted,) if wanted else ("c++", "g++", "clang++")
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return path
    raise BuildError(f"no C++ compiler found (looked for {', '.join(names)}); install g++ or clang")


def cache_folder() -> Path:
    """Returns the folder for compiled kernels; ``$AUTO_MERGE_CACHE`` moves it."""
    own = os.environ.get("AUTO_MERGE_CACHE")
    if own:
        return Path(own).expanduser() / "native"
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(user).expanduser() / "auto_merge" / "native"


def library_path(compiler: str, folder: Path) -> Path:
    """Returns where the library for this source, compiler and processor belongs."""
    binary = Path(compiler).resolve()
    identity = (
        _SOURCE.read_bytes(),
        _HEADER.read_bytes(),
        repr((_FLAGS, _TUNINGS)).encode(),
        f"{binary} {binary.stat().st_mtime_ns}".encode(),
        _processor().encode(),
    )
    digest = hashlib.sha256(b"\0".join(identity)).hexdigest()[:24]
    return folder / f"kernels-{digest}.so"


def build(compiler: str, target: Path) -> None:
    """Compiles the kernels to ``target``, which appears complete or not at all.

    Two processes may build at the same time: each writes its own file and renames it.

    Raises:
        BuildError: The folder cannot be written or the compiler fails.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="build-", dir=target.parent) as scratch:
            built = Path(scratch) / target.name
            _compile(compiler, built)
            built.replace(target)
    except OSError as error:
        raise BuildError(
            f"cannot write the kernel cache {target.parent} ({error}); set AUTO_MERGE_CACHE"
        ) from error


def _compile(compiler: str, built: Path) -> None:
    complaint = ""
    for tuning in _TUNINGS:
        command = [compiler, *_FLAGS, *tuning, str(_SOURCE), "-o", str(built)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_COMPILE_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise BuildError(f"{compiler} took more than {_COMPILE_SECONDS} s") from None
        if done.returncode == 0:
            return
        complaint = done.stderr.strip() or f"exit code {done.returncode}"
    raise BuildError(f"{compiler} cannot compile {_SOURCE.name}: {complaint.splitlines()[0]}")


def _processor() -> str:
    """Describes the processor; code tuned for one may not run on another sharing the cache."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    kept = {line for line in lines if line.startswith(("model name", "flags", "Features", "CPU "))}
    return "\n".join([platform.machine(), *sorted(kept)])
