from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from auto_merge.checkpoints.headers import read_header
from auto_merge.errors import CheckpointError

TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def write(file: Path, header: Any, data: bytes = b"\0" * 8) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return file


def complaint(file: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_header(file)
    message = str(caught.value)
    assert "\n" not in message
    assert str(file) in message
    return message


def test_positions_point_at_the_bytes(tmp_path: Path) -> None:
    tensors = {
        "b": torch.arange(6, dtype=torch.bfloat16).view(2, 3),
        "a": torch.tensor(2.5),
        "empty": torch.empty(0, 4),
    }
    file = tmp_path / "x.safetensors"
    save_file(tensors, file, metadata={"format": "pt"})
    infos = {info.name: info for info in read_header(file)}
    assert infos.keys() == tensors.keys()
    assert (infos["b"].dtype, infos["b"].shape, infos["b"].nbytes) == ("BF16", (2, 3), 12)
    assert infos["a"].shape == ()
    assert infos["empty"].nbytes == 0
    content = file.read_bytes()
    assert struct.unpack("<f", content[infos["a"].start :][:4]) == (2.5,)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"not json", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "not JSON"),
        ([], "not a JSON object"),
        ({"__metadata__": {"a": 1}, "t": TENSOR}, "__metadata__"),
        ({"t": 3}, "no description"),
        ({"t": TENSOR | {"dtype": "F31"}}, "unknown dtype 'F31'"),
        ({"t": TENSOR | {"dtype": ["F32"]}}, "unknown dtype"),
        ({"t": TENSOR | {"shape": [-2]}}, "no valid shape"),
        ({"t": TENSOR | {"shape": [True, 2]}}, "no valid shape"),
        ({"t": TENSOR | {"shape": [2.0]}}, "no valid shape"),
        ({"t": TENSOR | {"shape": 2}}, "no valid shape"),
        ({"t": TENSOR | {"shape": [2**62, 2**62]}}, "takes"),
        ({"t": TENSOR | {"data_offsets": [0, 4]}}, "takes 8 bytes"),
        ({"t": TENSOR | {"data_offsets": [8, 0]}}, "takes 8 bytes"),
        ({"t": TENSOR | {"data_offsets": [0]}}, "no valid data_offsets"),
        ({"t": TENSOR | {"data_offsets": [-8, 0]}}, "no valid data_offsets"),
        ({"t": TENSOR | {"data_offsets": [8, 16]}}, "unused bytes before"),
        ({"t": TENSOR, "u": TENSOR}, "overlaps"),
        ({"t": TENSOR, "u": TENSOR | {"data_offsets": [8, 16]}}, "ends at byte"),
        ({}, "8 unused bytes at its end"),
        (b'{"t": {"dtype":"F32","shape":[2],"data_offsets":[0,8]}, "t": {}}', "'t' occurs twice"),
    ],
)
def test_broken_headers_are_refused(tmp_path: Path, header: Any, reason: str) -> None:
    assert reason in complaint(write(tmp_path / "x.safetensors", header))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "only 0 bytes"),
        (b"\x02\0\0", "only 3 bytes"),
        (struct.pack("<Q", 2**63) + b"{}", "claims"),
        (struct.pack("<Q", 100) + b"{}", "claims 100 bytes"),
    ],
)
def test_broken_starts_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(content)
    assert reason in complaint(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "No such file" in complaint(tmp_path / "x.safetensors")


def test_a_truncated_file_is_refused_at_every_length(tmp_path: Path) -> None:
    content = save({"a": torch.ones(3), "b": torch.ones(2, 2)})
    file = tmp_path / "x.safetensors"
    for length in range(len(content)):
        file.write_bytes(content[:length])
        complaint(file)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_damage_passes_as_another_layout(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A changed byte in the header is refused or leaves every tensor inside the file."""
    content = bytearray(save({"a": torch.ones(3), "b": torch.ones(2, 2)}))
    position = data.draw(st.integers(0, len(content) - 29))
    content[position] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.mktemp("damaged") / "x.safetensors"
    file.write_bytes(content)
    try:
        infos = read_header(file)
    except CheckpointError:
        return
    assert sum(info.nbytes for info in infos) == 28
    assert all(info.start + info.nbytes <= len(content) for info in infos)
