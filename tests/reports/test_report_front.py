"""Multi-objective runs: numbers by hand, plots, tables, JSON, cards' sentences, odd fronts."""

from __future__ import annotations

import io
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import synthetic
from rich.cells import cell_len
from rich.console import Console

from auto_merge.reports import front_plots, html, summary, trade_off
from auto_merge.reports.as_json import result_json, status_json
from auto_merge.reports.front_plots import front_plot, hypervolume_curve, marks
from auto_merge.reports.html import html_report
from auto_merge.reports.terminal import print_report
from auto_merge.runs.view import FloorResult, Front, RunView, TrialRow
from auto_merge.statistics import Comparison
from auto_merge.trial import Objective, Outcome, Status, TaskScore, Trial, scalar_cost

TWO = (Objective("x", "acc,none"), Objective("y", "acc,none"))


def told(index: int, fidelity: int, *costs: float) -> TrialRow:
    scores = tuple(
        TaskScore(goal.task, goal.metric, 1 - cost, fidelity, 0.1)
        for goal, cost in zip(TWO, costs, strict=True)
    )
    outcome = Outcome(Status.SUCCESS, scores, scalar_cost(TWO, scores))
    return TrialRow(Trial(index, index, {}, fidelity), outcome, index + 1.0, 10 * (index + 1))


def with_trials(empty: RunView, *rows: TrialRow) -> RunView:
    manifest = {**empty.manifest, "multi_objective": True}
    return replace(
        empty, manifest=manifest, objectives=TWO, trials=rows, reference=(0.8, 0.5), final=None
    )


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [item.text or "" for item in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.fixture(autouse=True)
def _no_importance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits no forest in tests of the page."""
    monkeypatch.setattr(html, "parameter_importance", lambda trials: None)


class TestNumbers:
    def test_hypervolume_over_the_search_by_hand(self, empty: RunView) -> None:
        view = with_trials(
            empty,
            told(0, 10, 0.4, 0.25),  # (.8 - .4) (.5 - .25) of .4
            told(1, 10, 0.5, 0.3),  # dominated: nothing changes
            told(2, 10, 0.2, 0.4),  # adds (.4 - .2) (.5 - .4)
            told(3, 30, 0.9, 0.1),  # a higher rung, outside of the box
            told(4, 30, 0.4, 0.25),
            told(5, 10, 0.0, 0.0),  # a lower rung counts no more
        )
        steps = trade_off.hypervolume_steps(view)
        assert [step.row.trial.index for step in steps] == [0, 2, 3, 4]
        assert [step.share for step in steps] == pytest.approx([0.25, 0.3, 0.0, 0.25])

    def test_no_curve_without_a_reference_or_a_success(self, empty: RunView) -> None:
        view = with_trials(empty, told(0, 10, 0.4, 0.25))
        for reference in ((), (0.0, 0.5)):
            assert trade_off.hypervolume_steps(replace(view, reference=reference)) == []
        assert hypervolume_curve(with_trials(empty), "documents") == ""

    def test_front_so_far_by_hand(self, empty: RunView) -> None:
        view = with_trials(
            empty,
            told(0, 10, 0.0, 0.0),
            told(1, 30, 0.4, 0.1),
            told(2, 30, 0.1, 0.3),
            told(3, 30, 0.5, 0.2),
        )
        found = trade_off.current_front(view)
        assert [row.trial.index for row, _ in found] == [2, 1], "best mean first"
        assert "The front so far holds 2 models." in summary.headline(view)

    def test_status_tells_front_and_volume(self, front: RunView, complete: RunView) -> None:
        status = status_json(front)
        assert status["multi_objective"]
        assert len(status["front"]) == len(trade_off.current_front(front))
        assert status["search_hypervolume"] == trade_off.hypervolume_steps(front)[-1].share
        plain = status_json(complete)
        assert (plain["front"], plain["search_hypervolume"]) == ([], None)


class TestSentences:
    def test_the_front_comes_first(self, front: RunView) -> None:
        first, second, *rest = summary.headline_sentences(front)
        assert first == (
            "The Pareto front holds 7 models: 3 of them cover 43.0 % of the space between the "
            "worst sources and perfection on held-out documents, the 3 chosen among sources, "
            "averages and single scales 31.0 %."
        )
        assert second.startswith("The member of the front with the best mean scores 86.1 on")
        assert not any("single scale 0.2" in sentence for sentence in rest)
        assert any("best single scale 0.4" in sentence for sentence in rest)

    @pytest.mark.parametrize(
        ("low", "high", "text"),
        [
            (-0.05, 0.01, "It keeps the floor on x (at most 5.0 points below a)."),
            (-0.2, -0.06, "It violates the floor on x (at most 5.0 points below a)."),
            (-0.2, 0.01, "The documents cannot tell whether it keeps the floor on x (at"),
        ],
    )
    def test_floors(self, complete: RunView, low: float, high: float, text: str) -> None:
        comparison = Comparison((low + high) / 2, low, high, "not distinguishable")
        assert complete.final is not None
        final = replace(complete.final, floors=(FloorResult(0, "a", 0.05, comparison),))
        view = replace(complete, objectives=TWO * 2, final=final)
        assert trade_off.floor_sentences(view)[0].startswith(
            text.replace(" on x", " on x acc,none")
        )
        assert FloorResult(0, "a", 0.05, None).verdict == "undetermined"

    def test_a_member_in_a_sentence(self, front: RunView) -> None:
        assert front.final is not None
        assert front.final.front is not None
        member = front.final.front.members[2]
        text = trade_off.member_sentence(front, member)
        assert text.startswith("One of 7 models on the Pareto front of the run zoo-lfs. Against")
        assert "zoo_reverse -2.2 to +1.2 (vs reverse), zoo_sort -16.8 to -11.6 (vs sort)" in text


class TestPlots:
    def test_scatter_shows_everything(self, front: RunView) -> None:
        svg = front_plot(front)
        assert {"best mean (trial 0)", "front", "source: sort", "single scales", "base"} <= set(
            texts(svg)
        )
        assert "zoo_reverse: held-out score" in texts(svg)
        assert svg.count("<title") == 1 + len(marks(front))
        assert "trial 6: zoo_reverse 93.8, zoo_sort 80.4" in svg

    def test_a_small_front_is_magnified(
        self, front: RunView, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert "magnified" not in front_plot(front)
        monkeypatch.setattr(front_plots, "_SMALL", 0.9)
        svg = front_plot(front)
        assert "zoo_reverse: held-out score, magnified" in texts(svg)
        # Marks outside of the second panel are not in it, least of all the base.
        assert 1 + len(marks(front)) + 7 <= svg.count("<title") < 1 + 2 * len(marks(front))
        assert svg.count("base: zoo") == 1

    def test_intervals_by_hand(self, empty: RunView) -> None:
        loss = (Objective("x", "loss", "minimize", (0.0, 2.0)), TWO[1])
        scores = (TaskScore("x", "loss", 0.5, 9, 0.1), TaskScore("y", "acc,none", 0.99, 9, 0.1))
        outcome = Outcome(Status.SUCCESS, scores, 0.2)
        rows = (TrialRow(Trial(0, 0, {}, 9), outcome, 1.0, 9),)
        (mark,) = marks(replace(with_trials(empty, *rows), objectives=loss))
        assert mark.scores == pytest.approx((75.0, 99.0))
        assert mark.ends[0] == pytest.approx((75.0 - 9.8, 75.0 + 9.8))
        assert mark.ends[1] == pytest.approx((99.0 - 19.6, 100.0)), "clipped at the best value"

    def test_more_tasks_get_parallel_axes(self, wide_front: RunView) -> None:
        found = texts(front_plot(wide_front))
        assert {f"zoo_{name}" for name in (*synthetic.SKILLS, "translate")} <= set(found)

    def test_the_front_so_far(self, front_so_far: RunView) -> None:
        svg = front_plot(front_so_far)
        assert "zoo_sort: search score" in texts(svg)
        assert "source: sort" not in svg

    def test_same_picture_same_bytes(self, front: RunView) -> None:
        assert front_plot(front) == front_plot(synthetic.front_run())

    @pytest.mark.parametrize("against", ["documents", "seconds"])
    def test_curve(self, front: RunView, against: str) -> None:
        svg = hypervolume_curve(front, against)
        assert svg.count("<title") == 1 + len(trade_off.hypervolume_steps(front))
        assert "search hypervolume, %" in texts(svg)


def emptied(view: RunView) -> RunView:
    """The same run with a front of the winner alone, no rival, no baseline, all points equal."""
    assert view.final is not None
    assert view.final.front is not None
    winner = view.final.front.members[0]
    alone = replace(winner, comparisons=(None,) * len(view.objectives), floors=())
    front = Front((alone,), ("",) * len(view.objectives), (1.0, 1.0), 0, (), 0.0, 0.0, 0.0)
    rows = view.final.heldout[:1]
    return replace(view, final=replace(view.final, heldout=rows, front=front, floors=()))


class TestOddFronts:
    @pytest.mark.parametrize(
        "view",
        [
            synthetic.front_run(2, 1),
            synthetic.front_run(3, 1),
            synthetic.front_run(3, 5),
            emptied(synthetic.front_run(2, 1)),
        ],
        ids=["one member", "one of three", "three tasks", "no rivals"],
    )
    def test_page_and_tables(self, view: RunView) -> None:
        page = html_report(view)
        assert "The Pareto front" in page
        console = Console(file=io.StringIO(), width=80)
        print_report(view, console)
        assert isinstance(console.file, io.StringIO)
        lines = console.file.getvalue().splitlines()
        assert any("Pareto front on held-out documents" in line for line in lines)
        assert max(map(cell_len, lines)) <= 80

    def test_no_member_yet(self, empty: RunView, failed: RunView) -> None:
        for view in (empty, failed):
            several = replace(view, manifest={**view.manifest, "multi_objective": True})
            assert "Pareto front" not in html_report(several)
            assert status_json(several)["front"] == []

    def test_all_scores_equal(self, empty: RunView) -> None:
        view = with_trials(empty, *(told(n, 10, 0.5, 0.5) for n in range(4)))
        assert len(marks(view)) == 1
        assert "zoo" not in front_plot(view)
        three = tuple(Objective(name, "acc,none") for name in "xyz")
        scores = tuple(TaskScore(goal.task, goal.metric, 0.5, 9, 0.0) for goal in three)
        rows = (TrialRow(Trial(0, 0, {}, 9), Outcome(Status.SUCCESS, scores, 0.5), 1.0, 9),)
        assert "50.0" in texts(front_plot(replace(view, objectives=three, trials=rows)))

    def test_one_objective_has_no_plot(self, empty: RunView) -> None:
        view = with_trials(empty, told(0, 10, 0.4, 0.25))
        row = view.trials[0]
        assert row.outcome is not None
        outcome = replace(row.outcome, scores=row.outcome.scores[:1])
        alone = replace(view, objectives=TWO[:1], trials=(replace(row, outcome=outcome),))
        assert front_plot(alone) == ""

    def test_a_single_objective_run_shows_none_of_it(self, complete: RunView) -> None:
        page = html_report(complete)
        assert "Pareto" not in page
        assert "ypervolume" not in page
        assert ">floor<" not in page


class TestPage:
    def test_members_rivals_and_floors(self, front: RunView) -> None:
        page = html_report(front)
        for part in (
            "trial 0 (best)",
            "vs reverse",
            "Lines through a mark are",
            "The best mean on held-out documents",
            "Floor violated: on zoo_reverse (at most 5.0 points below reverse)",
            "0.05 worse than reverse",
            "Hypervolume of the front",
            "the member of the front with the best mean",
        ):
            assert part in page, part
        assert page.count("<svg") == 8

    def test_json(self, front: RunView) -> None:
        result = result_json(front)
        assert result is not None
        assert [item["trial"]["index"] for item in result["front"]["members"]] == list(
            range(0, 21, 3)
        )
        member = result["front"]["members"][2]
        assert member["against_best_sources"][1]["verdict"] == "worse"
        assert member["floors"][0]["verdict"] == "kept"
        assert result["floors"][0]["verdict"] == "violated"
        assert result["front"]["hypervolume"]["baselines"] == [
            "source: reverse",
            "uniform average",
            "single scale (0.2)",
        ]
