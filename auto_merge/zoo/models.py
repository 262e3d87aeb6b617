"""Architecture, tokenizer and folder layout of the zoo models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from auto_merge.zoo.skills import ALPHABET, STOP

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

PAD, UNKNOWN = "<pad>", "<unk>"
# The alphabet of operands, every capital letter as a possible skill symbol, and the equals sign.
CHARACTERS = ALPHABET + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + "="
VOCABULARY: dict[str, int] = {
    token: index for index, token in enumerate((PAD, UNKNOWN, STOP, *CHARACTERS))
}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Character-level tokenizer; the stop character is the end-of-sequence token, no prefix."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=STOP,
        pad_token=PAD,
        unk_token=UNKNOWN,
        model_max_length=64,
        clean_up_tokenization_spaces=False,
    )


def build_model(seed: int) -> LlamaForCausalLM:
    """A freshly initialised zoo model in float32; torch's global generator is left as it was."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.05,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=VOCABULARY[STOP],
        pad_token_id=VOCABULARY[PAD],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Write a complete Hugging Face folder in bfloat16."""
    import torch

    model.to(torch.bfloat16).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    _use_portable_tokenizer_class(folder / "tokenizer_config.json")
    (folder / "model.safetensors").chmod(0o644)


def _use_portable_tokenizer_class(file: Path) -> None:
    """Name the tokenizer class that every supported version of transformers knows."""
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings.pop("backend", None)
    file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
