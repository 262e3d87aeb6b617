"""MBPP and HumanEval: prompts, the code in answers, scores, and when they are refused."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from workshop import FakeCandidate, Workshop, write_generate

from auto_merge.errors import TaskError
from auto_merge.evaluation import sandbox
from auto_merge.evaluation.evaluator import HarnessEvaluator
from auto_merge.evaluation.sandbox import find_sandbox, rules
from auto_merge.evaluation.sandbox_answers import extract_code
from auto_merge.evaluation.settings import EvaluationSettings
from auto_merge.trial import Objective

try:
    find_sandbox()
    MISSING = ""
except TaskError as error:
    MISSING = str(error)
needs_sandbox = pytest.mark.skipif(bool(MISSING), reason=MISSING)

TASKS = Path(__file__).parents[2] / "custom_tasks"
PAGE = TASKS.parent / "docs" / "code_execution.md"
METRICS = {
    "mbpp": "pass_at_1,none",
    "humaneval": "pass_at_1,n=1",
    "humaneval_greedy": "pass_at_1,n=1",
}
SHORT = {"until": ["[DONE]"], "do_sample": False, "max_gen_toks": 8}


def folder_of(task: str) -> Path:
    return TASKS / task.removesuffix("_greedy")


def fixtures(task: str) -> list[dict[str, Any]]:
    text = (folder_of(task) / "fixtures" / "test.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def overrides(**data_files: str) -> dict[str, Any]:
    files = data_files or {"test": "fixtures/test.jsonl"}
    return {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files},
        "generation_kwargs": SHORT,
    }


def open_task(
    shop: Workshop, task: str, *, extra: dict[str, Any] | None = None, **settings: Any
) -> HarnessEvaluator:
    settings.setdefault("allow_code_execution", True)
    settings.setdefault("include_path", (TASKS,))
    return HarnessEvaluator(
        [Objective(task, METRICS.get(task, "pass_at_1,none"))],
        EvaluationSettings(
            cache_dir=shop.root / "cache",
            overrides=(overrides() if extra is None else extra,),
            device="cpu",
            **settings,
        ),
        shop.tokenizer,
        shop.ledger(),
    )


def answer_with(
    monkeypatch: pytest.MonkeyPatch, evaluator: HarnessEvaluator, answers: Sequence[str]
) -> list[dict[str, Any]]:
    """Lets the model give these answers; returns the documents that they answer."""
    slots = evaluator._suite.line_up(1000, "search")
    given = dict(zip([slot.document.key for slot in slots], answers, strict=True))
    by_tokens = {id(slot.leaf.tokens(slot.document)[0]): slot.document.key for slot in slots}

    def respond(model: Any, tokens: Sequence[Any]) -> Iterator[str]:
        return (given[by_tokens[id(token)]] for token in tokens)

    monkeypatch.setattr(evaluator, "_respond", respond)
    return [dict(slot.document.content) for slot in slots]


# --- the code in an answer ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("x = 1", "x = 1"),
        ("", ""),
        ("\n \n\tx = 1\n\n", "    x = 1"),
        ("a\n### Response:\nb\n### Response:\nx = 1", "x = 1"),
        ("Sure!\n```python\nx = 1\n```\nDone.\n```python\ny\n```", "x = 1"),
        ("```python\nx = 1", "x = 1"),
        ("Sure!\n```\nx = 1\n```", "x = 1"),
        ("```Python3 \nx = 1\n```", "x = 1"),
        ('x = 1\nif __name__ == "__main__":\n    y()', "x = 1"),
        ("x = 1\n# Example usage\nprint(x)", "x = 1"),
        ("x = 1\n# Test examples\nassert x", "x = 1\n# Test examples\nassert x"),
        ("The solution is:\nx = 1\n\nThe answer is:\n2", "x = 1"),
        ("Well. The answer is:\nx = 1\n\nThe answer is: 3", "x = 1"),
        ("The solution is:\nThe answer is:\nx = 1", "x = 1"),
        ("def f():\r\n\treturn 1\r\n", "def f():\n    return 1"),
    ],
)
def test_code_is_found(answer: str, code: str) -> None:
    assert extract_code(answer) == code


def test_further_ends_can_be_named() -> None:
    assert extract_code("x = 1\n# Test examples\nassert x", cut_at=["# Test examples"]) == "x = 1"


@given(st.text(alphabet="`# \n\tdefx:'\"The answer is:###Response", max_size=200))
def test_finding_code_never_fails(answer: str) -> None:
    code = extract_code(answer)
    assert "\t" not in code
    assert code == code.rstrip()
    assert len(code) <= 4 * len(answer)


@pytest.mark.parametrize("part", ["`", "```", "```python\n", " \n", " ", "\t", "The answer is:"])
def test_long_answers_are_quick(part: str) -> None:
    answer = part * (10**5 // len(part))
    started = time.perf_counter()
    extract_code(answer)
    assert time.perf_counter() - started < 0.5


# --- prompts --------------------------------------------------------------------------------------


def utils(task: str) -> dict[str, Any]:
    file = folder_of(task) / "utils.py"
    namespace: dict[str, Any] = {"__file__": str(file)}
    exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), namespace)  # noqa: S102
    return namespace


def test_mbpp_prompt() -> None:
    prompt = utils("mbpp")["prompt"]
    document = {"task_id": 11, "text": "Do    it.", "test_list": ["assert a", "assert b"]}
    assert prompt(document) == (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n\n### Instruction:\nCreate a Python script for this problem:\n"
        "\nDo\tit.\nTest examples:\nassert a\nassert b\n\n### Response:"
    )
    long = prompt({"task_id": 493, "text": "T", "test_list": ["assert calculate_polygons(1)"]})
    assert "\ncalculate_polygons(startx, starty, endx, endy, radius)\n\n### R" in long
    assert "assert" not in long


def test_humaneval_prompt() -> None:
    prompt = utils("humaneval")["prompt"]({"prompt": 'def f():\n    """Doc."""\n'})
    assert prompt.startswith("Below is an instruction")
    assert prompt.endswith('problem:\ndef f():\n\t"""Doc."""\n\n\n### Response:')


# --- scores ---------------------------------------------------------------------------------------


def right_answer(task: str, document: dict[str, Any]) -> str:
    if task == "mbpp":
        return "Here you are:\n```python\n" + document["code"] + "\n```"
    return str(document["canonical_solution"])


@needs_sandbox
@pytest.mark.parametrize("task", METRICS)
def test_right_answers_pass_and_others_do_not(
    workshop: Workshop, candidate: FakeCandidate, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    evaluator = open_task(workshop, task)
    documents = answer_with(monkeypatch, evaluator, ["", "", ""])
    right = [right_answer(task, document) for document in documents]
    answer_with(monkeypatch, evaluator, [right[0], "    import sys; sys.exit(0)", right[2]])
    [score] = evaluator.evaluate(candidate, 100)
    assert score.num_documents == 3
    [scores] = evaluator.document_scores(candidate, 100)
    assert scores.values.tolist() == [1.0, 0.0, 1.0]
    assert scores.metric == METRICS[task]


@needs_sandbox
@pytest.mark.parametrize("task", METRICS)
def test_every_fixture_is_solved_by_its_own_solution(task: str) -> None:
    functions = utils(task)
    for document in fixtures(task):
        answer = right_answer(task, document)
        for wrong in (False, True):
            said = "pass" if wrong else answer
            if task == "mbpp":
                result = said
            else:
                name = "continue_prompts" if "greedy" in task else "build_predictions"
                [result] = functions[name]([["    " + said if wrong else said]], [document])
            program = functions["pass_at_1"](document, [result])["pass_at_1"]
            assert find_sandbox().run(program).passed is not wrong, (document, wrong)


def test_a_whole_function_may_follow_the_stub() -> None:
    build = utils("humaneval")["build_predictions"]
    document = {"prompt": 'import math\ndef f(x):\n    """Doc."""\n\n'}
    [[text]] = build([["```python\ndef f(x):\n    return math.pi\n```"]], [document])
    namespace: dict[str, Any] = {}
    exec(text, namespace)  # noqa: S102 - our own text
    assert namespace["f"](1) > 3
    [[text]] = build([["\n    return math.pi\n"]], [document])
    exec(text, namespace)  # noqa: S102 - our own text
    assert namespace["f"](1) > 3


@needs_sandbox
def test_a_model_of_noise_scores_zero_and_is_asked_once(
    workshop: Workshop, candidate: FakeCandidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = open_task(workshop, "mbpp")
    assert evaluator.evaluate(candidate, 100)[0].mean == 0.0
    again = open_task(workshop, "mbpp")
    monkeypatch.setattr(sandbox, "find_sandbox", lambda: pytest.fail("nothing is left to run"))
    again.evaluate(candidate, 100)
    assert again.last_counts.found == 3


def open_mixed(
    shop: Workshop, documents: Sequence[dict[str, Any]]
) -> tuple[set[int], list[str], list[str]]:
    """Numbers and texts of the scored documents, and their prompts with two examples each."""
    file = shop.tasks / "mixed.jsonl"
    file.write_text("".join(json.dumps(document) + "\n" for document in documents))
    evaluator = open_task(shop, "mbpp", extra={**overrides(test=str(file)), "num_fewshot": 2})
    suite = evaluator._suite
    slots = suite.line_up(100, "search") + suite.line_up(100, "heldout")
    contents = [slot.document.content for slot in slots]
    prompts = [slot.leaf._build(slot.document)[0].args[0] for slot in slots]
    return {c["task_id"] for c in contents}, [c["text"] for c in contents], prompts


@needs_sandbox
def test_prompts_are_never_made_of_scored_documents(workshop: Workshop) -> None:
    documents = fixtures("mbpp")
    set_aside = [{**documents[i], "task_id": i + 1, "text": f"Prompt {i}."} for i in range(4)]
    numbers, _, prompts = open_mixed(workshop, [*documents, *set_aside])
    assert numbers == set(range(9001, 9007))
    for prompt in prompts:
        assert prompt.count("### Response:\n") == prompt.count("[DONE]") == 2
        assert prompt.endswith("### Response:")
    examples = utils("mbpp")["examples"]()
    _, texts, prompts = open_mixed(workshop, [*documents, *examples])
    for text in texts:
        assert sum(text in prompt for prompt in prompts) == 1


@needs_sandbox
def test_documents_may_hold_set_up_code() -> None:
    [document] = [d for d in fixtures("mbpp") if d["test_setup_code"]]
    program = utils("mbpp")["pass_at_1"](document, [document["code"]])["pass_at_1"]
    assert document["test_setup_code"] in program.source
    assert find_sandbox().run(program).passed


@needs_sandbox
def test_the_documented_task_works(
    workshop: Workshop, candidate: FakeCandidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    (workshop.tasks / "judges.py").write_text(code)
    documents = [{"id": i, "tests": [f"assert x == {i}"], "answer": ""} for i in range(6)]
    rule = {"metric": "passes", "aggregation": "mean", "higher_is_better": True}
    workshop.write(
        "own",
        {"test": documents},
        output_type="generate_until",
        doc_to_text="x = ",
        doc_to_target="{{answer}}",
        generation_kwargs=SHORT,
        metric_list=[rule],
        unsafe_code=True,
        metadata={"sandbox": True},
    )
    file = workshop.tasks / "own.yaml"
    file.write_text(file.read_text() + "process_results: !function judges.judge\n")
    settings = EvaluationSettings(
        workshop.root / "cache", (workshop.tasks,), allow_code_execution=True, device="cpu"
    )
    evaluator = HarnessEvaluator(
        [Objective("own", "passes,none")], settings, workshop.tokenizer, workshop.ledger()
    )
    contents = answer_with(monkeypatch, evaluator, ["", "", ""])
    right = [f"x = {content['id']}" for content in contents]
    answer_with(monkeypatch, evaluator, [right[0], right[1], "x = 7"])
    assert evaluator.evaluate(candidate, 9)[0].mean == pytest.approx(2 / 3)


def test_the_documented_entries_name_the_shipped_tasks() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    [section, local] = [yaml.safe_load(block) for block in blocks]
    entries = [*section["evaluation"]["tasks"], *local]
    assert {entry["task"] for entry in entries} == {"mbpp", "humaneval"}
    assert all(entry["metric"] == METRICS[entry["task"]] for entry in entries)
    folders = [TASKS.parent / folder for folder in section["evaluation"]["include_path"]]
    for task in METRICS:
        [file] = [
            folder / f"{task}.yaml" for folder in folders if (folder / f"{task}.yaml").exists()
        ]
        assert f"task: {task}\n" in file.read_text()


# --- refusals -------------------------------------------------------------------------------------


def refusal(shop: Workshop, task: str, **settings: Any) -> str:
    evaluator = open_task(shop, task, **settings)
    with pytest.raises(TaskError) as caught:
        evaluator.prepare()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("task", METRICS)
def test_nothing_runs_unless_it_is_allowed(workshop: Workshop, task: str) -> None:
    text = refusal(workshop, task, allow_code_execution=False)
    assert f"task {task!r} executes generated code" in text
    assert "--allow-code-execution" in text
    # A run's settings cannot take the mark away.
    sly = {**overrides(), "unsafe_code": False}
    assert "executes" in refusal(workshop, task, allow_code_execution=False, extra=sly)


def test_nothing_runs_without_a_sandbox(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    find_sandbox.cache_clear()
    try:
        text = refusal(workshop, "mbpp")
    finally:
        find_sandbox.cache_clear()
    assert text == (
        "task 'mbpp': generated code cannot be run safely here: bubblewrap is missing; install "
        "the package bubblewrap (program bwrap)"
    )


@pytest.mark.parametrize("task", ["mbpp", "humaneval"])
def test_tasks_that_run_code_in_their_own_way_are_refused(workshop: Workshop, task: str) -> None:
    """Those that come with lm-eval run it in this process's surroundings."""
    sly = {**overrides(), "metadata": {"sandbox": True}}
    text = refusal(workshop, task, include_path=(), extra=sly)
    assert f"task {task!r} executes generated code outside the sandbox" in text


def test_an_included_mark_counts(workshop: Workshop) -> None:
    write_generate(workshop, "base", unsafe_code=True)
    workshop.write_yaml("child", {"include": "base.yaml", "task": "child"})
    settings = {"include_path": (workshop.tasks,), "extra": {}, "allow_code_execution": False}
    assert "task 'child' executes generated code" in refusal(workshop, "child", **settings)


def test_programs_need_the_mark(
    workshop: Workshop, candidate: FakeCandidate, tmp_path: Path
) -> None:
    source = (
        "from auto_merge.evaluation.sandbox import Program\n"
        "def judge(doc, results):\n    return {'exact_match': Program('')}\n"
    )
    (workshop.tasks / "judges.py").write_text(source)
    write_generate(workshop, "gen")
    file = workshop.tasks / "gen.yaml"
    file.write_text(file.read_text() + "process_results: !function judges.judge\n")
    evaluator = workshop.open(("gen", "exact_match,none"))
    with pytest.raises(TaskError, match="'gen' returns programs; say unsafe_code: true"):
        evaluator.evaluate(candidate, 1)


def test_the_rules_are_part_of_the_key(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    if MISSING:
        pytest.skip(MISSING)
    from auto_merge.evaluation import lm_harness_sources

    first = open_task(workshop, "mbpp").tasks_digest()
    assert open_task(workshop, "mbpp").tasks_digest() == first
    monkeypatch.setattr(lm_harness_sources, "rules", lambda: rules() + "x")
    assert open_task(workshop, "mbpp").tasks_digest() != first
