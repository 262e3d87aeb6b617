"""The published objectives: prompts, splits, targets and scores on the documents beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from published import (
    FOLDER,
    GENERATED,
    NUM_DOCUMENTS,
    TASKS,
    Bench,
    documents,
    pico,
    rows,
    save_bytes_tokenizer,
    shipped,
)
from workshop import FakeCandidate, Workshop

from auto_merge.config.evaluation import TaskEntry
from auto_merge.errors import TaskError
from auto_merge.evaluation.filters import INVALID

PAGE = Path(__file__).parents[2] / "docs" / "custom_tasks.md"


@pytest.fixture(scope="module")
def bytes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bytes")
    save_bytes_tokenizer(folder)
    return folder


@pytest.fixture
def bench(tmp_path: Path, bytes_folder: Path) -> Iterator[Bench]:
    opened = Bench(tmp_path, bytes_folder)
    yield opened
    opened.ledger.close()


def test_every_task_file_is_tested_here() -> None:
    folders = {task.folder for task in TASKS.values()}
    files = [file for folder in folders for file in (FOLDER / folder).glob("*.yaml")]
    assert sorted(file.stem for file in files) == sorted(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_runs_on_a_small_model(bench: Bench, name: str) -> None:
    extra = shipped(name)
    if name in GENERATED:
        extra["generation_kwargs"] = {"until": ["Q:"], "do_sample": False, "max_gen_toks": 3}
    evaluator = bench.open(name, **extra)
    candidate = FakeCandidate("pico", pico())
    counts = []
    for split in ("search", "heldout"):
        scores = evaluator.evaluate(candidate, 100, split=split)
        assert len(scores) == len(TASKS[name].metrics)
        assert all(0 <= score.mean <= 1 for score in scores)
        counts.append(scores[0].num_documents)
    assert sum(counts) == NUM_DOCUMENTS
    assert min(counts) >= 3


@pytest.mark.parametrize("name", [name for name in TASKS if name not in GENERATED])
def test_only_the_right_choice_counts(bench: Bench, name: str) -> None:
    leaf = bench.leaf(name, **shipped(name))
    for document in documents(leaf):
        requests = len(leaf.tokens(document))
        scores = [
            leaf.score(document, [(float(i == best), False) for i in range(requests)])["acc,none"]
            for best in range(requests)
        ]
        assert sorted(scores) == [0.0] * (requests - 1) + [1.0]
        assert scores.index(1.0) == right_choice(name, document.content)


def right_choice(name: str, content: Any) -> int:
    """Read off the raw documents, independently of the task's own functions."""
    if name == "commonsense_custom":
        return "ABCDE".index(content["answerKey"])
    if name == "wsc_custom":
        return {1: 0, 0: 1}[content["label"]]
    if name == "cmnli":
        return {2: 0, 0: 1, 1: 2}[content["label"]]
    if name.startswith("race"):
        return "ABCD".index(content["problems"].rpartition("'answer': '")[2][0])
    return int(content["label"])


# --- generated answers ----------------------------------------------------------------------------

ANSWERS = {
    "gsm8k_test": ["336", "10000", "4.5", "-7", "2.8", "15", "28", "1/6"],
    "gsm_plus_mini_custom": ["128", "122", "120", "None", "84000", "84", "6", "80.5"],
    "gsm_ja": ["54", "12000", "1.8", "-5", "60", "1100", "24", "315"],
}


@pytest.mark.parametrize("name", GENERATED)
def test_answers_count_in_every_spelling(bench: Bench, name: str) -> None:
    leaf = bench.leaf(name, **shipped(name))
    phrase = "従って答えは{}です。" if name == "gsm_ja" else "1 + 1 = 2.\nThe answer is: {}."
    key = TASKS[name].metrics[0]
    for document, answer in zip(documents(leaf), ANSWERS[name], strict=True):
        spellings = [answer]
        if "/" not in answer and answer != "None":
            spellings += [f"${float(answer):,.2f}", f"{float(answer):.4f}", f"{answer} kg"]
        for spelling in spellings:
            assert leaf.score(document, [phrase.format(spelling)])[key] == 1.0, spelling
        for wrong in ("", answer, "The answer is 3", phrase.format("9.99"), INVALID):
            assert leaf.score(document, [wrong])[key] == 0.0, wrong


def test_decimals_are_not_rounded(bench: Bench) -> None:
    leaf = bench.leaf("gsm8k_test", **shipped("gsm8k_test"))
    loaves = documents(leaf)[2]
    for number, value in (("4.5", 1.0), ("4", 0.0), ("5", 0.0), ("4.49", 0.0), ("9/2", 1.0)):
        score = leaf.score(loaves, [f"The answer is: {number}"])
        assert score == {"exact_match,custom-strict-match": value}


def test_the_last_number_of_a_japanese_answer(bench: Bench) -> None:
    leaf = bench.leaf("gsm_ja", **shipped("gsm_ja"))
    bolts = documents(leaf)[1]
    score = leaf.score(bolts, ["1,500×8で、12,000個"])
    assert score == {"exact_match,strict-match": 0.0, "exact_match,flexible-extract": 1.0}
    score = leaf.score(bolts, ["答えは12,000です。検算:12,000÷8=1,500"])
    assert score == {"exact_match,strict-match": 1.0, "exact_match,flexible-extract": 0.0}


# --- prompts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gsm8k_test", "gsm_plus_mini_custom"])
def test_word_problems_stand_in_the_alpaca_format(bench: Bench, name: str) -> None:
    leaf = bench.leaf(name, **shipped(name))
    [prompt] = bench.prompts(leaf, documents(leaf)[0])
    assert prompt == (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\n"
        f"{rows(name)[0]['question']}\n\n### Response: Let's think step by step."
    )
    [tokens] = leaf.tokens(documents(leaf)[0])
    assert tokens.max_new_tokens == 1024
    assert tokens.stops == ("Q:", "</s>", "<|im_end|>")


def test_japanese_problems_follow_three_worked_examples(bench: Bench) -> None:
    leaf = bench.leaf("gsm_ja", **shipped("gsm_ja"))
    lines = (FOLDER / "gsm_ja" / "examples.jsonl").read_text("utf-8").splitlines()
    blocks = {
        f"問題：{doc['question']}\nステップごとの答え：{doc['answer']}"
        for doc in map(json.loads, lines)
    }
    assert len(blocks) == 8
    drawn = set()
    for document in documents(leaf):
        [prompt] = bench.prompts(leaf, document)
        *shots, last = prompt.split("\n\n")
        assert len(set(shots)) == 3
        assert set(shots) <= blocks
        assert last == f"問題：{document.content['question']}\nステップごとの答え："
        drawn |= set(shots)
    assert len(drawn) > 3
    [tokens] = leaf.tokens(documents(leaf)[0])
    assert tokens.stops == ("問題：", "</s>", "<|im_end|>")


def test_data_that_write_the_headings_themselves(bench: Bench, tmp_path: Path) -> None:
    plain = [{**row, "answer": None} for row in rows("gsm_ja")]
    written = [{**row, "question": "問題：" + row["question"]} for row in plain]
    prompts = []
    for name, content in (("plain", plain), ("written", written)):
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
        data = {"data_files": {"test": str(file)}}
        leaf = bench.leaf("gsm_ja", dataset_path="json", dataset_kwargs=data, num_fewshot=0)
        prompts.append([bench.prompts(leaf, document) for document in documents(leaf)])
    assert prompts[0] == prompts[1]


def test_choice_prompts(bench: Bench) -> None:
    expected = {
        "commonsense_custom": (
            "Question: Where does a captain stand to steer a ship?\nA. cellar\nB. bridge\n"
            "C. orchard\nD. balcony\nE. platform\nAnswer:", [" A", " B", " C", " D", " E"]
        ),
        "piqa_custom": (
            "Question: Find a small screw that fell on a carpet.\nAnswer:",
            [" Move a magnet over the carpet.", " Move a candle over the carpet."],
        ),
        "wsc_custom": (
            "Passage: The dog chased the cat until *it* was tired, so the dog lay down.\n"
            "Question: In the passage above, does the pronoun # it # refer to * The dog *?\n"
            "A. Yes\nB. No\nAnswer:", [" A", " B"]
        ),
        "cmnli": (
            "语句一：“商店今天九点开门。”\n语句二：“商店今天整天关门。”\n请问这两句话是什么关系？",
            ["矛盾", "无关", "蕴含"],
        ),
        "race": (
            f"Article: {rows('race')[0]['article']}\n\nQuestion: When is the bread sold out?\n"
            "Answer: At nine.\nAda gets up early because  _  .",
            [" the market opens at four", " she likes the dark", " the oven heats slowly",
             " her bread is sold at six"],
        ),
    }  # fmt: skip
    for name, (context, choices) in expected.items():
        leaf = bench.leaf(name, **shipped(name))
        read = [tokens.inputs for tokens in leaf.tokens(documents(leaf)[0])]
        whole = [[*(context + choice).encode()][:-1] for choice in choices]
        assert [len(tokens) for tokens in read] == [len(text) for text in whole], name
        texts = bench.prompts(leaf, documents(leaf)[0])
        assert all(text.startswith(context) for text in texts), name


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("race", "race"), ("commonsense_custom", "commonsense_qa"), ("piqa_custom", "piqa")],
)
def test_equal_to_the_task_of_lm_eval(bench: Bench, ours: str, theirs: str) -> None:
    extra = shipped(ours)
    split = TASKS[ours].split
    files = {part: str(FOLDER / TASKS[ours].folder / name)
             for part, name in extra["dataset_kwargs"]["data_files"].items()}  # fmt: skip
    extra["dataset_kwargs"] = {"data_files": files}
    mine = bench.leaf(ours, **extra)
    other = bench.leaf(theirs, "acc,none", folder=None, **extra)
    assert len(documents(mine)) == len(rows(ours, split))
    for document in documents(mine):
        assert mine.tokens(document) == other.tokens(document)
        for best in range(len(mine.tokens(document))):
            answers = [(float(i == best), False) for i in range(len(mine.tokens(document)))]
            assert (
                mine.score(document, answers)["acc,none"]
                == (other.score(document, answers)["acc,none"])
            )


@pytest.mark.parametrize(
    ("text", "index", "passage"),
    [
        ("They did not buy it.", 0, "*They* did not buy it."),
        ("She waved, and they, too.", 3, "She waved, and *they*, too."),
        ("They say that they know.", 3, "They say that *they* know."),
        ("It did n't rain ( they knew ).", 5, "It didn't rain (*they* knew)."),
        ("the end was known to them", 9, "the end was known to them"),
    ],
)
def test_the_pronoun_is_starred(bench: Bench, text: str, index: int, passage: str) -> None:
    pronoun = "They" if index == 0 else "they"
    row = {"span1_index": 0, "span2_index": index, "span1_text": "people", "span2_text": pronoun}
    file = bench.root / "own.jsonl"
    content = [{**row, "text": words, "label": 1} for words in (text, "Here they are.")]
    file.write_text("".join(json.dumps(line) + "\n" for line in content), encoding="utf-8")
    extra = {"dataset_path": "json", "dataset_name": None, "training_split": None}
    leaf = bench.leaf(
        "wsc_custom", **extra, dataset_kwargs={"data_files": {"validation": str(file)}}
    )
    prompts = [bench.prompts(leaf, document)[0] for document in documents(leaf)]
    assert prompts[0].startswith(f"Passage: {passage}\nQuestion:")


def test_passages_are_those_of_lm_eval(bench: Bench) -> None:
    """But for a pronoun that is the first word, where lm-eval loses a character."""
    files = {part: str(FOLDER / "wsc_custom" / "fixtures" / f"{part}.jsonl")
             for part in ("train", "validation")}  # fmt: skip
    extra = shipped("wsc_custom", dataset_kwargs={"data_files": files})
    mine = bench.leaf("wsc_custom", **extra)
    other = bench.leaf("wsc", "acc,none", folder=None, **extra)
    compared = 0
    for document in documents(mine):
        lines = [bench.prompts(leaf, document)[0].splitlines()[0] for leaf in (mine, other)]
        if document.content["span2_index"] > 0:
            assert lines[0] == lines[1]
            compared += 1
    assert compared == 6


# --- documents ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "field"), [("gsm_plus_mini_custom", "seed_question"), ("wsc_custom", "text")]
)
def test_variations_of_one_problem_stay_together(bench: Bench, name: str, field: str) -> None:
    leaf = bench.leaf(name, **shipped(name))
    search, heldout = (
        {document.content[field] for document in part}
        for part in (leaf.parts.search, leaf.parts.heldout)
    )
    assert search
    assert heldout
    assert not search & heldout


def test_pairs_without_a_label_are_left_out(bench: Bench) -> None:
    leaf = bench.leaf("cmnli", **shipped("cmnli"))
    assert [document.content["label"] for document in documents(leaf)] == [2, 1, 0, 2, 1, 0, 2, 1]
    assert len(rows("cmnli")) == 9


def test_labels_in_words(bench: Bench) -> None:
    words = {0: "neutral", 1: "entailment", 2: "contradiction", -1: "-"}
    content = [{**row, "label": words[row["label"]]} for row in rows("cmnli")]
    file = bench.root / "dev.json"
    file.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    data = {"dataset_kwargs": {"data_files": {"validation": str(file)}}}
    leaf = bench.leaf("cmnli", dataset_path="json", dataset_name=None, **data)
    other = bench.leaf("cmnli", **shipped("cmnli"))
    answers = [(0.0, False), (1.0, False), (2.0, False)]
    assert [leaf.score(document, answers) for document in documents(leaf)] == [
        other.score(document, answers) for document in documents(other)
    ]


def test_published_settings_of_an_entry(bench: Bench) -> None:
    leaf = bench.leaf("wsc_custom", **shipped("wsc_custom", test_split="train"))
    assert [dict(document.content) for document in documents(leaf)] == rows("wsc_custom", "train")
    leaf = bench.leaf("commonsense_custom", **shipped("commonsense_custom", num_fewshot=2))
    [prompt, *_] = bench.prompts(leaf, documents(leaf)[0])
    questions = {row["question"] for row in rows("commonsense_custom", "train")}
    shots = [block.splitlines()[0].removeprefix("Question: ") for block in prompt.split("\n\n")]
    assert len(shots) == 3
    assert set(shots[:2]) < questions


def test_a_missing_file_is_named(bench: Bench) -> None:
    with pytest.raises(TaskError, match=r"'race': data file gone\.jsonl not found"):
        bench.leaf(
            "race", dataset_path="json", dataset_kwargs={"data_files": {"test": "gone.jsonl"}}
        )


def test_the_reading_of_answers_is_part_of_a_task(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores that were read in another way are not taken from the ledger."""
    digests = []
    for code in ("old", "new"):
        monkeypatch.setattr(
            "auto_merge.evaluation.lm_harness_filters.digest", lambda *parts, code=code: code
        )
        tasks = ("gsm8k_test", "piqa_custom")
        digests.append([bench.leaf(name, **shipped(name)).digest for name in tasks])
    assert digests[0][0] != digests[1][0]
    assert digests[0][1] == digests[1][1]


# --- documentation --------------------------------------------------------------------------------


def blocks(kind: str) -> list[str]:
    return [part.split("```")[0] for part in PAGE.read_text("utf-8").split(f"```{kind}\n")[1:]]


def test_documented_entries_are_understood(bench: Bench) -> None:
    entries = [entry for text in blocks("yaml") for entry in yaml.safe_load(text).get("tasks", ())]
    assert {entry["task"] for entry in entries} >= {"gsm8k_test", "wsc_custom", "gsm_ja"}
    for raw in entries:
        entry = TaskEntry.model_validate(raw)
        assert entry.metric in TASKS[entry.task].metrics
        files = entry.overrides.get("dataset_kwargs", {}).get("data_files", {})
        if any(name.startswith("fixtures/") for name in files.values()):
            bench.leaf(entry.task, entry.metric, **entry.overrides)


def test_the_documented_objective_works(workshop: Workshop, bench: Bench) -> None:
    [config] = [
        config for text in blocks("yaml") if "output_type" in (config := yaml.safe_load(text))
    ]
    [lines] = blocks("json")
    for split, file in config["dataset_kwargs"]["data_files"].items():
        numbered = [
            {**json.loads(line), "id": f"{split}{i}"}
            for i in range(4)
            for line in lines.split("\n")
            if line
        ]
        (workshop.tasks / file).write_text("".join(json.dumps(row) + "\n" for row in numbered))
    workshop.write_yaml(config["task"], config)
    [metric] = [entry["metric"] for entry in config["metric_list"]]
    [pipeline] = [entry["name"] for entry in config["filter_list"]]
    leaf = bench.leaf(config["task"], f"{metric},{pipeline}", folder=workshop.tasks)
    for document in documents(leaf):
        for text, value in ((f"The answer is: {document.content['answer']}", 1.0), ("", 0.0)):
            assert leaf.score(document, [text]) == {f"{metric},{pipeline}": value}
