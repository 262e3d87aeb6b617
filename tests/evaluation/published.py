"""Opens the shipped tasks on the documents beside them, with a tokenizer for every script."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from auto_merge.evaluation.evaluator import HarnessEvaluator
from auto_merge.evaluation.ledger import Ledger
from auto_merge.evaluation.lm_harness_leaf import Leaf
from auto_merge.evaluation.settings import EvaluationSettings
from auto_merge.evaluation.subsets import Document
from auto_merge.trial import Objective

FOLDER = Path(__file__).parents[2] / "custom_tasks"


@dataclass(frozen=True)
class Shipped:
    """A task as it is shipped: its folder, the split it scores, other splits, its metric keys."""

    folder: str
    split: str
    others: tuple[str, ...]
    metrics: tuple[str, ...]


STRICT = ("exact_match,custom-strict-match",)
JAPANESE = ("exact_match,strict-match", "exact_match,flexible-extract")
TRAIN = ("train",)
TASKS = {
    "gsm8k_test": Shipped("gsm8k_test", "test", TRAIN, STRICT),
    "gsm_plus_mini_custom": Shipped("gsm_plus_mini_custom", "testmini", (), STRICT),
    "gsm_ja": Shipped("gsm_ja", "test", (), JAPANESE),
    "commonsense_custom": Shipped("commonsense_custom", "validation", TRAIN, ("acc,none",)),
    "piqa_custom": Shipped("piqa_custom", "validation", TRAIN, ("acc,none", "acc_norm,none")),
    "wsc_custom": Shipped("wsc_custom", "validation", TRAIN, ("acc,none",)),
    "cmnli": Shipped("cmnli", "validation", (), ("acc,none",)),
    "race": Shipped("race_custom", "test", (), ("acc,none",)),
    "race_custom": Shipped("race_custom", "test", (), ("acc,none",)),
}
NUM_DOCUMENTS = 8
GENERATED = ("gsm8k_test", "gsm_plus_mini_custom", "gsm_ja")
END = "<|end|>"


def shipped(name: str, **extra: Any) -> dict[str, Any]:
    """Keys of an entry under `tasks` that make a task read the documents beside it."""
    task = TASKS[name]
    files = {part: f"fixtures/{part}.jsonl" for part in (task.split, *task.others)}
    data = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
    return {**data, **extra}


def rows(name: str, split: str | None = None) -> list[dict[str, Any]]:
    task = TASKS[name]
    file = FOLDER / task.folder / "fixtures" / f"{split or task.split}.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def save_bytes_tokenizer(folder: Path) -> None:
    """A tokenizer with a token per byte, and the config of its model."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([END, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=END, model_max_length=4096
    ).save_pretrained(folder)
    pico().config.save_pretrained(folder)


def pico() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


class Bench:
    """Opens the shipped tasks."""

    def __init__(self, root: Path, tokenizer: Path) -> None:
        self.root = root
        self.tokenizer = tokenizer
        self.ledger = Ledger(root / "ledger.sqlite")

    def open(
        self, name: str, *metrics: str, folder: Path | None = FOLDER, **extra: Any
    ) -> HarnessEvaluator:
        """Opens one task; ``extra`` are keys of its entry under `tasks`."""
        objectives = [Objective(name, metric) for metric in metrics or TASKS[name].metrics]
        settings = EvaluationSettings(
            cache_dir=self.root / "cache",
            include_path=() if folder is None else (folder,),
            overrides=(extra,) * len(objectives),
            device="cpu",
        )
        return HarnessEvaluator(objectives, settings, self.tokenizer, self.ledger)

    def leaf(self, name: str, *metrics: str, **extra: Any) -> Leaf:
        track = self.open(name, *metrics, **extra)._suite.tracks[0]
        return track.slots["search"][0].leaf

    def prompts(self, leaf: Leaf, document: Document) -> list[str]:
        """What the model reads to each request, the continuations' last byte missing."""
        decode = leaf._prompter.tokenizer.decode
        return [decode(tokens.inputs) for tokens in leaf.tokens(document)]


def documents(leaf: Leaf) -> list[Document]:
    return sorted([*leaf.parts.search, *leaf.parts.heldout], key=lambda d: d.index)
