"""The end of a multi-objective search on an oracle, and the export of a front."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pico import make_llama

from auto_merge.checkpoints.checkpoint import fingerprint, open_checkpoint
from auto_merge.errors import AutoMergeError, CheckpointError, Interrupted, RunError
from auto_merge.evaluation.evaluator import Counts
from auto_merge.evaluation.scores import DocumentScores, task_score
from auto_merge.recipe.model import Recipe
from auto_merge.runs.view import Final, RunView, TrialRow
from auto_merge.search.baselines import Cast
from auto_merge.search.candidates import Workbench
from auto_merge.search.conclude import Finalist
from auto_merge.search.deliver import export_front
from auto_merge.search.front import (
    FRONT_SIZE,
    FrontConclusion,
    front_finalists,
    front_value,
)
from auto_merge.trial import Floor, Objective, Outcome, Status, TaskScore, Trial, scalar_cost

GOALS = (Objective("x", "acc,none"), Objective("y", "acc,none"))
CAST = Cast(("a", "b"), "base", 2, "float32")
DOCUMENTS = 200
Accuracy = Callable[[Recipe, str], tuple[float, float]]


class Oracle:
    """An evaluator that knows every recipe's accuracy on both tasks."""

    def __init__(self, accuracy: Accuracy) -> None:
        self.accuracy = accuracy
        self.last_counts = Counts()
        self.opened: list[Recipe] = []

    def evaluate(
        self, candidate: Recipe, fidelity: int, *, split: str, **kwargs: object
    ) -> tuple[TaskScore, ...]:
        found = self.document_scores(candidate, fidelity, split)
        if split == "heldout":
            self.opened.append(candidate)
        return tuple(task_score(item) for item in found)

    def document_scores(
        self, candidate: Recipe, fidelity: int, split: str
    ) -> tuple[DocumentScores, ...]:
        return tuple(
            _documents(goal.task, accuracy)
            for goal, accuracy in zip(GOALS, self.accuracy(candidate, split), strict=True)
        )


def _documents(task: str, accuracy: float) -> DocumentScores:
    right = round(DOCUMENTS * accuracy)
    values = np.array([1.0] * right + [0.0] * (DOCUMENTS - right))
    names = tuple(f"d{i}" for i in range(DOCUMENTS))
    weights = np.full(DOCUMENTS, 1 / DOCUMENTS)
    return DocumentScores(task, "acc,none", values, weights, (task,) * DOCUMENTS, names, None)


class Bench:
    """A workbench whose candidates are the recipes themselves."""

    def candidate(self, recipe: Recipe) -> Recipe:
        object.__setattr__(recipe, "digest", repr(recipe))
        return recipe


def conclusion(
    oracle: Oracle, goals: tuple[Objective, ...] = GOALS, cast: Cast = CAST
) -> FrontConclusion:
    return FrontConclusion(
        Bench(),  # type: ignore[arg-type]
        oracle,  # type: ignore[arg-type]
        goals,
        cast,
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


SOURCES = {"a": (0.8, 0.2), "b": (0.3, 0.7)}
MERGED = {5.0: (0.7, 0.6), 7.0: (0.5, 0.9), 9.0: (0.1, 0.1)}


def known(
    merged: dict[float, tuple[float, float]],
    heldout: dict[float, tuple[float, float]] | None = None,
) -> Accuracy:
    """Accuracy of merges by their scale; the single scales trade x for y below both sources."""

    def accuracy(recipe: Recipe, split: str) -> tuple[float, float]:
        scale = scale_of(recipe)
        if scale is None:
            part = recipe.slices[0]
            alone = part.sources[0].model if part.method == "passthrough" else ""
            return SOURCES.get(alone, (0.4, 0.4))
        if scale in merged:
            return (heldout or merged)[scale] if split == "heldout" else merged[scale]
        return 0.5 - 0.1 * scale, 0.3 + 0.1 * scale

    return accuracy


def run_all(made: FrontConclusion, finalists: list[Finalist]) -> Final:
    return made.conclude_front(made.choose_front(finalists), 1, made.reference_point())


class TestChoosing:
    def test_dominated_and_repeated_finalists_are_dropped(self) -> None:
        merged = {5.0: (0.7, 0.6), 6.0: (0.6, 0.5), 7.0: (0.5, 0.9), 8.0: (0.7, 0.6)}
        made = conclusion(Oracle(known(merged)))
        found = made.choose_front([finalist(n, 5.0 + n) for n in range(4)])
        assert [one.trial.index for one in found] == [2, 0], "best mean first"

    def test_weights_choose_the_winner(self) -> None:
        goals = (replace(GOALS[0], weight=3.0), GOALS[1])
        made = conclusion(Oracle(known({5.0: (0.7, 0.6), 7.0: (0.5, 0.9)})), goals)
        found = made.choose_front([finalist(0, 7.0), finalist(1, 5.0)])
        assert [one.trial.index for one in found] == [1, 0]

    def test_a_missed_floor_ranks_behind(self) -> None:
        # Source b has .7 on y: less than .6 misses the floor.
        goals = (GOALS[0], replace(GOALS[1], floor=Floor("b", 0.1)))
        merged = {5.0: (0.95, 0.55), 6.0: (0.5, 0.6), 7.0: (0.4, 0.8)}
        found = conclusion(Oracle(known(merged)), goals).choose_front(
            [finalist(n, 5.0 + n) for n in range(3)]
        )
        assert [one.trial.index for one in found] == [2, 1, 0]

    def test_a_large_front_is_thinned_those_without_their_floor_first(self) -> None:
        goals = (GOALS[0], replace(GOALS[1], floor=Floor("b", 0.0)))
        merged = {10.0 + n: (1.0 - n / 20, n / 20) for n in range(20)}
        made = conclusion(Oracle(known(merged)), goals)
        found = made.choose_front([finalist(n, 10.0 + n) for n in range(20)])
        assert len(found) == FRONT_SIZE
        kept = [one.trial.index for one in found]
        assert set(kept) >= {14, 15, 16, 17, 18, 19}, "those with at least .7 on y"
        assert {0, 13} <= set(kept), "the ends of the others"
        assert all(index >= 14 for index in kept[:6])

    def test_one_that_cannot_be_scored_is_left_out(self) -> None:
        def accuracy(recipe: Recipe, split: str) -> tuple[float, float]:
            if scale_of(recipe) == 5.0:
                raise MemoryError("out")
            return known({6.0: (0.6, 0.6)})(recipe, split)

        made = conclusion(Oracle(accuracy))
        members = made.choose_front([finalist(0, 5.0), finalist(1, 6.0)])
        assert [one.trial.index for one in members] == [1]
        final = made.conclude_front(members, 1, (0.7, 0.8))
        assert final.left_out == ("trial 0: MemoryError: out",)
        with pytest.raises(AutoMergeError, match="none of the best trials can be scored"):
            made.choose_front([finalist(0, 5.0)])

    def test_a_stop_is_not_swallowed(self) -> None:
        def accuracy(recipe: Recipe, split: str) -> tuple[float, float]:
            raise Interrupted

        with pytest.raises(Interrupted):
            conclusion(Oracle(accuracy)).choose_front([finalist(0, 5.0)])


class TestConcluding:
    def test_reference_point_is_the_worst_source_of_each_objective(self) -> None:
        made = conclusion(Oracle(known(MERGED)))
        assert made.reference_point() == pytest.approx((0.7, 0.8))

    def test_hypervolumes_by_hand(self) -> None:
        heldout = {5.0: (0.6, 0.6), 7.0: (0.4, 0.8)}
        oracle = Oracle(known(MERGED, heldout))
        final = run_all(conclusion(oracle), [finalist(0, 5.0), finalist(1, 7.0)])
        front = final.front
        assert front is not None
        assert front.reference == pytest.approx((0.7, 0.8))
        # Held-out costs (.4, .4) and (.6, .2) below (.7, .8): .3 x .4 + .1 x .2 of .56.
        assert front.hypervolume == pytest.approx((0.3 * 0.4 + 0.1 * 0.2) / 0.56)
        # Search costs (.3, .4) and (.5, .1): .4 x .4 + .2 x .3.
        assert front.search_hypervolume == pytest.approx((0.4 * 0.4 + 0.2 * 0.3) / 0.56)
        assert front.size == 2
        assert len(front.baselines) == 2, "cut to the size of the front"
        rows = {row.label: row for row in final.heldout}
        against = [rows[label].scores for label in front.baselines]
        assert front.baseline_hypervolume == front_value(GOALS, against, front.reference)

    def test_held_out_documents_are_opened_for_what_was_chosen_only(self) -> None:
        oracle = Oracle(known(MERGED))
        final = run_all(conclusion(oracle), [finalist(n, s) for n, s in enumerate(MERGED)])
        # Two members (the third is dominated), sources, base, average, the scale with the best
        # mean (all are equal: the first), and two that cover most of the box below (.7, .8): with
        # costs (.5 + s / 10, .7 - s / 10) the product of what is left is largest at s = .5.
        assert len(oracle.opened) == 2 + 2 + 1 + 1 + 1 + 2
        assert [row.label for row in final.heldout] == [
            "best",
            "source: a",
            "source: b",
            "base",
            "uniform average",
            "best single scale (0.1)",
            "single scale (0.5)",
            "single scale (1.2)",
        ]

    def test_the_winner_is_the_member_with_the_best_mean(self) -> None:
        final = run_all(conclusion(Oracle(known(MERGED))), [finalist(0, 5.0), finalist(1, 7.0)])
        assert final.front is not None
        first, second = final.front.members
        assert (final.trial.index, first.trial.index, second.trial.index) == (1, 1, 0)
        assert final.heldout[0].scores == first.row.scores
        assert first.row.comparison is None
        assert second.row.comparison is not None
        assert second.row.comparison.difference == pytest.approx(0.05)
        assert first.search_scores[0].mean == 0.5

    def test_members_against_the_best_source_of_each_objective(self) -> None:
        final = run_all(conclusion(Oracle(known(MERGED))), [finalist(0, 5.0), finalist(1, 7.0)])
        assert final.front is not None
        assert final.front.rivals == ("source: a", "source: b")
        differences = [
            [item.difference for item in member.comparisons if item is not None]
            for member in final.front.members
        ]
        assert differences == [pytest.approx([-0.3, 0.2]), pytest.approx([-0.1, -0.1])]
        # Four intervals that hold at once are wider than the one of a single comparison.
        alone = run_all(conclusion(Oracle(known(MERGED))), [finalist(1, 7.0)])
        assert alone.front is not None
        narrow, wide = alone.front.members[0].comparisons[0], final.front.members[0].comparisons[0]
        assert narrow is not None
        assert wide is not None
        assert wide.low < narrow.low < narrow.high < wide.high

    def test_floors_are_judged_on_held_out_documents(self) -> None:
        goals = (GOALS[0], replace(GOALS[1], floor=Floor("b", 0.1)))
        heldout = {5.0: (0.7, 0.4), 7.0: (0.5, 0.9)}
        oracle = Oracle(known(MERGED, heldout))
        final = run_all(conclusion(oracle, goals), [finalist(0, 5.0), finalist(1, 7.0)])
        assert final.front is not None
        assert [one.floors[0].verdict for one in final.front.members] == ["kept", "violated"]
        assert final.floors == final.front.members[0].floors

    def test_without_a_base_there_is_no_sweep(self) -> None:
        cast = Cast(("a", "b"), None, 2, "float32")
        accuracy = known(MERGED)
        final = run_all(conclusion(Oracle(accuracy), cast=cast), [finalist(0, 5.0)])
        labels = [row.label for row in final.heldout]
        assert labels == ["best", "source: a", "source: b", "uniform average"]

    def test_sources_that_cannot_be_scored(self) -> None:
        def accuracy(recipe: Recipe, split: str) -> tuple[float, float]:
            scale = scale_of(recipe)
            if scale is None or scale not in MERGED:
                raise MemoryError("out")
            return MERGED[scale]

        made = conclusion(Oracle(accuracy))
        assert made.reference_point() == (1.0, 1.0)
        final = run_all(made, [finalist(0, 5.0), finalist(1, 7.0)])
        assert final.front is not None
        assert final.front.rivals == ("", "")
        assert final.front.members[0].comparisons == (None, None)
        assert (final.front.size, final.front.hypervolume) == (0, 0.0)
        assert "source: a: MemoryError: out" in final.left_out

    def test_a_winner_that_fails_at_the_end_is_an_error(self) -> None:
        def accuracy(recipe: Recipe, split: str) -> tuple[float, float]:
            if split == "heldout" and scale_of(recipe) == 7.0:
                raise MemoryError("out")
            return known(MERGED)(recipe, split)

        with pytest.raises(AutoMergeError, match="trial 1 won but cannot be scored again"):
            run_all(conclusion(Oracle(accuracy)), [finalist(0, 5.0), finalist(1, 7.0)])


def row(index: int, fidelity: int, *costs: float) -> TrialRow:
    trial = Trial(index, index, {}, fidelity)
    if not costs:
        return TrialRow(trial, Outcome(Status.CRASHED, error="x"), 0.0, 0)
    scores = tuple(
        TaskScore(goal.task, goal.metric, 1 - cost, fidelity, 0.1)
        for goal, cost in zip(GOALS, costs, strict=True)
    )
    return TrialRow(trial, Outcome(Status.SUCCESS, scores, scalar_cost(GOALS, scores)), 0.0, 0)


def view(*rows: TrialRow) -> RunView:
    manifest = {"multi_objective": True}
    return RunView("run", "stopped", manifest, GOALS, rows, None, None, 0.0, 0.0, None, None)


class TestFinalists:
    def test_by_rank_and_crowding_at_the_top_and_below(self) -> None:
        rows = [
            row(0, 30, 0.5, 0.5),
            row(1, 30, 0.1, 0.9),
            row(2, 30, 0.9, 0.1),
            row(3, 30, 0.6, 0.6),
            row(4, 10, 0.0, 0.0),
            row(5, 10, 0.3, 0.3),
            row(6, 30),
        ]
        found = [trial.index for trial in front_finalists(view(*rows))]
        assert found[0] == 0  # the best mean, and of equal ones the first
        assert sorted(found[1:3]) == [1, 2]
        assert found[3:] == [3, 4, 5]
        assert [trial.index for trial in front_finalists(view(*rows), 2)][2:] == [4]

    def test_the_best_mean_is_kept_where_the_front_is_dense(self) -> None:
        knee = [row(i, 30, 0.30 + i / 1000, 0.30 - i / 990) for i in range(20)]
        ends = [row(20, 30, 0.0, 0.9), row(21, 30, 0.9, 0.0)]
        best = min(range(20), key=lambda i: 0.30 + i / 1000 + 0.30 - i / 990)
        for count in (2, 3, 5):
            found = front_finalists(view(*knee, *ends), count)
            assert found[0].index == best
            assert len(found) == count

    def test_without_a_success_there_is_none(self) -> None:
        with pytest.raises(AutoMergeError, match="no trial succeeded"):
            front_finalists(view(row(0, 10)))


def test_every_member_is_exported_with_its_card(tmp_path: Path) -> None:
    make_llama(tmp_path / "base", layers=2)
    for seed, name in enumerate("ab", start=1):
        make_llama(tmp_path / name, layers=2, like=tmp_path / "base", seed=seed)
    checkpoints = {name: open_checkpoint(tmp_path / name) for name in ("base", "a", "b")}
    for checkpoint in checkpoints.values():
        fingerprint(checkpoint, tmp_path / "cache")
    models = {
        name: {
            "path": name,
            "location": str(tmp_path / name),
            "fingerprint": checkpoint.fingerprint,
            "hub_id": None,
        }
        for name, checkpoint in checkpoints.items()
    }
    final = run_all(conclusion(Oracle(known(MERGED))), [finalist(0, 5.0), finalist(1, 7.0)])
    seen = view(row(0, 10, 0.3, 0.4), row(1, 10, 0.5, 0.1))
    done = replace(seen, manifest={**seen.manifest, "models": models}, final=final)
    bench = Workbench(checkpoints, device="cpu", dtype="float32")
    folders = export_front(bench, tmp_path / "out", done)
    assert [folder.name for folder in folders] == ["01_trial_1", "02_trial_0"]
    for folder in folders:
        assert (folder / "config.json").is_file()
        assert (folder / "recipe.yaml").is_file()
    winner, other = ((folder / "README.md").read_text("utf-8") for folder in folders)
    assert "The Pareto front holds 2 models" in winner
    assert "One of 2 models on the Pareto front of the run run" in other
    assert "| trial 0 | 70.0 | 60.0 | 65.0 |" in other
    with pytest.raises(CheckpointError, match="01_trial_1"):
        export_front(bench, tmp_path / "out", done)
    export_front(bench, tmp_path / "out", done, overwrite=True)
    with pytest.raises(RunError, match="is not complete, so it has no front"):
        export_front(bench, tmp_path / "other", seen)
    plain = replace(done, final=replace(final, front=None))
    with pytest.raises(RunError, match="has a single objective"):
        export_front(bench, tmp_path / "other", plain)
    assert not (tmp_path / "other").exists()
