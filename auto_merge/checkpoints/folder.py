"""What a model folder holds: its configuration and its weight files, checked. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from auto_merge.checkpoints.headers import TensorInfo, read_header
from auto_merge.errors import CheckpointError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "merges.txt",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
"""Files that make up a tokenizer; a folder has some of them."""

MAX_JSON_BYTES = 512_000_000


def read_json(file: Path) -> dict[str, Any]:
    """Reads a JSON object from a file of a model folder.

    Raises:
        CheckpointError: Unreadable, not JSON or not an object.
    """
    try:
        if file.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(f"{file} is larger than {MAX_JSON_BYTES} bytes")
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not valid JSON ({error}); download it again") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{file} must hold a JSON object, found {type(data).__name__}")
    return data


def read_config(folder: Path) -> dict[str, Any]:
    """Reads ``config.json`` of a model that can be merged.

    Raises:
        CheckpointError: Missing, unreadable, of a quantised model or of no causal language model.
    """
    if not folder.is_dir():
        raise CheckpointError(f"model folder {folder} does not exist")
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise CheckpointError(f"{folder} holds an adapter, not a model; merge it into its base")
        raise CheckpointError(f"{folder} has no config.json, so it is not a model folder")
    config = read_json(folder / "config.json")
    quantisation = config.get("quantization_config")
    if quantisation:
        method = quantisation.get("quant_method") if isinstance(quantisation, dict) else None
        raise CheckpointError(
            f"{folder} is quantised ({method or 'unknown method'}); merge the original weights"
        )
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError(f"{folder / 'config.json'} names no model_type")
    layers = config.get("num_hidden_layers")
    if not isinstance(layers, int) or isinstance(layers, bool) or layers < 1:
        raise CheckpointError(
            f"{folder / 'config.json'}: num_hidden_layers must be a positive whole number, "
            f"found {layers!r}; supported are decoder-only text models"
        )
    return config


def find_tensors(folder: Path) -> dict[str, TensorInfo]:
    """Lists the tensors of a folder's safetensors files.

    Raises:
        CheckpointError: No safetensors, a missing or damaged shard, an index that names files
            outside the folder or disagrees with its shards.
    """
    if (folder / INDEX).is_file():
        return _sharded(folder)
    if (folder / SINGLE).is_file():
        file = _inside(folder, SINGLE)
        return {info.name: info for info in read_header(file)}
    if pickled_files(folder):
        raise CheckpointError(
            f"{folder} has only pickled weights, which can run code when they are read; convert "
            "them with AutoModelForCausalLM.from_pretrained(...).save_pretrained(...) or allow "
            "pickle explicitly"
        )
    raise CheckpointError(f"{folder} has neither {SINGLE} nor {INDEX}")


def pickled_files(folder: Path) -> list[Path]:
    """Returns the weight files in PyTorch's pickle format, sorted by name."""
    return sorted(folder.glob("pytorch_model*.bin"))


def _sharded(folder: Path) -> dict[str, TensorInfo]:
    index = folder / INDEX
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map; download it again")
    names = sorted({str(name) for name in weight_map.values()})
    absent = [name for name in names if not _inside(folder, name).is_file()]
    if absent:
        raise CheckpointError(f"{folder} lacks {', '.join(absent)}; download the missing files")
    shards = {name: {i.name: i for i in read_header(folder / name)} for name in names}
    tensors = {}
    for tensor, name in weight_map.items():
        if tensor not in shards[name]:
            raise CheckpointError(f"{index} places {tensor} in {name}, which does not hold it")
        tensors[tensor] = shards[name][tensor]
    return tensors


def _inside(folder: Path, name: str) -> Path:
    """Returns the path of a weight file that may not lie anywhere else than in the folder.

    The one exception are the hub cache's own links, ``snapshots/<revision>/x -> ../../blobs/<y>``.
    """
    if Path(name).name != name or name in ("", ".", "..") or "\\" in name or "\0" in name:
        raise CheckpointError(
            f"{folder / INDEX} names {name!r}; shards must lie in the folder itself"
        )
    target = (folder / name).resolve()
    allowed = [folder.resolve()]
    if folder.resolve().parent.name == "snapshots":
        allowed.append(folder.resolve().parent.parent / "blobs")
    if target.parent not in allowed:
        raise CheckpointError(f"{folder / name} is a link to {target}, outside the model folder")
    return folder / name
