"""Tiny models and tasks, made on the spot."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import pytest
import torch
import yaml
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from auto_merge.errors import TaskError
from auto_merge.evaluation.evaluator import HarnessEvaluator
from auto_merge.evaluation.ledger import Ledger
from auto_merge.evaluation.settings import EvaluationSettings
from auto_merge.evaluation.suite import Suite
from auto_merge.trial import Objective

# Matrices this small only lose by threads, and with other work on the machine they lose a lot.
torch.set_num_threads(1)

CHARACTERS = "abcdefghijklmnopqrstuvwxyzäß=?: \n0123456789QA"
STOP = ";"


def build_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {token: i for i, token in enumerate(("<pad>", "<unk>", STOP, *CHARACTERS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=STOP,
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=128,
        clean_up_tokenization_spaces=False,
    )


def build_model(seed: int = 0, hidden: int = 32, layers: int = 2) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(CHARACTERS) + 3,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


@dataclass
class FakeCandidate:
    """A candidate whose weights exist already; counts how often they are asked for."""

    digest: str
    weights: LlamaForCausalLM
    calls: int = 0

    def model(self) -> LlamaForCausalLM:
        self.calls += 1
        return self.weights


def choice_documents(count: int, start: int = 0) -> list[dict[str, Any]]:
    letters = "abcdefghij"
    return [
        {
            "id": start + i,
            "question": f"Q: {letters[i % 10]}{letters[i // 10 % 10]}{'x' * (i % 7)} {i + start}?",
            "choices": [letters[(i + k) % 10] + "y" * (i % 3) for k in range(4)],
            "answer": i % 4,
            "kind": "even" if i % 3 else "odd",
        }
        for i in range(count)
    ]


def answer_documents(count: int) -> list[dict[str, Any]]:
    return [
        {"id": i, "prompt": f"A{'ab' * (i % 5)} {i}=", "answer": "abcä"[i % 4] * 2}
        for i in range(count)
    ]


CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "answer",
    "target_delimiter": " ",
    "metric_list": [
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
    ],
}
GENERATE = {
    "output_type": "generate_until",
    "doc_to_text": "{{prompt}}",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["\n", "b"], "max_gen_toks": 8, "do_sample": False},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


@dataclass
class Workshop:
    """Writes tasks into one folder and opens evaluators on them."""

    root: Path
    tokenizer: Path
    ledgers: list[Ledger] = field(default_factory=list)

    @property
    def tasks(self) -> Path:
        folder = self.root / "tasks"
        folder.mkdir(exist_ok=True)
        return folder

    def write(
        self, name: str, documents: Mapping[str, Sequence[Mapping[str, Any]]], **config: Any
    ) -> None:
        """Writes a task whose data files, one per split, lie beside its YAML."""
        files = {}
        for split, rows in documents.items():
            file = self.tasks / f"{name}_{split}.jsonl"
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
            file.write_text("".join(lines), encoding="utf-8")
            files[split] = file.name
        full = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": files},
            "test_split": "test",
            **config,
        }
        self.write_yaml(name, full)

    def write_yaml(self, name: str, config: Mapping[str, Any]) -> None:
        text = yaml.safe_dump(dict(config), allow_unicode=True)
        (self.tasks / f"{name}.yaml").write_text(text, encoding="utf-8")

    def ledger(self, name: str = "ledger") -> Ledger:
        self.ledgers.append(Ledger(self.root / f"{name}.sqlite"))
        return self.ledgers[-1]

    def open(
        self, *objectives: tuple[str, str], ledger: str = "ledger", **settings: Any
    ) -> HarnessEvaluator:
        """Opens an evaluator for ``(task, metric)`` pairs."""
        settings.setdefault("device", "cpu")
        return HarnessEvaluator(
            [Objective(task, metric) for task, metric in objectives],
            EvaluationSettings(
                cache_dir=self.root / "cache", include_path=(self.tasks,), **settings
            ),
            self.tokenizer,
            self.ledger(ledger),
        )


def suite(shop: Workshop, *objectives: tuple[str, str], **settings: Any) -> Suite:
    return shop.open(*objectives, **settings)._suite


def refusal(shop: Workshop, *objectives: tuple[str, str], **settings: Any) -> str:
    with pytest.raises(TaskError) as caught:
        suite(shop, *objectives, **settings)
    text = str(caught.value)
    assert "\n" not in text
    return text


def write_choice(shop: Workshop, name: str = "mc", count: int = 12, **config: Any) -> None:
    shop.write(name, {"test": choice_documents(count)}, **{**CHOICE, **config})


def write_generate(shop: Workshop, name: str = "gen", count: int = 12, **config: Any) -> None:
    shop.write(name, {"test": answer_documents(count)}, **{**GENERATE, **config})


def prompts(shop: Workshop, name: str, metric: str, **settings: Any) -> dict[str, list[str]]:
    """Prompt texts by document key."""
    loaded = suite(shop, (name, metric), **settings)
    texts = {}
    for slot in loaded.line_up(10**6, "search"):
        tokens = slot.leaf.tokens(slot.document)
        texts[slot.document.key] = [loaded.prompter.tokenizer.decode(t.inputs) for t in tokens]
    return texts
