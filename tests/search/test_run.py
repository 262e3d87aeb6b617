from __future__ import annotations

import itertools
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from world import make_world

from auto_merge.cli import run_command
from auto_merge.config import load_config
from auto_merge.errors import Interrupted, RunError
from auto_merge.runs import reader
from auto_merge.runs.store import RunStore
from auto_merge.runs.view import RunView
from auto_merge.search.candidates import Workbench
from auto_merge.search.setup import prepare


def view(folder: Path) -> RunView:
    return reader.view(RunStore(folder))


def ledger_rows(cache: Path) -> int:
    database = sqlite3.connect(cache / "ledger.sqlite")
    count = database.execute("SELECT COUNT(*) FROM scores").fetchone()[0]
    database.close()
    return int(count)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world with one finished search in ``run``."""
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTO_MERGE_CACHE", str(folder / "cache"))
        assert search(folder) == 0
    return folder


@pytest.fixture
def world(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTO_MERGE_CACHE", str(finished / "cache"))
    return finished


def search(folder: Path, *words: str, output: str = "run") -> int:
    return run_command(
        ["--config", str(folder / "lfs.yaml"), "--output", str(folder / output), "--quiet", *words]
    )


def test_a_search_ends_with_model_report_and_comparison(world: Path) -> None:
    seen = view(world / "run")
    assert seen.state == "complete"
    assert len(seen.trials) == 16
    assert all(row.outcome is not None and row.outcome.scores for row in seen.trials)
    assert seen.final is not None
    labels = [row.label for row in seen.final.heldout]
    assert labels[:5] == ["best", "source: left", "source: right", "base", "uniform average"]
    assert labels[5].startswith("best single scale (")
    assert all(row.search_mean is not None for row in seen.final.heldout)
    assert seen.final.num_openings == 1
    assert "<html" in (world / "run/report.html").read_text("utf-8")


def test_the_exported_model_is_the_merged_one(world: Path) -> None:
    seen = view(world / "run")
    assert seen.final is not None
    model = AutoModelForCausalLM.from_pretrained(world / "run/best")
    tokenizer = AutoTokenizer.from_pretrained(world / "run/best")
    batch = tokenizer("abc=", return_tensors="pt")
    setup = prepare(load_config(world / "lfs.yaml"))
    workbench = Workbench(setup.checkpoints, device="cpu", dtype="float32")
    live = workbench.materialise(workbench.plan(seen.final.recipe))
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, live(**batch).logits)


def test_card_and_recipe_travel_with_the_model(world: Path) -> None:
    card = (world / "run/best/README.md").read_text("utf-8")
    assert "auto_merge" in card
    assert "models/left" in card
    again = world / "again"
    assert run_command(["merge", str(world / "run/best/recipe.yaml"), str(again), "--quiet"]) == 0
    first, second = (
        AutoModelForCausalLM.from_pretrained(folder).state_dict()
        for folder in (world / "run/best", again)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_complete_run_is_printed_again_at_once(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = ledger_rows(world / "cache")
    assert search(world, "--json") == 0
    assert json.loads(capsys.readouterr().out)["status"]["state"] == "complete"
    assert ledger_rows(world / "cache") == before


def test_promotions_pay_only_for_what_is_missing(world: Path) -> None:
    rows = view(world / "run").trials
    by_config: dict[int, list[Any]] = {}
    for row in rows:
        by_config.setdefault(row.trial.config_id, []).append(row)
    promoted = [group for group in by_config.values() if len(group) > 1]
    assert promoted
    for group in promoted:
        for low, high in itertools.pairwise(group):
            assert high.trial.fidelity == 3 * low.trial.fidelity
            assert high.outcome.num_new_documents == 2 * 2 * low.trial.fidelity


def test_a_second_run_with_the_same_cache_scores_nothing_and_finds_the_same(world: Path) -> None:
    assert search(world, output="twin") == 0
    first, second = view(world / "run"), view(world / "twin")
    assert [row.trial for row in first.trials] == [row.trial for row in second.trials]
    assert [row.outcome.scores for row in first.trials if row.outcome] == [
        row.outcome.scores for row in second.trials if row.outcome
    ]
    assert sum(row.outcome.num_new_documents for row in second.trials if row.outcome) == 0
    assert second.final is not None
    assert second.final.num_openings == 1


def test_other_settings_are_refused_and_named(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(world, "--set", "search.eta=2", "--set", "random_seed=9") == 2
    error = capsys.readouterr().err
    assert "holds a run with other settings (random_seed, search.eta)" in error


def test_a_run_can_be_extended(world: Path) -> None:
    assert search(world, "--set", "search.max_trials=6", output="longer") == 0
    assert len(view(world / "longer").trials) == 6
    assert search(world, "--set", "search.max_trials=9", output="longer") == 0
    seen = view(world / "longer")
    assert len(seen.trials) == 9
    assert seen.state == "complete"


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Lets the ``at``-th materialised model be the last one of the process."""
    made = []
    materialise = Workbench.materialise

    def count(self: Workbench, plan: Any) -> Any:
        made.append(plan)
        if len(made) > at:
            raise Interrupted
        return materialise(self, plan)

    monkeypatch.setattr(Workbench, "materialise", count)


def test_an_interrupted_extension_goes_on(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apart = f"cache_dir={world / 'extended_cache'}"
    assert search(world, "--set", "search.max_trials=4", "--set", apart, output="extended") == 0
    longer = ("--set", "search.max_trials=7", "--set", apart)
    with monkeypatch.context() as patch:
        interrupt(patch, 0)
        assert search(world, *longer, output="extended") == 130
    assert view(world / "extended").state == "stopped"
    assert search(world, *longer, output="extended") == 0
    assert len(view(world / "extended").trials) == 7


def test_a_kill_before_delivery_is_made_good(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = ("--set", "search.max_trials=5")
    with monkeypatch.context() as patch:
        patch.setattr("auto_merge.search.deliver.export_model", lambda *a, **k: exit(9))
        with pytest.raises(SystemExit):
            search(world, *short, output="undelivered")
    seen = view(world / "undelivered")
    assert (seen.state, seen.final is None) == ("stopped", False)
    assert search(world, *short, output="undelivered") == 0
    assert view(world / "undelivered").state == "complete"
    assert (world / "undelivered/best/config.json").is_file()


def test_changed_documents_are_another_run(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ("--set", "search.max_trials=3")
    assert search(world, *short, output="before") == 0
    file = world / "tasks/pico_next_search.jsonl"
    text = file.read_text("utf-8")
    try:
        file.write_text(text.replace('"answer": "a"', '"answer": "b"'), "utf-8")
        assert search(world, "--set", "search.max_trials=5", output="before") == 2
    finally:
        file.write_text(text, "utf-8")
    assert "task pico_next has changed since the run began" in capsys.readouterr().err


def test_a_broken_ledger_stops_the_run_and_is_no_failure(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise RunError("ledger.sqlite: cannot be written: database or disk is full")

    words = ("--set", "search.max_trials=4", "--set", f"cache_dir={world / 'full_cache'}")
    with monkeypatch.context() as patch:
        patch.setattr("auto_merge.evaluation.ledger.Ledger.put", full)
        assert search(world, *words, output="full") == 2
    assert search(world, *words, output="full") == 0
    assert all(row.outcome and row.outcome.scores for row in view(world / "full").trials)


def test_on_disk_evaluation_finds_the_same_scores(world: Path) -> None:
    short = ("--set", "search.max_trials=4")
    assert search(world, *short, output="memory") == 0
    on_disk = ("--set", "evaluation.in_memory=false", "--set", "cache_dir=" + str(world / "other"))
    assert search(world, *short, *on_disk, output="disk") == 0
    memory, disk = view(world / "memory"), view(world / "disk")
    assert [row.outcome.cost for row in memory.trials if row.outcome] == pytest.approx(
        [row.outcome.cost for row in disk.trials if row.outcome]
    )
    assert not list((world / "other" / "scratch").glob("*"))


def test_status_report_export_and_replay(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(world / "run")
    assert run_command(["status", run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "complete"
    assert run_command(["status", run]) == 0
    assert run_command(["report", run, "--html", str(world / "copy.html")]) == 0
    assert (world / "copy.html").is_file()
    assert run_command(["export", run, str(world / "third"), "--trial", "3", "--quiet"]) == 0
    assert "trial 3" in (world / "third/README.md").read_text("utf-8")
    capsys.readouterr()
    config = str(world / "lfs.yaml")
    assert run_command(["replay", f"{run}:3", "--config", config, "--json", "--quiet"]) == 0
    scored = json.loads(capsys.readouterr().out)
    assert set(scored["scores"]) == {"search"}
    third = str(world / "third")
    command = ["evaluate", third, "--config", config, "--json", "--quiet"]
    assert run_command(command) == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone["means"]["search"] == pytest.approx(scored["means"]["search"])


def test_recipe_in_both_formats(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subject = f"{world / 'run'}:best"
    config = ["--config", str(world / "lfs.yaml")]
    assert run_command(["recipe", subject, *config]) == 0
    assert capsys.readouterr().out.startswith("recipe: 1\nbase: base\n")
    assert run_command(["recipe", subject, *config, "--format", "plan", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["steps"][0]["output"] == "model.embed_tokens.weight"


def test_dry_run_writes_nothing(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert search(world, "--dry-run", "--json", output="dry") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["rungs"] == [4, 12, 36]
    assert data["max_trials"] == 16
    assert data["not_checked"] == []
    assert not (world / "dry").exists()
