"""Objectives that are Python functions."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from workshop import FakeCandidate, Workshop, answer_documents, write_choice

from auto_merge.errors import InvalidWeightsError, RunError, TaskError
from auto_merge.evaluation.evaluator import HarnessEvaluator
from auto_merge.evaluation.settings import EvaluationSettings, PythonSource
from auto_merge.trial import Objective

PAGE = Path(__file__).parents[2] / "docs" / "python_objectives.md"
CONSTANT = "def score(model, tokenizer, documents):\n    return [0.5] * len(documents)\n"


def write_lines(file: Path, documents: Sequence[Mapping[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(d, ensure_ascii=False) + "\n" for d in documents), "utf-8")
    return file


def source(shop: Workshop, code: str, name: str = "own", **fields: Any) -> PythonSource:
    """Writes a function and, unless they are given, 20 documents."""
    file = shop.tasks / f"{name}.py"
    file.write_text(code)
    documents = shop.tasks / f"{name}.jsonl"
    if "documents" not in fields and not documents.exists():
        write_lines(documents, answer_documents(20))
    return PythonSource(**{"file": file, "function": "score", "documents": documents, **fields})


def open_functions(
    shop: Workshop,
    *functions: PythonSource | None,
    objectives: Sequence[Objective] = (Objective("own", "score,none"),),
    **settings: Any,
) -> HarnessEvaluator:
    return HarnessEvaluator(
        objectives,
        EvaluationSettings(
            cache_dir=shop.root / "cache",
            include_path=(shop.tasks,),
            functions=functions,
            device="cpu",
            **settings,
        ),
        shop.tokenizer,
        shop.ledger(),
    )


def refusal(shop: Workshop, code: str, **fields: Any) -> str:
    evaluator = open_functions(shop, source(shop, code, **fields))
    with pytest.raises(TaskError) as caught:
        evaluator.prepare()
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("task 'own'")
    return text


def failure(shop: Workshop, candidate: FakeCandidate, body: str) -> str:
    code = f"import math, torch\ndef score(model, tokenizer, documents):\n    {body}\n"
    evaluator = open_functions(shop, source(shop, code))
    with pytest.raises(TaskError) as caught:
        evaluator.evaluate(candidate, 4)
    text = str(caught.value)
    assert "\n" not in text
    assert f"task 'own': {shop.tasks / 'own.py'}:score" in text
    # A failure leaves nothing behind that would count later.
    with pytest.raises(RunError, match="4 of 4 search documents were not scored"):
        evaluator.document_scores(candidate, 4)
    return text


def test_scores_reach_objective_and_documents(workshop: Workshop, candidate: FakeCandidate) -> None:
    code = (
        "def score(model, tokenizer, documents):\n"
        "    assert not model.training\n"
        "    return [len(tokenizer(d['prompt']).input_ids) / 100 for d in documents]\n"
    )
    evaluator = open_functions(workshop, source(workshop, code))
    [score] = evaluator.evaluate(candidate, 100)
    assert (score.task, score.metric, score.num_documents) == ("own", "score,none", 10)
    [details] = evaluator.document_scores(candidate, 100)
    slots = evaluator._suite.line_up(100, "search")
    expected = [len(slot.document.content["prompt"]) / 100 for slot in slots]
    assert details.values == pytest.approx(np.array(expected))
    assert score.mean == pytest.approx(sum(expected) / 10)


def test_rungs_are_nested_and_nothing_is_scored_twice(
    workshop: Workshop, candidate: FakeCandidate
) -> None:
    code = (
        "seen = []\n"
        "def score(model, tokenizer, documents):\n"
        "    seen.append([d['id'] for d in documents])\n"
        "    return [d['id'] for d in documents]\n"
    )
    evaluator = open_functions(workshop, source(workshop, code), chunk_size=4)
    evaluator.evaluate(candidate, 3)
    evaluator.evaluate(candidate, 9)
    assert evaluator.last_counts.scored == 6
    assert evaluator.last_counts.found == 3
    [small] = evaluator.document_scores(candidate, 3)
    [large] = evaluator.document_scores(candidate, 9)
    assert large.values[:3].tolist() == small.values.tolist()
    function = evaluator._suite.tracks[0].slots["search"][0].leaf._function
    assert [len(call) for call in function.__globals__["seen"]] == [3, 1, 4, 1]
    evaluator.evaluate(candidate, 100, split="heldout")
    search = {d.document.key for d in evaluator._suite.line_up(100, "search")}
    heldout = {d.document.key for d in evaluator._suite.line_up(100, "heldout")}
    assert len(search) == len(heldout) == 10
    assert not search & heldout


def test_a_second_file_holds_the_heldout_documents(
    workshop: Workshop, candidate: FakeCandidate
) -> None:
    documents = answer_documents(12)
    # Two of them are search documents too; held out wins.
    heldout = write_lines(
        workshop.root / "heldout.jsonl", documents[:2] + answer_documents(15)[12:]
    )
    search = write_lines(workshop.root / "search.jsonl", [*documents, documents[5]])
    evaluator = open_functions(
        workshop, source(workshop, CONSTANT, documents=search, heldout=heldout)
    )
    assert evaluator.num_documents("own") == 10
    assert evaluator.num_documents("own", "heldout") == 5


def test_passages_stay_together(workshop: Workshop, candidate: FakeCandidate) -> None:
    documents = [{"id": i, "text": f"text {i // 5}"} for i in range(20)]
    file = write_lines(workshop.root / "passages.jsonl", documents)
    fields = {"documents": file, "metadata": {"passage": "text"}}
    evaluator = open_functions(workshop, source(workshop, CONSTANT, **fields))
    evaluator.evaluate(candidate, 100)
    [details] = evaluator.document_scores(candidate, 100)
    assert details.clusters is not None
    assert sorted(details.clusters.tolist()) == [0] * 5 + [1] * 5
    assert "names the field 'txt'" in refusal(
        workshop, CONSTANT, documents=file, metadata={"passage": "txt"}
    )


def test_functions_and_tasks_share_a_run(workshop: Workshop, candidate: FakeCandidate) -> None:
    write_choice(workshop, "mc", 12)
    objectives = [
        Objective("own", "score,none"),
        Objective("mc", "acc,none"),
        Objective("other", "score,none"),
        Objective("mc", "acc_norm,none"),
    ]
    functions = (
        source(workshop, CONSTANT),
        None,
        source(workshop, CONSTANT.replace("0.5", "0.25"), "other"),
        None,
    )
    evaluator = open_functions(workshop, *functions, objectives=objectives, chunk_size=7)
    scores = evaluator.evaluate(candidate, 5)
    assert [score.num_documents for score in scores] == [5, 5, 5, 5]
    assert (scores[0].mean, scores[2].mean) == (0.5, 0.25)
    alone = workshop.open(("mc", "acc,none"), ledger="alone").evaluate(candidate, 5)
    assert scores[1].mean == alone[0].mean
    assert set(evaluator.tasks_digest()) == {"own", "mc", "other"}


def test_the_digest_covers_function_and_documents(workshop: Workshop) -> None:
    def found(code: str = CONSTANT, **fields: Any) -> dict[str, str]:
        return open_functions(workshop, source(workshop, code, **fields)).tasks_digest()

    first = found()
    assert found() == first
    assert found(CONSTANT + "# changed\n") != first
    assert found(CONSTANT + "again = score\n", function="again") != found(
        CONSTANT + "again = score\n"
    )
    other = write_lines(workshop.root / "other.jsonl", answer_documents(21))
    assert found(documents=other) != first
    reordered = write_lines(workshop.root / "reordered.jsonl", answer_documents(20)[::-1])
    assert found(documents=reordered) == first


def test_documents_and_gradients_are_safe(workshop: Workshop, candidate: FakeCandidate) -> None:
    code = (
        "import torch\n"
        "def score(model, tokenizer, documents):\n"
        "    assert not torch.is_grad_enabled()\n"
        "    for document in documents:\n"
        "        document.clear()\n"
        "    return (torch.tensor(True) for _ in documents)\n"
    )
    evaluator = open_functions(workshop, source(workshop, code))
    assert evaluator.evaluate(candidate, 4)[0].mean == 1.0
    assert all(slot.document.content for slot in evaluator._suite.line_up(4, "search"))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return [1.0]", "returned 1 scores for 4 documents"),
        ("return [1.0] * 5", "returned 5 scores for 4 documents"),
        ("return []", "returned 0 scores for 4 documents"),
        ("return None", "returned NoneType"),
        ("return 0.5", "returned float"),
        ("return 'abcd'", "returned str"),
        ("return {d['id']: 1 for d in documents}", "returned dict"),
        ("return [1, 2, 3, math.nan]", "returned nan for document "),
        ("return [1, 2, 3, -math.inf]", "returned -inf for document "),
        ("return [1, 2, 3, None]", "returned None for document "),
        ("return ['1'] * 4", "returned '1' for document "),
        ("return torch.ones(4, 2)", "returned tensor([1., 1.]) for document "),
        ("return torch.tensor(1.0)", "raised TypeError: iteration over a 0-d tensor"),
        ("return documents[0]['absent']", "raised KeyError: 'absent'"),
        ("raise ValueError('two\\nlines')", "raised ValueError: two lines"),
        ("yield 1\n    raise OSError('late')", "raised OSError: late"),
    ],
)
def test_what_is_no_score_is_said(
    workshop: Workshop, candidate: FakeCandidate, body: str, expected: str
) -> None:
    assert expected in failure(workshop, candidate, body)


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        ("MemoryError()", MemoryError),
        ("torch.OutOfMemoryError('full')", torch.OutOfMemoryError),
        ("InvalidWeightsError('nan')", InvalidWeightsError),
    ],
)
def test_errors_with_a_status_of_their_own_pass(
    workshop: Workshop, candidate: FakeCandidate, raised: str, kind: type[Exception]
) -> None:
    code = (
        "import torch\nfrom auto_merge.errors import InvalidWeightsError\n"
        f"def score(model, tokenizer, documents):\n    raise {raised}\n"
    )
    with pytest.raises(kind):
        open_functions(workshop, source(workshop, code)).evaluate(candidate, 2)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (
            "def scor(model, tokenizer, documents):\n    pass",
            "has no function 'score'; did you mean",
        ),
        ("score = 3", "has no function 'score'"),
        ("", "has no function 'score'"),
        ("def score(model, documents):\n    pass", "has to take (model, tokenizer, documents)"),
        ("def score(*, model):\n    pass", "has to take (model, tokenizer, documents)"),
        ("def score(:", "cannot be loaded: SyntaxError"),
        ("import nothing_of_this_name", "cannot be loaded: ModuleNotFoundError"),
        ("1 / 0", "cannot be loaded: ZeroDivisionError"),
    ],
)
def test_functions_that_cannot_be_used(workshop: Workshop, code: str, expected: str) -> None:
    assert expected in refusal(workshop, code)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "has no documents"),
        ("\n \n", "has no documents"),
        ('{"a": 1}\n{"a": \n', "line 2 is no JSON"),
        ('{"a": 1}\n\n[1, 2]\n', "line 3 has to be a JSON object, it is [1, 2]"),
        ('{"a": 1}\n', "has no held-out documents: 1 in "),
        ('{"a": 1}\n{"a": 1}\n', "has no held-out documents: 2 in "),
    ],
)
def test_documents_that_cannot_be_used(workshop: Workshop, text: str, expected: str) -> None:
    file = workshop.root / "odd.jsonl"
    file.write_text(text)
    assert expected in refusal(workshop, CONSTANT, documents=file)


def test_files_that_are_missing_or_no_text(workshop: Workshop) -> None:
    gone = workshop.root / "gone"
    assert f"documents file {gone} cannot be read" in refusal(workshop, CONSTANT, documents=gone)
    assert f"function file {gone} cannot be read" in refusal(workshop, CONSTANT, file=gone)
    binary = workshop.root / "binary"
    binary.write_bytes(b"\xff\xfe")
    assert "UnicodeDecodeError" in refusal(workshop, CONSTANT, documents=binary)


def test_another_metric_is_refused(workshop: Workshop) -> None:
    evaluator = open_functions(
        workshop, source(workshop, CONSTANT), objectives=[Objective("own", "acc,none")]
    )
    with pytest.raises(TaskError, match="no metric 'acc,none'; it has: score,none"):
        evaluator.prepare()


def test_line_separators_inside_texts(workshop: Workshop, candidate: FakeCandidate) -> None:
    documents = [{"id": i, "text": "a\u2028b\x85c"} for i in range(4)]
    file = write_lines(workshop.root / "lines.jsonl", documents)
    evaluator = open_functions(workshop, source(workshop, CONSTANT, documents=file))
    assert evaluator.evaluate(candidate, 9)[0].num_documents == 2


def test_the_documented_objective_works(
    workshop: Workshop, make_candidate: Callable[[int], FakeCandidate]
) -> None:
    blocks = dict(re.findall(r"```(yaml|python|json)\n(.*?)```", PAGE.read_text("utf-8"), re.S))
    [entry] = yaml.safe_load(blocks["yaml"])["evaluation"]["tasks"]
    document = json.loads(blocks["json"])
    documents = [{**document, "question": f"{i}+{i}=", "answer": str(2 * i)} for i in range(12)]
    write_lines(workshop.tasks / entry["documents"], documents)
    name, function = entry["function"].split(":")
    (workshop.tasks / name).write_text(blocks["python"])
    place = PythonSource(workshop.tasks / name, function, workshop.tasks / entry["documents"])
    objective = Objective(entry["task"], entry["metric"], bounds=tuple(entry["bounds"]))
    evaluator = open_functions(workshop, place, objectives=[objective])
    scores = [evaluator.evaluate(make_candidate(seed), 100)[0] for seed in (0, 1)]
    assert [score.num_documents for score in scores] == [6, 6]
    assert all(0 < score.mean < 1 and math.isfinite(score.mean) for score in scores)
    assert scores[0].mean != scores[1].mean
