"""Building the native kernels: with and without a compiler, twice at once, over a damaged file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from auto_merge.methods import native
from auto_merge.methods.native import compiler as building

REPORT = "from auto_merge.methods import status; print(status())"
ROOT = Path(__file__).parents[2]


def status_in_new_process(**environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", REPORT],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.strip()


def test_declarations_load_no_torch():
    code = (
        "import sys; from auto_merge.methods import METHODS; "
        "print(len(METHODS), sorted({'torch', 'numpy'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "5 []"


def test_the_documented_example_is_a_method():
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    example = text.split("```python\n")[1].split("```")[0]
    use = """
import torch
out = torch.empty(2)
sources = [torch.tensor([1.0, -4.0]), torch.tensor([4.0, 1.0])]
METHODS.get("geometric").merge(sources, None, {"t": 0.5}, out, None)
print(out.tolist())
"""
    run = subprocess.run(
        [sys.executable, "-c", example + use],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "[2.0, -2.0]"


def test_switched_off_by_the_environment():
    text = status_in_new_process(AUTO_MERGE_NATIVE="0")
    assert text == "torch fallback: switched off by AUTO_MERGE_NATIVE=0"


def test_without_a_compiler_torch_does_it(tmp_path):
    text = status_in_new_process(PATH=str(tmp_path), CXX="", AUTO_MERGE_CACHE=str(tmp_path / "c"))
    assert text.startswith("torch fallback: no C++ compiler found (looked for c++, g++, clang++)")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_compiler_is_reported(tmp_path):
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho 'this is no compiler' >&2\nexit 3\n", encoding="utf-8")
    compiler.chmod(0o755)
    cache = tmp_path / "cache"
    text = status_in_new_process(CXX=str(compiler), AUTO_MERGE_CACHE=str(cache))
    assert text == f"torch fallback: {compiler} cannot compile kernels.cpp: this is no compiler"
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_a_cache_that_cannot_be_written_is_reported(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    compiler.chmod(0o755)
    text = status_in_new_process(CXX=str(compiler), AUTO_MERGE_CACHE=str(blocked))
    assert text.startswith("torch fallback: cannot write the kernel cache")
    assert text.endswith("set AUTO_MERGE_CACHE")


@pytest.mark.usefixtures("kernels_built")
def test_the_library_is_found_again(monkeypatch):
    text = native.state().text
    assert text.startswith("native kernels: ")
    path = Path(text.rsplit(", ", 1)[1])
    monkeypatch.setenv("AUTO_MERGE_CACHE", str(path.parents[1]))
    built = path.stat().st_mtime_ns
    assert status_in_new_process() == text
    assert path.stat().st_mtime_ns == built


@pytest.fixture
def copying_compiler(kernels_built, tmp_path) -> str:
    """A compiler that takes a moment and delivers the library that is already there."""
    library = native.state().text.rsplit(", ", 1)[1]
    compiler = tmp_path / "c++"
    script = f'#!/bin/sh\nfor last; do :; done\nsleep 0.3\ncp "{library}" "$last"\n'
    compiler.write_text(script, encoding="utf-8")
    compiler.chmod(0o755)
    return str(compiler)


def test_a_damaged_library_is_built_again(copying_compiler, tmp_path):
    cache = tmp_path / "cache"
    path = building.library_path(copying_compiler, cache / "native")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x7fELF torn")
    text = status_in_new_process(CXX=copying_compiler, AUTO_MERGE_CACHE=str(cache))
    assert text == f"native kernels: {copying_compiler}, {path}"
    assert path.stat().st_size > 1000
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_processes_may_build_at_once(copying_compiler, tmp_path):
    cache = tmp_path / "cache"
    environment = {"PYTHONPATH": str(ROOT), "CXX": copying_compiler, "AUTO_MERGE_CACHE": str(cache)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", REPORT],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    texts = {process.communicate()[0].strip() for process in running}
    path = building.library_path(copying_compiler, cache / "native")
    assert texts == {f"native kernels: {copying_compiler}, {path}"}
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("AUTO_MERGE_CACHE", str(tmp_path))
    assert building.cache_folder() == tmp_path / "native"
    monkeypatch.delenv("AUTO_MERGE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert building.cache_folder() == tmp_path / "xdg" / "auto_merge" / "native"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert building.cache_folder() == tmp_path / "home" / ".cache" / "auto_merge" / "native"


def test_the_library_name_depends_on_compiler_and_processor(monkeypatch, tmp_path):
    compilers = []
    for name in ("one", "two"):
        compiler = tmp_path / name
        compiler.write_text("", encoding="utf-8")
        compilers.append(str(compiler))
    names = {building.library_path(compiler, tmp_path) for compiler in compilers}
    monkeypatch.setattr(building, "_processor", lambda: "another one")
    names |= {building.library_path(compiler, tmp_path) for compiler in compilers}
    assert len(names) == 4
