"""Runs as a store would show them, made up with a seed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from auto_merge.recipe.model import Entry, Recipe, Slice, Source
from auto_merge.runs.view import (
    Final,
    FloorResult,
    Front,
    FrontMember,
    HeldoutRow,
    RunView,
    TrialRow,
)
from auto_merge.statistics import PairedTask, paired_comparison, simultaneous_comparisons
from auto_merge.trial import (
    Floor,
    Objective,
    Outcome,
    Status,
    TaskScore,
    Trial,
    Value,
    scalar_cost,
)

SKILLS = ("reverse", "sort", "caesar", "count")
RUNGS = (60, 180, 540)
HELDOUT = 1000
HOSTILE = "<script>alert('x')</script> $x^2$ [bold]日本 \x00|`&\" é"


def objectives(names: tuple[str, ...] = SKILLS) -> tuple[Objective, ...]:
    return tuple(Objective(f"zoo_{name}", "acc,none") for name in names)


def score(objective: Objective, mean: float, documents: int) -> TaskScore:
    error = math.sqrt(max(mean * (1 - mean), 0) / documents)
    return TaskScore(objective.task, objective.metric, mean, documents, error)


def recipe(num_layers: int = 8, roles: tuple[str, ...] = SKILLS, seed: int = 0) -> Recipe:
    generator = np.random.default_rng(seed)

    def entries(low: float = 0.0, high: float = 1.0) -> tuple[Entry, ...]:
        values = generator.uniform(low, high, 3).round(3).tolist()
        return (Entry(values[0], "self_attn"), Entry(values[1], "mlp"), Entry(values[2]))

    slices = []
    for start in range(0, num_layers, 2):
        layers = (start, start + 2)
        method = ("task_arithmetic", "ties", "linear", "slerp")[start // 2 % 4]
        if method == "slerp":
            pair = (Source(roles[0], layers), Source(roles[-1], layers))
            slices.append(Slice("slerp", pair, {"t": entries()}))
            continue
        models = (*roles, "base") if method == "linear" else roles
        sources = tuple(Source(role, layers, {"weight": entries()}) for role in models)
        parameters = {"density": entries(0.2, 1.0), "scale": entries(0.5, 1.0)}
        slices.append(Slice(method, sources, parameters if method == "ties" else {}))
    return Recipe(tuple(slices), base="base", dtype="float32")


def configuration(generator: np.random.Generator, trials_before: int) -> dict[str, Value]:
    """Values that move towards one as a search learns."""
    values: dict[str, Value] = {}
    learned = 1 + trials_before // 30
    for group in range(4):
        usual = generator.random() < 0.25 * learned
        choices = ["linear", "task_arithmetic", "ties"]
        method = "task_arithmetic" if usual else str(generator.choice(choices))
        values[f"layer_selection_method_{group}"] = method
        for filter_name in ("self_attn", "mlp", "base"):
            for skill in SKILLS:
                name = (
                    f"model_{skill}_layer_{group}_paramset_{filter_name}"
                    f"_method_{method}_param_weights"
                )
                values[name] = float(generator.random(learned).max())
    return values


def trial_rows(num_trials: int, num_open: int = 1, seed: int = 0) -> tuple[TrialRow, ...]:
    """A search that gets better, with failures, three rungs and ``num_open`` open trials."""
    generator = np.random.default_rng(seed)
    rows: list[TrialRow] = []
    seconds, documents = 0.0, 0
    for index in range(num_trials):
        stage = 0 if index % 6 < 4 else 1 if index % 6 == 4 else 2
        start = index < 10
        values = configuration(generator, index)
        trial = Trial(
            index,
            index,
            values,
            RUNGS[stage],
            index // 12,
            stage,
            f"initial design: scale {index / 10:g}" if start else "smac",
        )
        if index >= num_trials - num_open:
            rows.append(TrialRow(trial, None, 0.0, 0))
            continue
        noise = float(generator.normal(0, 0.04 * math.sqrt(60 / RUNGS[stage])))
        mean = 0.45 + noise
        for group, effect in enumerate((0.03, 0.16, 0.08, 0.02)):
            mean += effect * (values[f"layer_selection_method_{group}"] == "task_arithmetic")
            name = f"layer_{group}_paramset_mlp_method_task_arithmetic_param_weights"
            mean += effect * 0.4 * float(values.get(f"model_sort_{name}", 0.2))
        mean = min(0.97, mean)
        new = (RUNGS[stage] - (RUNGS[stage - 1] if stage else 0)) * len(SKILLS)
        spent = 0.4 + new / 310
        seconds, documents = seconds + spent + 0.05, documents + new
        outcome = Outcome(
            Status.SUCCESS,
            tuple(score(item, mean, RUNGS[stage]) for item in objectives()),
            1 - mean,
            spent,
            new,
        )
        if index % 23 == 7:
            error = "CUDA out of memory. Tried to allocate 2.00 GiB"
            outcome = Outcome(Status.OUT_OF_MEMORY, seconds=spent, error=error, traceback="…")
        if index % 37 == 11:
            error = "model.layers.3.mlp.down_proj.weight holds NaN after ties"
            outcome = Outcome(Status.INVALID_WEIGHTS, seconds=spent, error=error, traceback="…")
        rows.append(TrialRow(trial, outcome, seconds, documents))
    return tuple(rows)


def final(rows: tuple[TrialRow, ...], edge: float = 0.02, seed: int = 0) -> Final:
    """A winner with ``edge`` over the best single scale, compared on simulated documents."""
    generator = np.random.default_rng(seed)
    means = {
        "best": (0.955, 0.93, 0.901, 0.862),
        **{
            f"source: {skill}": tuple(0.97 if skill == other else 0.24 for other in SKILLS)
            for skill in SKILLS
        },
        "base": (0.2, 0.25, 0.18, 0.24),
        "uniform average": (0.81, 0.62, 0.7, 0.55),
        "best single scale (0.7)": tuple(m - edge for m in (0.955, 0.93, 0.901, 0.862)),
    }
    difficulty = generator.random((len(SKILLS), HELDOUT))
    correct = {
        label: [
            0.75 * difficulty[task] + 0.25 * generator.random(HELDOUT) < mean
            for task, mean in enumerate(values)
        ]
        for label, values in means.items()
    }
    table = []
    for label, answers in correct.items():
        scores = tuple(
            score(item, float(answer.mean()), HELDOUT)
            for item, answer in zip(objectives(), answers, strict=True)
        )
        mean = sum(item.mean for item in scores) / len(scores)
        tasks = [
            PairedTask(1.0, best.astype(float) - answer)
            for best, answer in zip(correct["best"], answers, strict=True)
        ]
        table.append(
            HeldoutRow(
                label,
                scores,
                mean,
                mean + (0.011 if label == "best" else float(generator.normal(0, 0.004))),
                None if label == "best" else paired_comparison(tasks),
            )
        )
    done = [row for row in rows if row.outcome is not None and not row.outcome.error]
    top = max(row.trial.fidelity for row in done)
    best = min(
        (row for row in done if row.trial.fidelity == top),
        key=lambda row: row.outcome.cost if row.outcome else 2.0,
    )
    return Final(best.trial, recipe(), tuple(table), 1, ())


def complete_run() -> RunView:
    rows = trial_rows(120, num_open=0)
    return RunView(
        name="zoo-lfs",
        state="complete",
        manifest={
            "versions": {"auto_merge": "0.1.0", "torch": "2.13.0", "smac": "2.4.1"},
            "rungs": list(RUNGS),
            "seed": 0,
            "config": {"strategy": "lfs", "search": {"max_trials": 120}},
        },
        objectives=objectives(),
        trials=rows,
        max_trials=120,
        max_seconds=None,
        active_seconds=rows[-1].active_seconds,
        waiting_seconds=0.06 * rows[-1].active_seconds,
        final=final(rows),
        incumbent_recipe=recipe(),
    )


def running_run() -> RunView:
    rows = trial_rows(43)
    return replace(
        complete_run(),
        state="running",
        trials=rows,
        active_seconds=max(row.active_seconds for row in rows),
        final=None,
    )


def empty_run() -> RunView:
    return replace(
        complete_run(),
        state="running",
        trials=(),
        active_seconds=0.0,
        waiting_seconds=0.0,
        final=None,
        incumbent_recipe=None,
    )


def failed_run() -> RunView:
    error = "zoo_sort: the task has no documents"
    rows = tuple(
        replace(row, outcome=Outcome(Status.CRASHED, error=error, seconds=0.1))
        for row in trial_rows(5, num_open=0)
    )
    return replace(empty_run(), state="stopped", trials=rows, active_seconds=3.0)


def single_trial_run() -> RunView:
    rows = trial_rows(1, num_open=0)
    return replace(empty_run(), state="stopped", trials=rows, active_seconds=1.2)


def hostile_run() -> RunView:
    """Every name that a user can choose is hostile."""
    view = complete_run()
    assert view.final is not None
    rows = tuple(
        replace(
            row,
            trial=replace(
                row.trial,
                origin=HOSTILE,
                configuration={HOSTILE + key: v for key, v in row.trial.configuration.items()},
            ),
            outcome=replace(row.outcome, error=HOSTILE)
            if row.outcome is not None and row.outcome.error
            else row.outcome,
        )
        for row in view.trials
    )
    winner, *others = view.final.heldout
    renamed = [replace(row, label=f"source: {HOSTILE}") for row in others[:1]]
    hostile_recipe = recipe(roles=(HOSTILE, "a", "b", "c"))
    return replace(
        view,
        name=HOSTILE,
        manifest={**view.manifest, HOSTILE: HOSTILE, "versions": {HOSTILE: HOSTILE}},
        objectives=tuple(replace(item, task=HOSTILE + item.task) for item in view.objectives),
        trials=rows,
        final=Final(rows[-1].trial, hostile_recipe, (winner, *renamed, *others[1:]), 3, (HOSTILE,)),
    )


def front_run(num_objectives: int = 2, num_members: int = 7, seed: int = 0) -> RunView:
    """A finished multi-objective run; members trade the first task against the others."""
    generator = np.random.default_rng(seed)
    names = (*SKILLS, "translate")[:num_objectives]
    goals = tuple(
        replace(item, floor=Floor(names[0], 0.05)) if place == 0 else item
        for place, item in enumerate(objectives(names))
    )
    difficulty = generator.random((num_objectives, HELDOUT))

    def answers(means: list[float]) -> np.ndarray:
        own = generator.random((num_objectives, HELDOUT))
        return (0.75 * difficulty + 0.25 * own < np.array(means)[:, None]).astype(float)

    def row(label: str, solved: np.ndarray, best: np.ndarray | None) -> HeldoutRow:
        means = solved.mean(axis=1).tolist()
        scores = tuple(score(*item, HELDOUT) for item in zip(goals, means, strict=True))
        tasks = (
            []
            if best is None
            else [PairedTask(1.0, a - b) for a, b in zip(best, solved, strict=True)]
        )
        mean = sum(means) / len(means)
        comparison = paired_comparison(tasks) if tasks else None
        return HeldoutRow(label, scores, mean, mean + 0.01, comparison)

    share = np.linspace(0.0, 1.0, num_members) if num_members > 1 else np.array([0.5])
    share = share[np.argsort(np.abs(share - 0.5), kind="stable")]
    solved = [
        answers(
            [0.9 - 0.45 * s**2, *[0.55 + 0.3 * math.sqrt(s) - 0.03 * k for k in range(9)]][
                :num_objectives
            ]
        )
        for s in share.tolist()
    ]
    alone = {
        f"source: {name}": answers([0.86 if other == name else 0.35 for other in names])
        for name in names
    }
    rest = {"base": answers([0.3] * num_objectives)}
    rest["uniform average"] = answers([0.6] * num_objectives)
    for scale in (0.2, 0.4, 0.6, 0.8):
        label = f"best single scale ({scale})" if scale == 0.4 else f"single scale ({scale})"
        rest[label] = answers([0.5 + 0.35 * scale, *[0.75 - 0.4 * scale] * (num_objectives - 1)])
    rows = trial_rows(90, num_open=0)
    rows = tuple(_several(item, goals, generator) for item in rows)
    floor_model = alone[f"source: {names[0]}"]
    members = tuple(
        FrontMember(
            trial=rows[3 * place].trial,
            recipe=recipe(seed=place),
            row=row(f"trial {3 * place}", item, None if place == 0 else solved[0]),
            search_scores=(),
            comparisons=simultaneous_comparisons(
                [
                    [PairedTask(1.0, mine - theirs)]
                    for mine, theirs in zip(
                        item,
                        (alone[f"source: {name}"][k] for k, name in enumerate(names)),
                        strict=True,
                    )
                ]
            ),
            floors=(
                FloorResult(
                    0,
                    names[0],
                    0.05,
                    paired_comparison([PairedTask(1.0, item[0] - floor_model[0])]),
                ),
            ),
        )
        for place, item in enumerate(solved)
    )
    reference = tuple(0.7 for _ in goals)
    table = [
        row(label, item, solved[0] if solved else None) for label, item in (alone | rest).items()
    ]
    front = Front(
        members=members,
        rivals=tuple(f"source: {name}" for name in names),
        reference=reference,
        size=min(num_members, 3),
        baselines=("source: reverse", "uniform average", "single scale (0.2)")[:num_members],
        hypervolume=0.43,
        baseline_hypervolume=0.31,
        search_hypervolume=0.45,
    )
    winner = replace(members[0].row, label="best")
    return replace(
        complete_run(),
        manifest={**complete_run().manifest, "multi_objective": True},
        objectives=goals,
        trials=rows,
        max_trials=90,
        final=Final(members[0].trial, recipe(), (winner, *table), 1, (), members[0].floors, front),
        reference=reference,
    )


def _several(
    row: TrialRow, goals: tuple[Objective, ...], generator: np.random.Generator
) -> TrialRow:
    """The same trial with scores that trade one task against the others."""
    if row.outcome is None or row.outcome.error:
        return row
    quality, share = 1 - row.outcome.cost, float(generator.random())
    means = [quality * (1 - 0.4 * share), *[quality * (0.6 + 0.4 * share)] * (len(goals) - 1)]
    documents = row.trial.fidelity
    scores = tuple(score(goal, mean, documents) for goal, mean in zip(goals, means, strict=True))
    return replace(
        row, outcome=replace(row.outcome, scores=scores, cost=scalar_cost(goals, scores))
    )
