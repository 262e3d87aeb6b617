"""The HTML report: self-contained, escaped, complete, for every state of a run."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from auto_merge.reports import html, summary
from auto_merge.reports.html import html_report
from auto_merge.runs.view import RunView
from auto_merge.statistics import Importance, Share, parameter_importance

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that every element is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(autouse=True)
def _given_importance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits no forest in tests of the page."""
    found = Importance((Share("layer_selection_method_0", 0.4, 0.1),), 0.6, 40)
    monkeypatch.setattr(html, "parameter_importance", lambda trials: found)


def test_every_state_is_a_self_contained_page(any_run: RunView) -> None:
    text = html_report(any_run)
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & set(page.tags)
    for name, value in page.attributes:
        assert not name.startswith("on"), name
        if name in ("href", "src", "srcset", "action", "data", "xlink:href"):
            assert value.startswith("#")
    assert set(re.findall(r"https?:[^\s\"<)]*", text)) <= {"http://www.w3.org/2000/svg"}
    assert "@import" not in text
    assert "url(" not in re.sub(r"url\(#", "", text)
    identifiers = [value for name, value in page.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))
    for sentence in summary.headline_sentences(any_run):
        assert " ".join(sentence.split()) in page.text


def test_hostile_names_stay_text(hostile: RunView) -> None:
    text = html_report(hostile)
    page = Page(text)
    assert "<script>alert('x')</script>" in page.text
    assert "<script" not in text
    assert "script" not in page.tags
    assert "\x00" not in text


def test_complete_report_shows_everything(complete: RunView) -> None:
    page = Page(html_report(complete))
    for part in (
        "Result on held-out documents",
        "opened once",
        "The merged model",
        "The search",
        "Importance of hyperparameters",
        "explains 60 % of the cost variance",
        "That is little data",
        "Failures",
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "How to read this",
        "Settings and versions",
        "torch 2.13.0",
        "max_trials: 120",
        "method: task_arithmetic",
        "8 failed",
    ):
        assert part in page.text, part
    assert page.tags.count("svg") == 6


def test_running_report_promises_nothing(running: RunView) -> None:
    page = Page(html_report(running))
    assert "Result on held-out documents" not in page.text
    assert "The best model so far; the search is not complete." in page.text
    assert "not been opened" in page.text


def test_repeated_openings_are_criticised(complete: RunView) -> None:
    assert complete.final is not None
    view = replace(complete, trials=(), final=replace(complete.final, num_openings=4))
    assert "opened 4 times in this run: the more often" in Page(html_report(view)).text


def test_long_runs_hide_the_worst_trials(
    complete: RunView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "MAX_TRIALS", 100)
    view = replace(complete, final=None, incumbent_recipe=None)
    assert "20 more are not shown" in Page(html_report(view)).text


def test_single_task_has_no_task_table(complete: RunView) -> None:
    assert complete.final is not None
    rows = tuple(replace(row, scores=row.scores[:1]) for row in complete.final.heldout)
    view = replace(
        complete,
        trials=(),
        objectives=complete.objectives[:1],
        final=replace(complete.final, heldout=rows),
    )
    page = Page(html_report(view))
    assert page.tags.count("table") == 2  # the comparison and the settings


def test_importance_of_real_trials(
    complete: RunView, single: RunView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "parameter_importance", parameter_importance)
    assert "group 1: method" in Page(html_report(complete)).text
    assert "Too few different trials" in Page(html_report(single)).text


def test_useless_importance_is_not_drawn(single: RunView, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Importance((Share("layer_selection_method_0", 0.4, 0.1),), 0.01, 40)
    monkeypatch.setattr(html, "parameter_importance", lambda trials: found)
    text = Page(html_report(single)).text
    assert "group 0: method" not in text
    assert "do not tell yet" in text
