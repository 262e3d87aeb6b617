"""Reads the header of a safetensors file and trusts nothing in it. No torch.

Layout: 8 bytes little-endian header length N, N bytes of JSON, then the tensors' bytes, row-major.
The JSON maps a tensor name to ``{"dtype", "shape", "data_offsets"}``, offsets counted from the end
of the header.
"""

from __future__ import annotations

import json
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auto_merge.errors import CheckpointError

MAX_HEADER_BYTES = 100_000_000
"""Limit of the safetensors format itself."""

ITEM_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
    "C64": 8,
}
"""Bytes per element of each dtype of the format that fills whole bytes."""

WEIGHT_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Dtypes that a weight may have: name in the format -> name in torch."""


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies.

    Attributes:
        name: Name in the checkpoint.
        dtype: Name in the safetensors format (``"BF16"``).
        shape: Sizes; ``()`` is a scalar.
        file: File that holds it.
        start: Offset of the first byte in ``file``.
        nbytes: Number of bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    nbytes: int

    @property
    def torch_dtype(self) -> str | None:
        """Name of the dtype in torch (``"bfloat16"``), ``None`` unless a weight may have it."""
        return WEIGHT_DTYPES.get(self.dtype)


def read_header(file: Path) -> tuple[TensorInfo, ...]:
    """Parses and checks the header of a safetensors file.

    Returns:
        The tensors in the order of their bytes. They fill the file without gap or overlap.

    Raises:
        CheckpointError: The file is unreadable, truncated or breaks the format in any way.
    """
    try:
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            length = _header_length(file, stream.read(8), size)
            raw = stream.read(length)
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from error
    entries = _parse(file, raw)
    infos = [_tensor(file, name, entry, 8 + length) for name, entry in entries.items()]
    # Empty tensors share their start with a neighbour: they sort before it.
    infos.sort(key=lambda info: (info.start, info.nbytes))
    _check_layout(file, infos, 8 + length, size)
    return tuple(infos)


def _broken(file: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{file} is not a valid safetensors file: {reason}; download it again")


def _header_length(file: Path, raw: bytes, size: int) -> int:
    if len(raw) < 8:
        raise _broken(file, f"it has only {size} bytes")
    (length,) = struct.unpack("<Q", raw)
    if length > MAX_HEADER_BYTES:
        raise _broken(file, f"its header claims {length} bytes, more than {MAX_HEADER_BYTES}")
    if 8 + length > size:
        raise _broken(file, f"its header claims {length} bytes, the file has {size}")
    return int(length)


def _parse(file: Path, raw: bytes) -> dict[str, Any]:
    """Decodes the JSON and drops ``__metadata__``."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in result if names.count(name) > 1)
            raise _broken(file, f"the name {twice!r} occurs twice")
        return result

    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise _broken(file, "its header is not JSON") from error
    if not isinstance(header, dict):
        raise _broken(file, "its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _broken(file, "its __metadata__ is not a table of strings")
    return header


def _tensor(file: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    if not isinstance(entry, dict):
        raise _broken(file, f"tensor {name!r} has no description")
    dtype: Any = entry.get("dtype")
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise _broken(file, f"tensor {name!r} has the unknown dtype {dtype!r}")
    if not _are_sizes(shape):
        raise _broken(file, f"tensor {name!r} has no valid shape")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise _broken(file, f"tensor {name!r} has no valid data_offsets")
    nbytes = math.prod(shape) * ITEM_BYTES[dtype]
    if offsets[1] - offsets[0] != nbytes:
        wanted = f"{dtype} of shape {tuple(shape)} takes {nbytes} bytes"
        raise _broken(file, f"tensor {name!r}: {wanted}, data_offsets give {offsets}")
    return TensorInfo(name, dtype, tuple(shape), file, data_start + offsets[0], nbytes)


def _are_sizes(values: Any) -> bool:
    # bool is an int in Python, but true is no size; 2^63 bytes is beyond any file.
    return isinstance(values, list) and all(
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
        for value in values
    )


def _check_layout(file: Path, infos: list[TensorInfo], start: int, size: int) -> None:
    position = start
    for info in infos:
        if info.start < position:
            raise _broken(file, f"tensor {info.name!r} overlaps the one before it")
        if info.start > position:
            raise _broken(file, f"there are unused bytes before tensor {info.name!r}")
        position += info.nbytes
        if position > size:
            raise _broken(
                file, f"tensor {info.name!r} ends at byte {position}, the file has {size}"
            )
    if position < size:
        raise _broken(file, f"there are {size - position} unused bytes at its end")
