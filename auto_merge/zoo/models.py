"""Architecture, tokenizer and folder layout of the zoo models."""

from __future__ import annotations

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


def build_model() -> LlamaForCausalLM:
    """A freshly initialised zoo model in float32, drawn from torch's global generator."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=128,
        intermediate_size=288,
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
    return LlamaForCausalLM(config)


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Write a complete Hugging Face folder in bfloat16."""
    import torch

    model.to(torch.bfloat16).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
