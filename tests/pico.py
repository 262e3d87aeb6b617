"""Seeded builders of very small Hugging Face checkpoints, for the tests of every room.

Width 16, a few layers, a character tokenizer of 64 tokens: a folder is written in some milliseconds
(the first call of a process also pays for importing transformers). Weights depend on the arguments
alone. ::

    base = make_llama(tmp_path / "base")
    source = make_llama(tmp_path / "math", like=base, seed=1)     # base plus small random deltas
    models = make_models(tmp_path, 3, family="qwen3")             # {"base": ..., "source_1": ...}
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>")
VOCABULARY = (
    *SPECIAL_TOKENS,
    *string.ascii_lowercase,
    *string.digits,
    *" .,:;?!+-*/=()<>|#@_%$\n'",
)
"""64 tokens: 4 special ones and 60 characters."""

SHAPE: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama_tied": {"model_type": "llama", "tie_word_embeddings": True},
    "mistral": {"model_type": "mistral", "sliding_window": 32},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 8},
    "gemma": {"model_type": "gemma", "head_dim": 8, "tie_word_embeddings": True},
    "gemma2": {"model_type": "gemma2", "head_dim": 8, "tie_word_embeddings": True},
    "gemma3": {"model_type": "gemma3_text", "head_dim": 8, "tie_word_embeddings": True},
    "gpt_neox": {"model_type": "gpt_neox", "rotary_pct": 0.5},
    "phi": {"model_type": "phi", "partial_rotary_factor": 0.5},
    "phi3": {"model_type": "phi3"},
}
"""Family name -> configuration on top of :data:`SHAPE`."""


def make_llama(
    folder: Path,
    *,
    layers: int = 4,
    seed: int = 0,
    tied: bool = False,
    dtype: str = "float32",
    like: Path | None = None,
    spread: float = 0.01,
    shards: int = 1,
    vocabulary: tuple[str, ...] = VOCABULARY,
    config: dict[str, Any] | None = None,
) -> Path:
    """Writes a random Llama checkpoint, see :func:`make_family`."""
    return make_family(
        folder,
        "llama_tied" if tied else "llama",
        layers=layers,
        seed=seed,
        dtype=dtype,
        like=like,
        spread=spread,
        shards=shards,
        vocabulary=vocabulary,
        config=config,
    )


def make_models(
    folder: Path, count: int, *, family: str = "llama", **arguments: Any
) -> dict[str, Path]:
    """Writes ``base`` and ``source_1`` .. ``source_<count>``, each the base plus small deltas."""
    base = make_family(folder / "base", family, **arguments)
    models = {"base": base}
    for number in range(1, count + 1):
        name = f"source_{number}"
        models[name] = make_family(folder / name, family, like=base, seed=number, **arguments)
    return models


def make_family(
    folder: Path,
    family: str,
    *,
    layers: int = 4,
    seed: int = 0,
    dtype: str = "float32",
    like: Path | None = None,
    spread: float = 0.01,
    shards: int = 1,
    vocabulary: tuple[str, ...] = VOCABULARY,
    config: dict[str, Any] | None = None,
) -> Path:
    """Writes a random checkpoint with tokenizer and returns its folder.

    Args:
        folder: Created; must not hold a checkpoint yet.
        family: Key of :data:`FAMILIES`.
        layers: Number of decoder layers.
        seed: Seed of all weights (or of the deltas when ``like`` is given).
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        like: Folder of a checkpoint of the same shape; the result is it plus random deltas.
        spread: Standard deviation of the deltas.
        shards: Number of safetensors files; with more than one there is an index file.
        vocabulary: Tokens in the order of their ids.
        config: Further keys of ``config.json``.
    """
    settings = SHAPE | {"num_hidden_layers": layers} | FAMILIES[family] | (config or {})
    tensors = _random_tensors(settings, seed)
    if like is not None:
        ancestor = read_tensors(like)
        tensors = {name: ancestor[name].float() + spread * tensors[name] for name in tensors}
    target = getattr(torch, dtype)
    tensors = {name: tensor.to(target) for name, tensor in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    architecture = _skeleton(settings).__class__.__name__
    written = settings | {"architectures": [architecture], "dtype": dtype}
    (folder / "config.json").write_text(json.dumps(written, indent=2))
    write_tokenizer(folder, vocabulary)
    write_tensors(folder, tensors, shards)
    return folder


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Loads all tensors of a checkpoint folder through the safetensors library."""
    from safetensors.torch import load_file

    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(file))
    return tensors


def write_tensors(folder: Path, tensors: dict[str, torch.Tensor], shards: int = 1) -> None:
    """Writes one safetensors file, or several with an index, dealing the tensors out in turn."""
    from safetensors.torch import save_file

    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map: dict[str, str] = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        names = list(tensors)[number::shards]
        save_file({name: tensors[name] for name in names}, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(names, file))
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def write_tokenizer(folder: Path, vocabulary: tuple[str, ...] = VOCABULARY) -> None:
    """Writes a character tokenizer whose ids follow the order of ``vocabulary``."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    ids = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "model_max_length": 256,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))


def _skeleton(settings: dict[str, Any]) -> torch.nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**settings)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def _random_tensors(settings: dict[str, Any], seed: int) -> dict[str, torch.Tensor]:
    """Normal values, about as large as in a trained model, in the order of the parameters."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in _skeleton(settings).named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        centre = 1.0 if name.endswith("norm.weight") else 0.0
        if settings["model_type"] == "gpt_neox":
            name = name.replace("lm_head.", "embed_out.")  # as in published checkpoints
        tensors[name] = centre + 0.25 * values
    return tensors
