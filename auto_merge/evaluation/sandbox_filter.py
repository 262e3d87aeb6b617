"""The system call filter of the sandbox, as a classic BPF program.

Resource limits count per process, and root is exempt from the limit of processes. Without new
processes one limit covers everything, so the filter lets no program start any; threads it may.
"""

from __future__ import annotations

import errno
import platform
import struct

# Instructions, see linux/bpf_common.h and linux/filter.h.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
# Places in struct seccomp_data; the low half of the first argument on little-endian machines.
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_CLONE_THREAD = 0x00010000
# Calls of the x32 interface have this bit set in their number.
_X32 = 0x40000000

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# By name: number on x86_64 and on aarch64, where None is a call that does not exist.
_CLONE = (56, 220)
_CLONE3 = (435, 435)
_DENIED: dict[str, tuple[int, int | None]] = {
    # new processes and namespaces
    "fork": (57, None),
    "vfork": (58, None),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    # network
    "socket": (41, 198),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    # memory outside the address space
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    # large parts of the kernel that no program of this kind needs
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
}


def system_call_filter(machine: str | None = None) -> bytes:
    """Returns the filter for a kind of processor.

    Args:
        machine: ``"x86_64"`` or ``"aarch64"``; ``None`` is this machine.

    Returns:
        Instructions of 8 bytes each, at most 4096 of them as the kernel demands.

    Raises:
        KeyError: There is no filter for this kind of processor.
    """
    machine = machine or platform.machine()
    architecture = _ARCHITECTURES[machine]
    column = list(_ARCHITECTURES).index(machine)
    refuse = _step(_RETURN, _ERROR | errno.EPERM)
    code = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, architecture, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
        _step(_AT_LEAST, _X32, 0, 1),
        refuse,
    ]
    for numbers in _DENIED.values():
        number = numbers[column]
        if number is not None:
            code += [_step(_EQUAL, number, 0, 1), refuse]
    # Its flags lie in memory that a filter cannot read; the C library then falls back to clone.
    code += [_step(_EQUAL, _CLONE3[column], 0, 1), _step(_RETURN, _ERROR | errno.ENOSYS)]
    code += [
        _step(_EQUAL, _CLONE[column], 0, 3),
        _step(_LOAD, _FIRST_ARGUMENT),
        _step(_ANY_BIT, _CLONE_THREAD, 1, 0),
        refuse,
        _step(_RETURN, _ALLOW),
    ]
    return b"".join(code)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One ``struct sock_filter``; jumps are counted from the next instruction."""
    return struct.pack("=HBBI", code, if_true, if_false, value)
