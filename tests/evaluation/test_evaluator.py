from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from workshop import (
    CHOICE,
    GENERATE,
    FakeCandidate,
    Workshop,
    answer_documents,
    build_model,
    build_tokenizer,
    choice_documents,
)

from auto_merge.errors import (
    Interrupted,
    InvalidWeightsError,
    RunError,
    TaskError,
    TrialTimeoutError,
)
from auto_merge.evaluation.evaluator import Counts, HarnessEvaluator

BOTH = (("mc", "acc,none"), ("gen", "exact_match,none"))
MakeCandidate = Callable[[int], FakeCandidate]


@pytest.fixture
def shop(workshop: Workshop) -> Workshop:
    workshop.write("mc", {"test": choice_documents(162)}, **CHOICE)
    # Answers that a random model sometimes hits, so that scores are not all zero.
    model, tokenizer = build_model(), build_tokenizer()
    documents = answer_documents(162)
    for document in documents[::2]:
        tokens = tokenizer.encode(document["prompt"], return_tensors="pt")
        with torch.no_grad():
            first = model(tokens).logits[0, -1].argmax().item()
        document["answer"] = tokenizer.decode([first])
    generation = {"until": ["\n", "b"], "max_gen_toks": 1, "do_sample": False}
    workshop.write("gen", {"test": documents}, **{**GENERATE, "generation_kwargs": generation})
    return workshop


def rows(evaluator: HarnessEvaluator, candidate: FakeCandidate, fidelity: int) -> list[Any]:
    return [
        dict(zip(scores.documents, scores.values.tolist(), strict=True))
        for scores in evaluator.document_scores(candidate, fidelity)
    ]


def test_growing_equals_fresh(shop: Workshop, candidate: FakeCandidate) -> None:
    growing, fresh = shop.open(*BOTH, chunk_size=16), shop.open(*BOTH, ledger="fresh")
    growing.evaluate(candidate, 27)
    assert growing.last_counts == Counts(scored=54, found=0)
    grown = growing.evaluate(candidate, 81)
    # A promotion from a third to everything scores exactly the missing two thirds.
    assert growing.last_counts == Counts(scored=108, found=54)
    assert fresh.evaluate(candidate, 81) == grown
    assert rows(growing, candidate, 81) == rows(fresh, candidate, 81)
    assert growing._ledger.count() == fresh._ledger.count() == 162
    assert 0 < grown[1].mean < 1


def test_nothing_missing_needs_no_weights(shop: Workshop, candidate: FakeCandidate) -> None:
    evaluator = shop.open(*BOTH)
    first = evaluator.evaluate(candidate, 20)
    assert candidate.calls == 1
    assert evaluator.evaluate(candidate, 20) == first
    assert evaluator.evaluate(candidate, 5)[0].num_documents == 5
    assert evaluator.last_counts == Counts(scored=0, found=10)
    assert candidate.calls == 1


def test_another_evaluator_finds_the_scores(shop: Workshop, candidate: FakeCandidate) -> None:
    shop.open(BOTH[0]).evaluate(candidate, 30)
    other = shop.open(*BOTH)
    other.evaluate(candidate, 30)
    assert other.last_counts == Counts(scored=30, found=30)
    # Another metric of the same task was stored along.
    third = shop.open(("mc", "acc_norm,none"))
    third.evaluate(candidate, 30)
    assert third.last_counts == Counts(scored=0, found=30)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "bfloat16"},
        {"max_length": 100},
        {"overrides": ({"target_delimiter": ""},)},
        {"system_instruction": "x"},
    ],
)
def test_what_changes_a_score_is_scored_anew(
    shop: Workshop, candidate: FakeCandidate, change: dict[str, Any]
) -> None:
    shop.open(BOTH[0]).evaluate(candidate, 5)
    changed = shop.open(BOTH[0], **change)
    changed.evaluate(candidate, 5)
    assert changed.last_counts.scored == 5


def test_what_changes_no_score_is_found(shop: Workshop, candidate: FakeCandidate) -> None:
    shop.open(BOTH[0]).evaluate(candidate, 5)
    for change in ({"batch_size": 2}, {"chunk_size": 3}, {"limit": 5}):
        same = shop.open(BOTH[0], **change)
        same.evaluate(candidate, 5)
        assert same.last_counts == Counts(scored=0, found=5)


def test_candidates_do_not_mix(shop: Workshop, make_candidate: MakeCandidate) -> None:
    evaluator = shop.open(*BOTH)
    one, two = make_candidate(0), make_candidate(1)
    evaluator.evaluate(one, 40)
    evaluator.evaluate(two, 40)
    assert evaluator.last_counts.scored == 80
    assert rows(evaluator, one, 40) != rows(evaluator, two, 40)


@pytest.mark.parametrize("settings", [{"batch_size": 1}, {"batch_size": 5}, {"chunk_size": 7}])
def test_batches_change_nothing(
    shop: Workshop, candidate: FakeCandidate, settings: dict[str, Any]
) -> None:
    plain, other = shop.open(*BOTH), shop.open(*BOTH, ledger="other", **settings)
    assert plain.evaluate(candidate, 40) == other.evaluate(candidate, 40)
    assert rows(plain, candidate, 40) == rows(other, candidate, 40)


def test_order_of_the_file_changes_nothing(shop: Workshop, candidate: FakeCandidate) -> None:
    first = shop.open(("mc", "acc,none"))
    expected = first.evaluate(candidate, 30)
    shop.write("mc", {"test": choice_documents(162)[::-1]}, **CHOICE)
    shuffled = shop.open(("mc", "acc,none"))
    assert shuffled.evaluate(candidate, 30) == expected
    assert shuffled.last_counts == Counts(scored=0, found=30)


def test_documents_in_unicode(workshop: Workshop, candidate: FakeCandidate) -> None:
    documents = [{**d, "question": f"日本 ä {d['question']} 🙂"} for d in choice_documents(12)]
    workshop.write("mc", {"test": documents}, **CHOICE)
    evaluator = workshop.open(("mc", "acc,none"))
    evaluator.evaluate(candidate, 6)
    [slot, *_] = evaluator._suite.line_up(6, "search")
    assert "🙂" in slot.document.content["question"]


# --- stopping and going on ------------------------------------------------------------------------


def test_interrupted_and_resumed_equals_uninterrupted(
    shop: Workshop, candidate: FakeCandidate
) -> None:
    whole, parts = shop.open(*BOTH, chunk_size=8), shop.open(*BOTH, chunk_size=8, ledger="parts")
    expected = whole.evaluate(candidate, 30)
    asked = []
    progress: list[tuple[int, int]] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == 4

    with pytest.raises(Interrupted, match="stopped after 24 of 60"):
        parts.evaluate(candidate, 30, should_stop=stop, on_progress=lambda *p: progress.append(p))
    assert progress == [(8, 60), (16, 60), (24, 60)]
    assert parts.last_counts == Counts(scored=24, found=0)
    assert parts.evaluate(candidate, 30) == expected
    assert parts.last_counts == Counts(scored=36, found=24)
    assert rows(parts, candidate, 30) == rows(whole, candidate, 30)
    assert parts._ledger.count() == 60


def test_resumed_run_forms_the_same_batches(
    shop: Workshop, candidate: FakeCandidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[list[str]] = []
    original = HarnessEvaluator._score

    def spy(self: Any, model: Any, who: Any, chunk: Any) -> Any:
        batches.append([slot.document.key for slot in chunk])
        return original(self, model, who, chunk)

    monkeypatch.setattr(HarnessEvaluator, "_score", spy)
    shop.open(*BOTH, chunk_size=8).evaluate(candidate, 30)
    expected = list(batches)
    assert [len(batch) for batch in expected] == [8] * 7 + [4]
    batches.clear()
    for finished in (2, 3):
        answers = iter([False] * finished)
        parts = shop.open(*BOTH, chunk_size=8, ledger="parts")
        with pytest.raises(Interrupted):
            parts.evaluate(candidate, 30, should_stop=lambda answers=answers: next(answers, True))
    parts.evaluate(candidate, 30)
    assert batches == expected


def test_deadline(shop: Workshop, candidate: FakeCandidate) -> None:
    evaluator = shop.open(*BOTH)
    with pytest.raises(TrialTimeoutError, match="time limit passed after 0 of 20"):
        evaluator.evaluate(candidate, 10, deadline=time.monotonic() - 1)
    assert candidate.calls == 0
    evaluator.evaluate(candidate, 10, deadline=time.monotonic() + 600)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from workshop import FakeCandidate, Workshop, build_model
shop = Workshop(Path(sys.argv[2]), Path(sys.argv[3]))
evaluator = shop.open(("mc", "acc,none"), ("gen", "exact_match,none"), chunk_size=8)
def die(done, total):
    if done >= 24:
        os.kill(os.getpid(), signal.SIGKILL)
evaluator.evaluate(FakeCandidate("candidate-0", build_model()), 30, on_progress=die)
"""


@pytest.mark.slow
def test_killed_and_resumed(shop: Workshop, candidate: FakeCandidate) -> None:
    script = [sys.executable, "-c", KILLED, str(Path(__file__).parent), shop.root, shop.tokenizer]
    assert subprocess.run(script, check=False).returncode == -9
    resumed, whole = shop.open(*BOTH, chunk_size=8), shop.open(*BOTH, ledger="whole", chunk_size=8)
    assert resumed._ledger.count() == 24
    assert resumed.evaluate(candidate, 30) == whole.evaluate(candidate, 30)
    assert resumed.last_counts == Counts(scored=36, found=24)
    assert rows(resumed, candidate, 30) == rows(whole, candidate, 30)


# --- failures never become scores -----------------------------------------------------------------


def test_broken_weights_leave_nothing_behind(shop: Workshop) -> None:
    weights = build_model()
    with torch.no_grad():
        weights.lm_head.weight[3] = math.nan
    evaluator = shop.open(*BOTH)
    broken = FakeCandidate("broken", weights)
    with pytest.raises(InvalidWeightsError):
        evaluator.evaluate(broken, 10)
    assert evaluator._ledger.count() == 0
    with pytest.raises(RunError, match="20 of 20 search documents were not scored on broken"):
        evaluator.document_scores(broken, 10)


def test_nan_metric(workshop: Workshop, candidate: FakeCandidate) -> None:
    workshop.write("gen", {"test": answer_documents(12)}, **GENERATE)
    (workshop.tasks / "utils.py").write_text(
        "def results(doc, results):\n    return {'odd': float('nan') if doc['id'] == 3 else 1.0}\n"
    )
    text = (workshop.tasks / "gen.yaml").read_text()
    text = text.split("metric_list:")[0] + "metric_list:\n- {metric: odd, aggregation: mean, "
    text += "higher_is_better: true}\noutput_type: generate_until\ntask: gen\ntest_split: test\n"
    text += "process_results: !function utils.results\n"
    (workshop.tasks / "gen.yaml").write_text(text)
    evaluator = workshop.open(("gen", "odd,none"))
    [slot] = [
        slot for slot in evaluator._suite.line_up(12, "search") if slot.document.content["id"] == 3
    ]
    assert slot.document.index == 3
    with pytest.raises(TaskError, match="task 'gen', document 3: metric 'odd,none' is nan"):
        evaluator.evaluate(candidate, 12)
    assert evaluator._ledger.count() == 0


def test_memory_errors_reach_the_caller(
    shop: Workshop, candidate: FakeCandidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(**_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(candidate.weights, "forward", forward)
    evaluator = shop.open(*BOTH)
    with pytest.raises(torch.OutOfMemoryError):
        evaluator.evaluate(candidate, 5)
    assert evaluator._ledger.count() == 0


def test_model_on_another_device(shop: Workshop) -> None:
    with torch.device("meta"):
        elsewhere = FakeCandidate("meta", build_model())
    with pytest.raises(ValueError, match="the model is on meta, expected was cpu"):
        shop.open(*BOTH).evaluate(elsewhere, 2)


def test_fidelity_has_to_be_positive(shop: Workshop, candidate: FakeCandidate) -> None:
    with pytest.raises(ValueError, match="fidelity is 0"):
        shop.open(*BOTH).evaluate(candidate, 0)


# --- sizes, groups, held-out ----------------------------------------------------------------------


def test_sizes(shop: Workshop, candidate: FakeCandidate) -> None:
    shop.write("few", {"test": choice_documents(20, 1000)}, **CHOICE)
    evaluator = shop.open(("few", "acc,none"), *BOTH)
    assert evaluator.max_fidelity == 81
    assert evaluator.num_documents("few") == 10
    assert evaluator.num_documents("mc", "heldout") == 81
    with pytest.raises(ValueError, match="'nobody' is not one of the configured tasks"):
        evaluator.num_documents("nobody")
    # A task with fewer documents is complete earlier.
    scores = evaluator.evaluate(candidate, 15)
    assert [score.num_documents for score in scores] == [10, 15, 15]
    assert shop.open(*BOTH, limit=7).max_fidelity == 7
    assert shop.open(*BOTH, limit=0.5).max_fidelity == 41


def test_heldout_documents_are_other_documents(shop: Workshop, candidate: FakeCandidate) -> None:
    evaluator = shop.open(*BOTH)
    evaluator.evaluate(candidate, 81)
    evaluator.evaluate(candidate, 81, split="heldout")
    assert evaluator.last_counts.scored == 162
    for search, heldout in zip(
        evaluator.document_scores(candidate, 81),
        evaluator.document_scores(candidate, 81, "heldout"),
        strict=True,
    ):
        assert not set(search.documents) & set(heldout.documents)


@pytest.mark.parametrize("by_size", [True, False])
def test_group_score(shop: Workshop, candidate: FakeCandidate, by_size: bool) -> None:
    shop.write("small", {"test": choice_documents(16, 300)}, **CHOICE)
    shop.write("large", {"test": choice_documents(60, 400)}, **CHOICE)
    rule = {"metric": "acc", "weight_by_size": by_size}
    shop.write_yaml(
        "both", {"group": "both", "task": ["small", "large"], "aggregate_metric_list": [rule]}
    )
    evaluator = shop.open(("both", "acc,none"), ("small", "acc,none"), ("large", "acc,none"))
    both, small, large = evaluator.evaluate(candidate, 100)
    assert (both.num_documents, small.num_documents, large.num_documents) == (38, 8, 30)
    # The group's documents are those of its tasks: each was scored once.
    assert evaluator.last_counts.scored == 38
    shares = (8 / 38, 30 / 38) if by_size else (0.5, 0.5)
    assert both.mean == pytest.approx(shares[0] * small.mean + shares[1] * large.mean)
    expected = math.hypot(shares[0] * small.standard_error, shares[1] * large.standard_error)
    assert both.standard_error == pytest.approx(expected)
    [scores, *_] = evaluator.document_scores(candidate, 100)
    assert scores.weights.sum() == pytest.approx(1.0)
    assert float(scores.weights @ scores.values) == pytest.approx(both.mean)
    assert scores.clusters is None


def test_clusters(workshop: Workshop, candidate: FakeCandidate) -> None:
    documents = [{**d, "text": d["id"] // 4} for d in choice_documents(48)]
    workshop.write("mc", {"test": documents}, **CHOICE, metadata={"passage": "text"})
    evaluator = workshop.open(("mc", "acc,none"))
    evaluator.evaluate(candidate, 100)
    [scores] = evaluator.document_scores(candidate, 100)
    assert scores.clusters is not None
    assert sorted(np.bincount(scores.clusters)) == [4] * 6


# --- lm-eval itself -------------------------------------------------------------------------------


def simple_evaluate(shop: Workshop, candidate: FakeCandidate, *tasks: str, **options: Any) -> Any:
    from lm_eval import evaluator
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from auto_merge.evaluation.lm_harness import quiet

    with pytest.MonkeyPatch.context() as patch, quiet():
        patch.chdir(shop.tasks)
        patch.setattr(evaluator, "add_env_info", lambda results: None)
        manager = TaskManager(include_path=str(shop.tasks), include_defaults=False)
        return evaluator.simple_evaluate(
            HFLM(pretrained=candidate.weights, tokenizer=build_tokenizer(), batch_size=16),
            tasks=list(tasks),
            task_manager=manager,
            bootstrap_iters=0,
            **options,
        )


def test_equal_to_simple_evaluate(shop: Workshop, candidate: FakeCandidate) -> None:
    for name in ("mc", "gen"):
        config = yaml.safe_load((shop.tasks / f"{name}.yaml").read_text())
        config["dataset_kwargs"]["cache_dir"] = str(shop.root / "cache")
        shop.write_yaml(name, config)
    objectives = (("mc", "acc,none"), ("mc", "acc_norm,none"), BOTH[1])
    evaluator = shop.open(*objectives)
    halves = [evaluator.evaluate(candidate, 162, split=split) for split in ("search", "heldout")]
    results = simple_evaluate(shop, candidate, "mc", "gen")["results"]
    for i, (task, metric) in enumerate(objectives):
        assert halves[0][i].num_documents == halves[1][i].num_documents == 81
        both = (halves[0][i].mean + halves[1][i].mean) / 2
        assert 0 < both < 1
        assert both == pytest.approx(results[task][metric])


def test_nothing_is_printed(
    shop: Workshop, candidate: FakeCandidate, capfd: pytest.CaptureFixture[str]
) -> None:
    shop.open(*BOTH).evaluate(candidate, 10)
    assert capfd.readouterr() == ("", "")
