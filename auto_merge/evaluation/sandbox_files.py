"""Which files an interpreter needs: its binary, its standard library, and the libraries they load.

Nothing else of the machine is visible inside the sandbox.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

# "libm.so.6 => /lib/libm.so.6 (0x...)" and "/lib64/ld-linux-x86-64.so.2 (0x...)".
_LIBRARY = re.compile(r"^\s*(?:\S+ => )?(/.*?) \(0x[0-9a-f]+\)$", re.M)
# Needs two dozen libraries of the window system.
_SKIPPED = ("_tkinter",)


@dataclass(frozen=True)
class Interpreter:
    """A Python interpreter on disk.

    Attributes:
        executable: The binary, no link.
        library: Folder of its standard library.
        shared: Shared libraries of the binary and of the standard library, as the loader names
            them.
    """

    executable: Path
    library: Path
    shared: tuple[Path, ...]


def find_interpreter() -> Interpreter:
    """Finds the interpreter that runs this program, outside any virtual environment.

    Raises:
        OSError: It or its libraries cannot be found out.
    """
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    executable = Path(sys.base_prefix) / "bin" / version
    executable = (executable if executable.exists() else Path(sys.executable)).resolve()
    library = Path(sysconfig.get_path("stdlib")).resolve()
    return Interpreter(executable, library, shared_libraries(executable, library))


def shared_libraries(executable: Path, library: Path) -> tuple[Path, ...]:
    """Asks the loader for the libraries of an interpreter and its extension modules.

    Raises:
        OSError: There is no ``ldd``.
    """
    ldd = shutil.which("ldd")
    if ldd is None:
        raise OSError("the program ldd is missing")
    modules = sorted((library / "lib-dynload").glob("*.so"))
    wanted = [str(m) for m in modules if not m.name.startswith(_SKIPPED)]
    # Its exit code is 1 as soon as one file is no dynamic one, which a static interpreter is.
    done = subprocess.run(
        [ldd, str(executable), *wanted], capture_output=True, text=True, check=False
    )
    found = {os.path.normpath(path) for path in _LIBRARY.findall(done.stdout)}
    return tuple(Path(path) for path in sorted(found))
