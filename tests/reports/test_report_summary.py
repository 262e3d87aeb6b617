"""Headlines, counts, estimates, failures, and the JSON forms."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from auto_merge.reports import summary, wording
from auto_merge.reports.as_json import report_json, result_json, status_json
from auto_merge.runs.view import HeldoutRow, RunView, TrialRow
from auto_merge.statistics import Comparison
from auto_merge.trial import Objective, Outcome, Status, TaskScore, Trial


def compared(label: str, mean: float, low: float, difference: float, high: float) -> HeldoutRow:
    verdict = "better" if low > 0 else "worse" if high < 0 else "not distinguishable"
    return HeldoutRow(label, (), mean, None, Comparison(difference, low, high, verdict))


def with_rows(view: RunView, *rows: HeldoutRow, origin: str = "smac") -> RunView:
    assert view.final is not None
    winner = HeldoutRow("best", (), 0.912, 0.92, None)
    trial = replace(view.final.trial, origin=origin)
    return replace(view, final=replace(view.final, trial=trial, heldout=(winner, *rows)))


def told(index: int, fidelity: int, cost: float) -> TrialRow:
    outcome = Outcome(Status.SUCCESS, cost=cost, seconds=1.0)
    return TrialRow(Trial(index, index, {}, fidelity), outcome, float(index + 1), 10 * (index + 1))


class TestHeadline:
    def test_better_names_the_best_source(self, complete: RunView) -> None:
        view = with_rows(
            complete,
            compared("source: sort", 0.8, 0.10, 0.112, 0.13),
            compared("source: count", 0.881, 0.020, 0.031, 0.042),
        )
        assert summary.headline(view) == (
            "The merged model scores 91.2 on held-out documents, 3.1 points above the best source, "
            "count (95 % interval 2.0 to 4.2)."
        )

    def test_not_distinguishable_is_said(self, complete: RunView) -> None:
        view = with_rows(complete, compared("source: sort", 0.908, -0.006, 0.004, 0.014))
        assert summary.headline(view) == (
            "The merged model scores 91.2 on held-out documents: not distinguishable from the best "
            "source, sort (difference +0.4, 95 % interval -0.6 to +1.4)."
        )

    def test_worse_is_said(self, complete: RunView) -> None:
        view = with_rows(complete, compared("source: sort", 0.924, -0.021, -0.012, -0.003))
        assert "1.2 points below the best source, sort (95 % interval 0.3 to 2.1)" in (
            summary.headline(view)
        )

    def test_baselines_by_verdict(self, complete: RunView) -> None:
        view = with_rows(
            complete,
            compared("source: sort", 0.8, 0.1, 0.112, 0.13),
            compared("base", 0.2, 0.7, 0.712, 0.72),
            compared("uniform average", 0.9, 0.002, 0.012, 0.02),
            compared("best single scale (0.4)", 0.909, -0.01, 0.003, 0.02),
        )
        assert summary.headline_sentences(view)[1] == (
            "It is better than the base (+71.2) and the uniform average (+1.2), "
            "not distinguishable from the best single scale 0.4 (+0.3)."
        )

    def test_winning_start_point_is_admitted(self, complete: RunView) -> None:
        view = with_rows(complete, origin="initial design: uniform average")
        sentences = summary.headline_sentences(view)
        assert sentences[0].endswith("it was compared with no source.")
        assert sentences[1] == (
            "It is a start point of the search (uniform average): nothing better was found."
        )

    def test_unfinished_runs_claim_nothing(
        self, running: RunView, empty: RunView, failed: RunView
    ) -> None:
        assert "have not been opened" in summary.headline(running)
        assert summary.headline(empty) == "The search is running: no trial has finished yet."
        assert summary.headline(failed) == (
            "The search was stopped: all 5 finished trials failed. "
            "Most often: crashed, zoo_sort: the task has no documents"
        )


class TestNumbers:
    def test_best_so_far_prefers_higher_rungs(self, empty: RunView) -> None:
        costs = [(10, 0.5), (10, 0.3), (30, 0.4), (10, 0.1), (30, 0.4), (30, 0.35)]
        rows = tuple(told(index, *pair) for index, pair in enumerate(costs))
        steps = summary.best_so_far(replace(empty, trials=rows))
        assert [step.row.trial.index for step in steps] == [0, 1, 2, 5]
        assert steps[-1].score == pytest.approx(0.65)

    def test_rows_are_ordered_by_tell(self, empty: RunView) -> None:
        late, early = replace(told(0, 10, 0.2), active_seconds=9.0), told(1, 10, 0.3)
        rows = summary.finished(replace(empty, trials=(late, early)))
        assert [row.trial.index for row, _ in rows] == [1, 0]

    @pytest.mark.parametrize(
        ("done", "max_trials", "seconds", "max_seconds", "left"),
        [
            (10, 40, 20.0, None, 60.0),
            (10, 40, 20.0, 50.0, 30.0),
            (0, 40, 5.0, None, None),
            (0, None, 5.0, 60.0, 55.0),
            (50, 40, 20.0, None, 0.0),
            (10, None, 20.0, None, None),
        ],
    )
    def test_time_left(
        self,
        done: int,
        max_trials: int | None,
        seconds: float,
        max_seconds: float | None,
        left: float | None,
    ) -> None:
        assert summary.time_left(done, max_trials, seconds, max_seconds) == left

    def test_speed_and_rung(self, empty: RunView) -> None:
        view = replace(empty, trials=(told(0, 180, 0.5),), active_seconds=4.0)
        assert summary.documents_per_second(view) == 2.5
        assert summary.documents_per_second(empty) is None
        assert summary.rung_text(view, 180) == "2 of 3 (180 documents per task)"
        assert summary.rung_text(view, 7) == "7 documents per task"
        bare = replace(view, manifest={})
        assert summary.rung_text(bare, 1) == "1 document per task"

    def test_failures_are_grouped(self, complete: RunView) -> None:
        groups = summary.failure_groups(complete)
        assert [(group.status, len(group.trials)) for group in groups] == [
            (Status.OUT_OF_MEMORY, 5),
            (Status.INVALID_WEIGHTS, 3),
        ]
        assert groups[0].trials == (7, 30, 53, 76, 99)


class TestWording:
    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (0, "0 s"),
            (59.4, "59 s"),
            (59.6, "1 min 00 s"),
            (250, "4 min 10 s"),
            (3900, "1 h 05 min"),
            (187_200, "2 d 4 h"),
            (-3, "0 s"),
        ],
    )
    def test_duration(self, seconds: float, text: str) -> None:
        assert wording.duration(seconds) == text

    @pytest.mark.parametrize(
        ("difference", "text"), [(0.031, "+3.1"), (-0.004, "-0.4"), (-0.0001, "0.0"), (0.0, "0.0")]
    )
    def test_signed_points(self, difference: float, text: str) -> None:
        assert wording.signed_points(difference) == text

    def test_clean_and_short(self) -> None:
        assert wording.clean("a\x00b\n c\ud800") == "a�b c�"
        assert wording.short("abcdefghij", 7) == "abc…hij"
        assert wording.short("abc", 7) == "abc"

    def test_task_score_units(self) -> None:
        score = TaskScore("t", "m", 0.5, 10, 0.1)
        assert wording.task_score(Objective("t", "m"), score) == "50.0"
        perplexity = Objective("t", "m", "minimize", (1.0, 100.0))
        assert wording.task_score(perplexity, replace(score, mean=12.3456)) == "12.35"
        assert wording.task_score(perplexity, replace(score, mean=float("nan"))) == "nan"

    def test_task_label(self) -> None:
        twice = (Objective("t", "a"), Objective("t", "b", "minimize"), Objective("u", "a"))
        labels = [wording.task_label(objective, twice) for objective in twice]
        assert labels == ["t a", "t b ↓", "u"]


class TestJson:
    def test_every_run_is_json(self, any_run: RunView) -> None:
        text = json.dumps(report_json(any_run), allow_nan=False)
        assert json.loads(text)["status"]["headline"] == summary.headline(any_run)

    def test_values(self, complete: RunView, running: RunView) -> None:
        status = status_json(complete)
        assert status["trials"] == {
            "finished": 120,
            "failed": 8,
            "asked": 120,
            "planned": 120,
            "by_status": {"success": 112, "out_of_memory": 5, "invalid_weights": 3},
        }
        result = result_json(complete)
        assert result is not None
        winner, source, *_ = result["heldout"]
        assert winner["comparison"] is None
        assert winner["search_minus_heldout"] == pytest.approx(0.011)
        assert source["comparison"]["verdict"] == "better"
        assert result_json(running) is None

    def test_nan_becomes_null(self, complete: RunView) -> None:
        assert complete.final is not None
        winner = complete.final.heldout[0]
        odd = replace(winner, scores=(replace(winner.scores[0], mean=float("nan")),))
        view = replace(complete, final=replace(complete.final, heldout=(odd,)))
        result = result_json(view)
        assert result is not None
        assert result["heldout"][0]["scores"][0]["mean"] is None
