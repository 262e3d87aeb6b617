from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from auto_merge.errors import AutoMergeError, Interrupted, RunError
from auto_merge.evaluation.evaluator import Counts
from auto_merge.evaluation.scores import DocumentScores, task_score
from auto_merge.recipe.model import Recipe
from auto_merge.runs.view import Final, RunView, TrialRow
from auto_merge.search.baselines import Cast
from auto_merge.search.conclude import Conclusion, Finalist, compare, finalists
from auto_merge.trial import Floor, Objective, Outcome, Status, TaskScore, Trial

OBJECTIVE = Objective("t", "acc,none")
CAST = Cast(("a", "b"), "base", 2, "float32")
DOCUMENTS = 200


def scores(values: Any, task: str = "t", leaves: tuple[str, ...] = ()) -> DocumentScores:
    values = np.asarray(values, dtype=np.float64)
    count = len(values)
    names = leaves or (task,) * count
    documents = tuple(f"d{i}" for i in range(count))
    return DocumentScores(
        task, "acc,none", values, np.full(count, 1 / count), names, documents, None
    )


class Oracle:
    """An evaluator that knows every recipe's accuracy on either kind of documents."""

    def __init__(self, accuracy: Callable[[Recipe, str], float]) -> None:
        self.accuracy = accuracy
        self.last_counts = Counts()
        self.opened: list[Recipe] = []

    def evaluate(
        self, candidate: Recipe, fidelity: int, *, split: str, **kwargs: object
    ) -> tuple[TaskScore, ...]:
        if split == "heldout":
            self.opened.append(candidate)
        self.last_counts = Counts(scored=1)
        return tuple(task_score(item) for item in self.document_scores(candidate, fidelity, split))

    def document_scores(
        self, candidate: Recipe, fidelity: int, split: str
    ) -> tuple[DocumentScores, ...]:
        right = round(DOCUMENTS * self.accuracy(candidate, split))
        return (scores([1.0] * right + [0.0] * (DOCUMENTS - right)),)


class Bench:
    """A workbench whose candidates are the recipes themselves."""

    def candidate(self, recipe: Recipe) -> Recipe:
        object.__setattr__(recipe, "digest", repr(recipe))
        return recipe


def conclusion(oracle: Oracle, *objectives: Objective) -> Conclusion:
    return Conclusion(
        Bench(),  # type: ignore[arg-type]
        oracle,  # type: ignore[arg-type]
        objectives or (OBJECTIVE,),
        CAST,
        rungs=(20, DOCUMENTS),
        heldout_fidelity=DOCUMENTS,
        should_stop=lambda: False,
        announce=lambda text: None,
    )


def finalist(index: int, scale: float) -> Finalist:
    return Finalist(Trial(index, index, {}, 10), CAST.single_scale(scale))


def scale_of(recipe: Recipe) -> float | None:
    part = recipe.slices[0]
    return part.parameters["scale"][0].value if part.method == "task_arithmetic" else None


def test_winner_is_chosen_on_search_documents_alone() -> None:
    def accuracy(recipe: Recipe, split: str) -> float:
        scale = scale_of(recipe)
        if scale == 5.0:
            return 0.9 if split == "search" else 0.5
        if scale == 6.0:
            return 0.8
        return 0.4

    made = conclusion(Oracle(accuracy))
    winner = made.choose([finalist(0, 6.0), finalist(1, 5.0)])
    final = made.conclude(winner, 3)
    assert final.trial.index == 1
    assert final.num_openings == 3
    best = final.heldout[0]
    assert (best.label, best.mean, best.search_mean) == ("best", 0.5, 0.9)
    assert best.comparison is None


def test_only_chosen_models_see_held_out_documents() -> None:
    oracle = Oracle(lambda recipe, split: 0.5)
    made = conclusion(oracle)
    made.conclude(made.choose([finalist(0, 5.0), finalist(1, 6.0)]), 1)
    # Winner, two sources, base, average, one scale: the other finalist and scales stay outside.
    assert len(oracle.opened) == 6


def test_single_scale_is_refined_between_grid_points() -> None:
    def accuracy(recipe: Recipe, split: str) -> float:
        scale = scale_of(recipe)
        return 0.5 if scale is None else max(0.0, 0.9 - abs(scale - 0.35))

    final = conclusion(Oracle(accuracy)).conclude(finalist(0, 5.0), 1)
    assert final.heldout[-1].label == "best single scale (0.35)"


def test_comparison_is_paired_and_signed() -> None:
    first, second = scores([1.0] * 90 + [0.0] * 10), scores([1.0] * 60 + [0.0] * 40)
    result = compare((OBJECTIVE,), (first,), (second,))
    assert result.difference == pytest.approx(0.3)
    assert 0.2 < result.low < 0.3 < result.high < 0.4
    assert result.verdict == "better"


def test_minimised_metrics_and_bounds_are_scaled() -> None:
    loss = Objective("t", "loss,none", "minimize", (0.0, 10.0))
    result = compare((loss,), (scores([2.0] * 30),), (scores([7.0] * 30),))
    assert result.difference == pytest.approx(0.5)


def test_leaves_of_a_group_count_as_the_group_weighs_them() -> None:
    leaves = ("x",) * 10 + ("y",) * 30
    first = scores([1.0] * 10 + [0.0] * 30, leaves=leaves)
    weights = np.array([0.5 / 10] * 10 + [0.5 / 30] * 30)
    first = DocumentScores("t", "acc,none", first.values, weights, leaves, first.documents, None)
    second = DocumentScores("t", "acc,none", np.zeros(40), weights, leaves, first.documents, None)
    assert compare((OBJECTIVE,), (first,), (second,)).difference == pytest.approx(0.5)


def row(index: int, config: int, fidelity: int, cost: float | None) -> TrialRow:
    trial = Trial(index, config, {}, fidelity)
    if cost is None:
        return TrialRow(trial, Outcome(Status.CRASHED, error="x"), 0.0, 0)
    score = TaskScore("t", "acc,none", 1 - cost, fidelity, 0.1)
    return TrialRow(trial, Outcome(Status.SUCCESS, (score,), cost), 0.0, 0)


def view(*rows: TrialRow) -> RunView:
    return RunView("run", "stopped", {}, (OBJECTIVE,), rows, None, None, 0.0, 0.0, None, None)


def test_finalists_are_ranked_by_their_latest_cost() -> None:
    rows = [
        row(0, 0, 10, 0.1),  # lucky at the low rung ...
        row(1, 1, 10, 0.3),
        row(2, 0, 30, 0.5),  # ... and found out
        row(3, 2, 10, None),
        row(4, 3, 10, 0.2),
    ]
    assert [trial.index for trial in finalists(view(*rows))] == [2, 4, 1]
    assert [trial.index for trial in finalists(view(*rows), 1)] == [2, 4]


def test_a_configuration_that_failed_later_cannot_win() -> None:
    rows = [row(0, 0, 10, 0.1), row(1, 1, 10, 0.3), row(2, 0, 30, None)]
    assert [trial.index for trial in finalists(view(*rows))] == [1]


def test_one_that_cannot_be_scored_is_left_out() -> None:
    def accuracy(recipe: Recipe, split: str) -> float:
        if scale_of(recipe) in (5.0, 1.2) or recipe == CAST.single_model("a"):
            raise MemoryError("out")
        return 0.5

    made = conclusion(Oracle(accuracy))
    winner = made.choose([finalist(0, 5.0), finalist(1, 6.0)])
    assert winner.trial.index == 1
    final = made.conclude(winner, 1)
    assert [item.label for item in final.heldout][:3] == ["best", "source: b", "base"]
    left_out = ("trial 0: MemoryError: out", "scale (1.2): MemoryError: out")
    assert final.left_out == (*left_out, "source: a: MemoryError: out")
    with pytest.raises(AutoMergeError, match="none of the best trials can be scored"):
        made.choose([finalist(0, 5.0)])


def test_a_stop_and_a_broken_ledger_are_not_swallowed() -> None:
    for error in (Interrupted(), RunError("disk full")):

        def accuracy(recipe: Recipe, split: str, error: Exception = error) -> float:
            raise error

        with pytest.raises(type(error)):
            conclusion(Oracle(accuracy)).choose([finalist(0, 5.0)])


def test_without_a_success_there_is_no_finalist() -> None:
    with pytest.raises(AutoMergeError, match="no trial succeeded"):
        finalists(view(row(0, 0, 10, None)))


class TestFloors:
    """Source ``a`` scores 0.7; the search prefers what is better in the mean."""

    def conclude(self, margin: float, heldout: float = 0.0) -> tuple[int, Final]:
        """Two finalists, 0.62 and 0.66 on search documents; ``heldout`` is added on the others."""

        def accuracy(recipe: Recipe, split: str) -> float:
            if recipe == CAST.single_model("a"):
                return 0.7
            scale = scale_of(recipe)
            found = {5.0: 0.62, 6.0: 0.66}.get(scale or 0.0, 0.4)
            return found + (heldout if split == "heldout" else 0.0)

        made = conclusion(Oracle(accuracy), replace(OBJECTIVE, floor=Floor("a", margin)))
        winner = made.choose([finalist(0, 5.0), finalist(1, 6.0)])
        return winner.trial.index, made.conclude(winner, 1)

    def test_judged_on_held_out_documents_against_the_margin(self) -> None:
        for margin, heldout, verdict in (
            (0.05, -0.2, "violated"),  # .46 against .7
            (0.05, 0.1, "kept"),  # .76
            (0.04, 0.0, "undetermined"),  # .66: exactly at the floor
        ):
            _, final = self.conclude(margin, heldout)
            (result,) = final.floors
            assert (result.model, result.margin, result.place) == ("a", margin, 0)
            assert result.verdict == verdict
            assert result.comparison is not None
            assert result.comparison.difference == pytest.approx(0.66 + heldout - 0.7)

    @pytest.mark.parametrize(
        ("margin", "winner"),
        [(0.0, 1), (0.2, 1)],  # both below, both above: the mean decides
    )
    def test_where_all_or_none_keep_it_the_mean_decides(self, margin: float, winner: int) -> None:
        assert self.conclude(margin)[0] == winner

    def test_one_below_the_floor_ranks_behind_a_worse_mean(self) -> None:
        goals = (replace(OBJECTIVE, floor=Floor("a", 0.1)), Objective("u", "acc,none"))
        accuracies = {5.0: (0.59, 1.0), 6.0: (0.6, 0.5), 7.0: (0.61, 0.4)}

        class TwoTasks(Oracle):
            def document_scores(
                self, candidate: Recipe, fidelity: int, split: str
            ) -> tuple[DocumentScores, ...]:
                found = accuracies.get(scale_of(candidate) or 0.0, (0.7, 0.2))
                right = [round(DOCUMENTS * value) for value in found]
                return tuple(
                    scores([1.0] * count + [0.0] * (DOCUMENTS - count), goal.task)
                    for goal, count in zip(goals, right, strict=True)
                )

        made = conclusion(TwoTasks(lambda recipe, split: 0.0), *goals)
        winner = made.choose([finalist(n, 5.0 + n) for n in range(3)])
        assert winner.trial.index == 1, "a tenth below a is still within the margin"
        assert made.conclude(winner, 1).heldout[0].mean == pytest.approx(0.55)

    def test_margins_are_in_the_unit_of_the_metric(self) -> None:
        loss = Objective("t", "loss,none", "minimize", (1.0, 11.0), floor=Floor("a", 0.5))
        assert loss.scaled_margin() == pytest.approx(0.05)
        assert OBJECTIVE.scaled_margin() == 0.0

    def test_a_model_that_cannot_be_scored_leaves_it_open(self) -> None:
        def accuracy(recipe: Recipe, split: str) -> float:
            if recipe == CAST.single_model("a"):
                raise MemoryError("out")
            return 0.5

        made = conclusion(Oracle(accuracy), replace(OBJECTIVE, floor=Floor("a", 0.0)))
        final = made.conclude(made.choose([finalist(0, 5.0)]), 1)
        assert final.floors[0].verdict == "undetermined"
        assert final.left_out == ("source: a: MemoryError: out",)
