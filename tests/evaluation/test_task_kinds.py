"""Kinds of tasks end to end, and the tasks that the documentation shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from workshop import CHOICE, GENERATE, FakeCandidate, Workshop, answer_documents, choice_documents

from auto_merge.evaluation.lm_harness import quiet

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"


def in_lm_eval(shop: Workshop, candidate: FakeCandidate, name: str) -> dict[str, Any]:
    """The same task scored by lm-eval's own loop."""
    from lm_eval import evaluator
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoTokenizer

    config = yaml.safe_load((shop.tasks / f"{name}.yaml").read_text())
    files = config["dataset_kwargs"]["data_files"]
    config["dataset_kwargs"] = {
        "data_files": {split: str(shop.tasks / file) for split, file in files.items()},
        "cache_dir": str(shop.root / "cache"),
    }
    folder = shop.root / "absolute"
    folder.mkdir()
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    with quiet():
        model = HFLM(candidate.weights, tokenizer=AutoTokenizer.from_pretrained(shop.tokenizer))
        loaded = TaskManager(include_path=str(folder), include_defaults=False).load([name])
        results = evaluator.evaluate(model, loaded, bootstrap_iters=0)
    return dict(results["results"][name])


def compare(shop: Workshop, candidate: FakeCandidate, name: str, *metrics: str) -> None:
    evaluator = shop.open(*((name, metric) for metric in metrics))
    halves = [evaluator.evaluate(candidate, 1000, split=s) for s in ("search", "heldout")]
    expected = in_lm_eval(shop, candidate, name)
    for i, metric in enumerate(metrics):
        sizes = [half[i].num_documents for half in halves]
        total = sum(n * half[i].mean for n, half in zip(sizes, halves, strict=True))
        assert total / sum(sizes) == pytest.approx(expected[metric]), metric


def test_filters(workshop: Workshop, candidate: FakeCandidate) -> None:
    filters = [
        {"name": "whole", "filter": [{"function": "take_first"}]},
        {
            "name": "letter",
            "filter": [
                {"function": "regex", "regex_pattern": "([a-m])"},
                {"function": "take_first"},
            ],
        },
    ]
    documents = [{**d, "answer": "abcdefghijklm"[d["id"] % 13]} for d in answer_documents(60)]
    workshop.write("gen", {"test": documents}, **GENERATE, filter_list=filters)
    compare(workshop, candidate, "gen", "exact_match,whole", "exact_match,letter")


def test_loglikelihood(workshop: Workshop, candidate: FakeCandidate) -> None:
    documents = [{**d, "answer": "abcdefghij"[d["id"] % 10]} for d in answer_documents(60)]
    config = {**GENERATE, "output_type": "loglikelihood", "generation_kwargs": None}
    config["metric_list"] = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
    workshop.write("ll", {"test": documents}, **config)
    compare(workshop, candidate, "ll", "acc,none")


def test_unconditional_choices(workshop: Workshop, candidate: FakeCandidate) -> None:
    rule = {"metric": "acc_mutual_info", "aggregation": "mean", "higher_is_better": True}
    config = {**CHOICE, "metric_list": [*CHOICE["metric_list"], rule]}
    workshop.write("mc", {"test": choice_documents(40)}, **config)
    compare(workshop, candidate, "mc", "acc_mutual_info,none", "acc_norm,none")


def test_several_inputs_for_one_answer(workshop: Workshop, candidate: FakeCandidate) -> None:
    documents = [
        {"gold": i % 2, "options": [f"x{i} a", f"x{i} b"], "ending": "cd"} for i in range(30)
    ]
    config = {
        **CHOICE,
        "doc_to_text": "{{gold}}",
        "doc_to_choice": "options",
        "doc_to_target": "ending",
    }
    workshop.write("mi", {"test": documents}, **config)
    compare(workshop, candidate, "mi", "acc,none")


def test_the_documented_tasks_work(workshop: Workshop, candidate: FakeCandidate) -> None:
    blocks = re.findall(r"```(yaml|json)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    configs = [yaml.safe_load(text) for kind, text in blocks if kind == "yaml"]
    configs = [config for config in configs if {"task", "group"} & config.keys()]
    [document] = [json.loads(text) for kind, text in blocks if kind == "json"]
    documents = [{**document, "country": f"{document['country']} {i}"} for i in range(6)]
    sums = [{"question": f"{i}+1", "answer": str(i + 1)} for i in range(6)]
    for file, contents in (("capitals", documents), ("rivers", documents), ("sums", sums)):
        lines = "".join(json.dumps(content) + "\n" for content in contents)
        (workshop.tasks / f"{file}.jsonl").write_text(lines)
    for config in configs:
        workshop.write_yaml(config.get("task", "") if "output_type" in config else "group", config)
    rivers = {**configs[0], "task": "rivers", "doc_to_text": "{{country}}, longest river:"}
    workshop.write_yaml("rivers", rivers)
    evaluator = workshop.open(
        ("capitals", "acc,none"), ("sums", "exact_match,none"), ("geography", "acc,none")
    )
    scores = evaluator.evaluate(candidate, 100)
    assert [score.num_documents for score in scores] == [3, 3, 6]
