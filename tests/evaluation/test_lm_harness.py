from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from workshop import (
    CHOICE,
    Workshop,
    choice_documents,
    refusal,
    suite,
    write_choice,
    write_generate,
)

from auto_merge.errors import TaskError
from auto_merge.evaluation.lm_harness import _manager, load_tasks
from auto_merge.evaluation.lm_harness_sources import source_text
from auto_merge.evaluation.task_names import builtin_folders, check_names
from auto_merge.trial import Objective

# --- names and kinds ------------------------------------------------------------------------------


def test_unknown_task_names_the_nearest(workshop: Workshop) -> None:
    write_choice(workshop, "letters")
    assert refusal(workshop, ("leters", "acc,none")) == (
        "unknown task 'leters'; did you mean 'letters'?"
    )


def test_certainly_unknown_names_are_refused_early(tmp_path: Path) -> None:
    (tmp_path / "flow.yaml").write_text("{task: mine, dataset_path: json}\n")
    (tmp_path / "usual.yaml").write_text("group: ours\ntask: [mine]\n")
    check_names(["mine", "ours", "arc_easy", "mmlu"], [tmp_path, tmp_path / "missing"])
    for name, hint in (("our", "did you mean 'ours'"), ("arc_eazy", "did you mean 'arc_easy'")):
        with pytest.raises(TaskError, match=f"unknown task '{name}'; {hint}"):
            check_names([name], [tmp_path])


def test_broken_yaml_is_named_with_the_unknown_task(workshop: Workshop) -> None:
    (workshop.tasks / "mc.yaml").write_text("task: mc\n  bad: [")
    text = refusal(workshop, ("mc", "acc,none"))
    assert "mc.yaml cannot be read" in text


def test_include_path_has_to_exist(workshop: Workshop) -> None:
    with pytest.raises(TaskError, match=r"evaluation\.include_path: .*nowhere is not a folder"):
        load_tasks([("x", {})], include_path=[workshop.root / "nowhere"], cache_dir=workshop.root)


def test_tags_are_refused_with_their_tasks(workshop: Workshop) -> None:
    write_choice(workshop, "one", tag="pair")
    write_choice(workshop, "two", tag="pair")
    assert "is a tag" in (text := refusal(workshop, ("pair", "acc,none")))
    assert "one, two" in text


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"output_type": "loglikelihood_rolling"}, "output_type 'loglikelihood_rolling'"),
        ({"repeats": 3}, "3 repeats"),
        ({"unsafe_code": True}, "executes generated code"),
        ({"doc_to_image": "prompt"}, "only text"),
        ({"generation_kwargs": {"until": [";"], "do_sample": True}}, "samples its answers"),
        ({"generation_kwargs": {"until": [";"], "temperature": 0.7}}, "samples its answers"),
        ({"generation_kwargs": {"until": [";"], "num_beams": 4}}, "generation_kwargs.num_beams"),
        ({"generation_kwargs": {"until": [";"]}}, "max_gen_toks 256 leaves no room"),
    ],
)
def test_unsupported_kinds_are_refused_by_name(
    workshop: Workshop, config: dict[str, Any], expected: str
) -> None:
    write_generate(workshop, "odd", **config)

    def first_prompt() -> None:
        [slot] = suite(workshop, ("odd", "exact_match,none")).line_up(1, "search")
        slot.leaf.tokens(slot.document)

    with pytest.raises(TaskError) as caught:
        first_prompt()
    assert "task 'odd'" in str(caught.value)
    assert expected in str(caught.value)


def test_builtin_tasks_are_found_without_reading_all_of_them(workshop: Workshop) -> None:
    folders = builtin_folders()
    assert {folder.name for folder in folders["gsm8k"]} >= {"gsm8k"}
    assert {folder.name for folder in folders["mmlu_anatomy"]} >= {"mmlu"}
    for name in ("gsm8k", "mmlu", "mmlu_anatomy", "arc_challenge"):
        manager = _manager([name], [workshop.tasks])
        assert name in manager.task_index
        assert len(manager.task_index) < 2000
    with pytest.raises(TaskError, match="unknown task 'arc_chalenge'; did you mean 'arc_challenge"):
        _manager(["arc_chalenge"], [workshop.tasks])
    with pytest.raises(TaskError, match="'humaneval' executes generated code"):
        load_tasks([("humaneval", {})], include_path=[], cache_dir=workshop.root)


# --- data -----------------------------------------------------------------------------------------


def test_empty_data_file(workshop: Workshop) -> None:
    write_choice(workshop, "mc", 0)
    assert "mc_test.jsonl is empty" in refusal(workshop, ("mc", "acc,none"))


def test_missing_data_file(workshop: Workshop) -> None:
    write_choice(workshop)
    (workshop.tasks / "mc_test.jsonl").unlink()
    text = refusal(workshop, ("mc", "acc,none"))
    assert "data file mc_test.jsonl not found beside its YAML file" in text


def test_torn_data_file(workshop: Workshop) -> None:
    write_choice(workshop)
    file = workshop.tasks / "mc_test.jsonl"
    file.write_text(file.read_text()[:-20])
    assert "task 'mc' cannot be loaded" in refusal(workshop, ("mc", "acc,none"))


def test_split_that_does_not_exist(workshop: Workshop) -> None:
    write_choice(workshop, test_split="tset")
    assert "task 'mc' cannot be loaded" in refusal(workshop, ("mc", "acc,none"))
    write_choice(workshop)
    text = refusal(workshop, ("mc", "acc,none"), holdout_split="tets")
    assert "has no split 'tets'; did you mean 'test'?" in text


def test_one_document_is_not_enough(workshop: Workshop) -> None:
    write_choice(workshop, count=1)
    assert "task 'mc' has no held-out documents" in refusal(workshop, ("mc", "acc,none"))


def test_template_with_a_missing_field(workshop: Workshop) -> None:
    write_choice(workshop, doc_to_text="{{qestion}}")
    assert "qestion" in refusal(workshop, ("mc", "acc,none"))


def test_data_is_found_beside_the_yaml_then_in_the_working_folder(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_choice(workshop)
    elsewhere = workshop.root / "elsewhere"
    elsewhere.mkdir()
    (workshop.tasks / "mc_test.jsonl").rename(elsewhere / "mc_test.jsonl")
    monkeypatch.chdir(elsewhere)
    loaded = suite(workshop, ("mc", "acc,none"))
    assert len(loaded.line_up(100, "search")) == 6
    assert (workshop.root / "cache" / "datasets").is_dir()


def test_holdout_split(workshop: Workshop) -> None:
    documents = choice_documents(30)
    workshop.write("mc", {"test": documents[:20], "final": documents[15:]}, **CHOICE)
    loaded = suite(workshop, ("mc", "acc,none"), holdout_split="final")
    search = {slot.document.content["id"] for slot in loaded.line_up(100, "search")}
    heldout = {slot.document.content["id"] for slot in loaded.line_up(100, "heldout")}
    assert (search, heldout) == (set(range(15)), set(range(15, 30)))


def test_duplicates_are_scored_once_and_never_cross(workshop: Workshop) -> None:
    workshop.write("mc", {"test": choice_documents(10) * 3}, **CHOICE)
    loaded = suite(workshop, ("mc", "acc,none"))
    keys = [
        {slot.document.key for slot in loaded.line_up(100, split)}
        for split in ("search", "heldout")
    ]
    assert (len(keys[0]), len(keys[1]), len(keys[0] & keys[1])) == (5, 5, 0)


def test_stratum_and_passage_fields(workshop: Workshop) -> None:
    documents = [{**d, "text": d["id"] // 4} for d in choice_documents(48)]
    metadata = {"version": 1, "stratum": "kind", "passage": "text"}
    workshop.write("mc", {"test": documents}, **CHOICE, metadata=metadata)
    loaded = suite(workshop, ("mc", "acc,none"))
    search = loaded.line_up(100, "search")
    heldout = loaded.line_up(100, "heldout")
    texts = [{slot.document.passage for slot in side} for side in (search, heldout)]
    assert not texts[0] & texts[1]
    assert sum(slot.document.stratum == "odd" for slot in search[:9]) in (2, 3, 4)
    workshop.write("mc", {"test": documents}, **CHOICE, metadata={"stratum": "knid"})
    assert "metadata names the field 'knid'" in refusal(workshop, ("mc", "acc,none"))


# --- metrics --------------------------------------------------------------------------------------


def test_unknown_metric(workshop: Workshop) -> None:
    write_choice(workshop)
    text = refusal(workshop, ("mc", "accc,none"))
    assert text == "task 'mc' has no metric 'accc,none'; it has: acc,none, acc_norm,none"
    assert "has no metric 'acc,strict'" in refusal(workshop, ("mc", "acc,strict"))
    assert "has no metric 'acc'" in refusal(workshop, ("mc", "acc"))


@pytest.mark.parametrize(("metric", "aggregation"), [("f1", "f1"), ("mcc", "matthews_corrcoef")])
def test_metric_that_is_no_mean(workshop: Workshop, metric: str, aggregation: str) -> None:
    rules = [{"metric": metric, "aggregation": aggregation, "higher_is_better": True}]
    write_choice(workshop, metric_list=[*CHOICE["metric_list"], *rules])
    text = refusal(workshop, ("mc", f"{metric},none"))
    assert "is not a mean over documents" in text
    assert "usable: acc,none, acc_norm,none" in text


def test_perplexity_is_no_mean(workshop: Workshop) -> None:
    write_generate(
        workshop,
        "ll",
        output_type="loglikelihood",
        generation_kwargs=None,
        metric_list=[
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        ],
    )
    assert "not a mean over documents but perplexity" in refusal(
        workshop, ("ll", "perplexity,none")
    )
    assert suite(workshop, ("ll", "acc,none")).line_up(1, "search")


# --- groups ---------------------------------------------------------------------------------------


def write_group(shop: Workshop, by_size: bool = True, **config: Any) -> None:
    shop.write("small", {"test": choice_documents(8)}, **CHOICE)
    shop.write("large", {"test": choice_documents(24, 100)}, **CHOICE)
    shop.write_yaml(
        "both",
        {
            "group": "both",
            "task": ["small", "large"],
            "aggregate_metric_list": [{"metric": "acc", "weight_by_size": by_size}],
            **config,
        },
    )


@pytest.mark.parametrize(("by_size", "expected"), [(True, (2, 6)), (False, (4, 4))])
def test_group_shares_its_documents(
    workshop: Workshop, by_size: bool, expected: tuple[int, int]
) -> None:
    write_group(workshop, by_size)
    loaded = suite(workshop, ("both", "acc,none"))
    line = [slot.leaf.name for slot in loaded.line_up(8, "search")]
    assert (line.count("small"), line.count("large")) == expected
    everything = [slot.leaf.name for slot in loaded.line_up(100, "search")]
    assert (everything.count("small"), everything.count("large")) == (4, 12)


def test_group_without_that_mean(workshop: Workshop) -> None:
    write_group(workshop)
    text = refusal(workshop, ("both", "acc_norm,none"))
    assert "has no mean of 'acc_norm,none' over its tasks" in text
    assert "gives: acc,none" in text
    write_group(workshop, aggregate_metric_list=None)
    assert "gives: nothing" in refusal(workshop, ("both", "acc,none"))


def test_held_out_in_one_task_is_held_out_in_all(workshop: Workshop) -> None:
    write_choice(workshop, "some", 10)
    write_choice(workshop, "more", 40)
    loaded = suite(workshop, ("some", "acc,none"), ("more", "acc,none"))
    keys = [{s.document.key for s in loaded.line_up(99, split)} for split in ("search", "heldout")]
    assert len(keys[0] | keys[1]) == 40
    assert not keys[0] & keys[1]


# --- overrides ------------------------------------------------------------------------------------


def test_overrides_reach_a_task_and_the_leaves_of_a_group(workshop: Workshop) -> None:
    for name, count, start in (("small", 8, 0), ("large", 24, 100)):
        other = choice_documents(count // 2, 500 + start)
        splits = {"test": choice_documents(count, start), "other": other}
        workshop.write(name, splits, **CHOICE)
    workshop.write_yaml(
        "both",
        {"group": "both", "task": ["small", "large"], "aggregate_metric_list": [{"metric": "acc"}]},
    )
    loaded = suite(
        workshop,
        ("both", "acc,none"),
        ("small", "acc,none"),
        ("small", "acc,none"),
        overrides=({"test_split": "other"}, {}, {"doc_to_text": "{{kind}}"}),
    )
    assert [len(track.slots["search"]) for track in loaded.tracks] == [2 + 6, 4, 4]
    assert {slot.document.content["id"] // 500 for slot in loaded.tracks[0].slots["search"]} == {1}
    assert loaded.tracks[1].slots["search"][0].leaf.digest != (
        loaded.tracks[2].slots["search"][0].leaf.digest
    )


# --- digests --------------------------------------------------------------------------------------


def test_source_text_sees_code_and_settings_but_no_folders(workshop: Workshop) -> None:
    def text(folder: str, code: str = "def f(doc): return doc['q']", **config: Any) -> str:
        place = workshop.root / folder
        place.mkdir(exist_ok=True)
        (place / "utils.py").write_text(code)
        (place / "base.yaml").write_text(json.dumps({"target_delimiter": " ", **config}))
        yaml = "task: x\ninclude: base.yaml\ndoc_to_text: !function utils.f\ntest_split: test\n"
        (place / "x.yaml").write_text(yaml)
        return source_text(place / "x.yaml", {})

    same = text("one")
    assert text("two") == same
    assert text("two", code="def f(doc): return doc['p']") != same
    assert text("two", target_delimiter="") != same
    assert text("two", metadata={"version": 2}, dataset_path="json") == same
    assert source_text(workshop.root / "one" / "x.yaml", {"test_split": "validation"}) == same
    assert source_text(workshop.root / "one" / "x.yaml", {"num_fewshot": 3}) != same


@pytest.mark.parametrize(
    "change", [{"num_fewshot": 1}, {"system_instruction": "x"}, {"seed": 5, "num_fewshot": 2}]
)
def test_leaf_digest_sees_what_shapes_prompts(workshop: Workshop, change: dict[str, Any]) -> None:
    splits = {"test": choice_documents(30), "train": choice_documents(25, 900)}
    workshop.write("mc", splits, **CHOICE, fewshot_split="train")

    def digest(**settings: Any) -> str:
        return suite(workshop, ("mc", "acc,none"), **settings).line_up(1, "search")[0].leaf.digest

    assert digest() == digest()
    assert digest(**change) != digest()


def test_python_functions_beside_the_yaml(
    workshop: Workshop, make_candidate: Callable[[int], Any]
) -> None:
    write_generate(workshop)
    (workshop.tasks / "utils.py").write_text(
        "def results(doc, results):\n"
        "    return {'length': len(results[0]), 'pair': (1, 2), 'text': 'x'}\n"
    )
    text = (workshop.tasks / "gen.yaml").read_text()
    rule = "- {metric: length, aggregation: mean, higher_is_better: true}"
    text = text.split("metric_list:")[0] + f"metric_list:\n{rule}\n" + "test_split: test\n"
    (workshop.tasks / "gen.yaml").write_text(
        text + "task: gen\nprocess_results: !function utils.results\n"
    )
    evaluator = workshop.open(("gen", "length,none"))
    [score] = evaluator.evaluate(make_candidate(0), 6)
    assert 0 <= score.mean <= 8
    [scores] = evaluator.document_scores(make_candidate(0), 6)
    assert set(scores.values) <= set(range(9))
    assert Objective("gen", "length,none") == evaluator._objectives[0]
    other = workshop.open(("gen", "pair,none"), ledger="other")
    with pytest.raises(TaskError, match=r"gave no number for 'pair,none' .* it gave: length,none"):
        other.evaluate(make_candidate(0), 6)
