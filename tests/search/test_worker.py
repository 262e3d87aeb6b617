from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pico import read_tensors, write_tensors
from world import make_world

from auto_merge.config import load_config
from auto_merge.errors import (
    CheckpointError,
    Interrupted,
    InvalidWeightsError,
    RecipeError,
    RunError,
    TrialTimeoutError,
)
from auto_merge.evaluation.evaluator import HarnessEvaluator
from auto_merge.recipe.model import Recipe, Slice, Source
from auto_merge.search.candidates import Workbench
from auto_merge.search.scoring import build_evaluator
from auto_merge.search.setup import Setup, prepare
from auto_merge.search.worker import LocalWorker, one_line, status_of
from auto_merge.trial import FAILURE_COST, Outcome, Status, Trial


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    monkeypatch.setenv("AUTO_MERGE_CACHE", str(tmp_path / "cache"))
    return prepare(load_config(make_world(tmp_path)))


def work(
    setup: Setup, evaluator: HarnessEvaluator | None = None, **options: Any
) -> tuple[Outcome, HarnessEvaluator]:
    evaluator = evaluator or build_evaluator(setup, "cpu")
    workbench = Workbench(setup.checkpoints, device="cpu", dtype="float32")
    worker = LocalWorker(workbench, evaluator, setup.objectives, **options)
    trial = Trial(0, 0, {}, fidelity=12)
    return worker.run(trial, setup.cast.single_scale(0.5)), evaluator


def assert_failed(outcome: Outcome, status: Status, text: str) -> None:
    assert outcome.status is status
    assert outcome.cost == FAILURE_COST
    assert outcome.scores == ()
    assert text in outcome.error
    assert "\n" not in outcome.error
    assert "Traceback" in outcome.traceback


def test_success_has_scores_cost_digest_and_timings(setup: Setup) -> None:
    outcome, _ = work(setup)
    assert outcome.status is Status.SUCCESS
    assert [score.num_documents for score in outcome.scores] == [12, 12]
    assert outcome.cost == pytest.approx(1 - sum(s.mean for s in outcome.scores) / 2)
    assert outcome.num_new_documents == 24
    assert len(outcome.digest) == 64
    assert outcome.timings["merge"] > 0
    assert Outcome.from_json(outcome.to_json()) == outcome


def test_crash(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("a bug in a task")

    monkeypatch.setattr("auto_merge.evaluation.forward.Runner.likelihoods", explode)
    outcome, evaluator = work(setup)
    assert_failed(outcome, Status.CRASHED, "ZeroDivisionError: a bug in a task")
    monkeypatch.undo()
    again, _ = work(setup, evaluator)
    assert again.status is Status.SUCCESS, "a failed evaluation is not cached"
    assert again.num_new_documents == 24


def test_timeout(setup: Setup) -> None:
    outcome, _ = work(setup, trial_seconds=1e-9)
    assert_failed(outcome, Status.TIMEOUT, "time limit")


def test_out_of_memory_is_tried_twice(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def explode(*args: object, **kwargs: object) -> None:
        calls.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("auto_merge.merging.live.LiveModel.materialise", explode)
    outcome, _ = work(setup)
    assert_failed(outcome, Status.OUT_OF_MEMORY, "out of memory")
    assert len(calls) == 2


def test_nan_in_a_source_is_invalid_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTO_MERGE_CACHE", str(tmp_path / "cache"))
    file = make_world(tmp_path)
    broken = tmp_path / "models/left"
    tensors = read_tensors(broken)
    tensors["model.norm.weight"][3] = float("nan")
    write_tensors(broken, tensors)
    outcome, _ = work(prepare(load_config(file)))
    assert_failed(outcome, Status.INVALID_WEIGHTS, "model.norm.weight")


def test_a_stop_is_not_a_failure(setup: Setup) -> None:
    with pytest.raises(Interrupted):
        work(setup, should_stop=lambda: True)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidWeightsError("x"), Status.INVALID_WEIGHTS),
        (TrialTimeoutError("x"), Status.TIMEOUT),
        (MemoryError(), Status.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), Status.OUT_OF_MEMORY),
        (RecipeError("x"), Status.INFEASIBLE),
        (KeyError("x"), Status.CRASHED),
    ],
)
def test_every_error_has_its_status(error: Exception, status: Status) -> None:
    assert status_of(error) is status


def test_one_line_has_no_line_breaks() -> None:
    assert one_line(ValueError("a\n  b")) == "ValueError: a b"
    assert one_line(RecipeError("plain")) == "plain"


def test_a_recipe_that_fits_no_model_is_infeasible(setup: Setup) -> None:
    worker = LocalWorker(
        Workbench(setup.checkpoints, device="cpu", dtype="float32"),
        build_evaluator(setup, "cpu"),
        setup.objectives,
    )
    too_deep = Recipe((Slice("passthrough", (Source("left", (0, 9)),)),), "base")
    outcome = worker.run(Trial(0, 0, {}, fidelity=4), too_deep)
    assert_failed(outcome, Status.INFEASIBLE, "layers")


@pytest.mark.parametrize("error", [RunError("disk full"), CheckpointError("gone")])
def test_what_is_not_the_trials_fault_is_not_its_outcome(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr("auto_merge.evaluation.ledger.Ledger.put", fail)
    with pytest.raises(type(error)):
        work(setup)
