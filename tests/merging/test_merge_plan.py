from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from merge_recipes import linear, opened, part, recipe
from pico import make_models

from auto_merge.checkpoints.checkpoint import Checkpoint
from auto_merge.merging.plan import Plan, Step, build_plan
from auto_merge.recipe.model import Entry, Recipe, Slice, Source


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_models(tmp_path_factory.mktemp("models"), 2)


@pytest.fixture(scope="module")
def checkpoints(models: dict[str, Path]) -> dict[str, Checkpoint]:
    return opened(models)


def step(plan: Plan, output: str) -> Step:
    return next(step for step in plan.steps if step.output == output)


def test_every_tensor_once_in_order(checkpoints: dict[str, Checkpoint]) -> None:
    plan = build_plan(linear(source_1=1, source_2=1), checkpoints)
    outputs = [step.output for step in plan.steps]
    assert sorted(outputs) == sorted(checkpoints["base"].tensors)
    assert outputs[0] == "model.embed_tokens.weight"
    assert set(outputs[-2:]) == {"model.norm.weight", "lm_head.weight"}
    layers = [int(name.split(".")[2]) for name in outputs if ".layers." in name]
    assert layers == sorted(layers)
    assert plan.dtype == "float32"
    assert plan.donor == "base"


def test_filters_choose_values_per_tensor(checkpoints: dict[str, Checkpoint]) -> None:
    weights = {"self_attn": 0.25, "down_proj": 0.5, "mlp": 0.75, "": 1.0}
    plan = build_plan(
        recipe(part("linear", {"source_1": {"weight": weights}, "source_2": {}})), checkpoints
    )

    def share(output: str) -> float:
        call = step(plan, output).call
        key = f"{checkpoints['source_1'].fingerprint}:{output}"
        return dict(zip(call.sources, call.arguments["weight"], strict=True))[key]  # type: ignore[arg-type]

    layer = "model.layers.2"
    assert share(f"{layer}.self_attn.q_proj.weight") == pytest.approx(0.25 / 1.25)
    assert share(f"{layer}.mlp.down_proj.weight") == pytest.approx(0.5 / 1.5)
    assert share(f"{layer}.mlp.up_proj.weight") == pytest.approx(0.75 / 1.75)
    assert share(f"{layer}.input_layernorm.weight") == pytest.approx(0.5)
    assert share("model.embed_tokens.weight") == pytest.approx(0.5)


def test_the_first_matching_entry_wins_wherever_the_default_stands(
    checkpoints: dict[str, Checkpoint],
) -> None:
    given = (Entry(0.1), Entry(0.2, "self_attn"), Entry(0.3, "q_proj"), Entry(0.4))
    sources = (Source("source_1", (0, 4)),)
    plan = build_plan(
        Recipe((Slice("task_arithmetic", sources, {"scale": given}),), "base"), checkpoints
    )

    def weight(output: str) -> object:
        return step(plan, output).call.arguments["weight"]

    assert weight("model.layers.0.self_attn.q_proj.weight") == (0.2,)
    assert weight("model.layers.0.mlp.up_proj.weight") == (0.1,)


def test_absent_parameters_take_the_declared_default(checkpoints: dict[str, Checkpoint]) -> None:
    bare = build_plan(recipe(part("linear", ["source_1", "source_2"])), checkpoints)
    given = build_plan(linear(source_1=1.0, source_2=1.0), checkpoints)
    assert bare == given


def test_stacking_moves_layers_and_their_base(checkpoints: dict[str, Checkpoint]) -> None:
    """The base of a layer is the base model's tensor at the source layer."""
    plan = build_plan(
        recipe(
            part("task_arithmetic", ["source_1"], (2, 4), scale=0.5),
            part("passthrough", ["source_2"], (0, 3)),
        ),
        checkpoints,
    )
    moved = step(plan, "model.layers.0.mlp.up_proj.weight")
    assert moved.inputs == (("source_1", "model.layers.2.mlp.up_proj.weight"),)
    assert moved.base == ("base", "model.layers.2.mlp.up_proj.weight")
    assert step(plan, "model.layers.4.mlp.up_proj.weight").inputs == (
        ("source_2", "model.layers.2.mlp.up_proj.weight"),
    )
    assert step(plan, "model.embed_tokens.weight").inputs == (
        ("source_1", "model.embed_tokens.weight"),
    )
    assert step(plan, "model.norm.weight").inputs == (("source_2", "model.norm.weight"),)
    assert step(plan, "lm_head.weight").inputs == (("source_2", "lm_head.weight"),)
    assert plan.config["num_hidden_layers"] == 5


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (linear(source_1=1, source_2=3), linear(source_1=2, source_2=6)),
        (linear(source_1=1, source_2=3), linear(source_2=3, source_1=1)),
        (linear(source_1=1, source_2=3, base=0), linear(source_1=1, source_2=3)),
        (linear(source_1=0, source_2=3), recipe(part("passthrough", ["source_2"]))),
        (
            recipe(part("task_arithmetic", ["source_1", "source_2"], scale=0)),
            recipe(part("passthrough", ["base"])),
        ),
        (
            recipe(part("linear", ["source_1"], (0, 2)), part("linear", ["source_1"], (2, 4))),
            recipe(part("linear", ["source_1"])),
        ),
        (
            recipe(part("linear", {"source_1": {"weight": {"": 1, "mlp": 9}}})),
            recipe(part("linear", ["source_1"])),
        ),
    ],
)
def test_equal_merges_share_the_digest(
    checkpoints: dict[str, Checkpoint], first: Recipe, second: Recipe
) -> None:
    one, two = build_plan(first, checkpoints), build_plan(second, checkpoints)
    assert one.digest == two.digest
    assert [step.digest for step in one.steps] == [step.digest for step in two.steps]


def test_digests_know_neither_paths_nor_roles(
    models: dict[str, Path], checkpoints: dict[str, Checkpoint], tmp_path: Path
) -> None:
    moved = {
        {"base": "ancestor", "source_1": "left", "source_2": "right"}[role]: Path(
            shutil.copytree(folder, tmp_path / role)
        )
        for role, folder in models.items()
    }
    other = recipe(part("ties", ["left", "right"], density=0.5), base="ancestor")
    here = recipe(part("ties", ["source_1", "source_2"], density=0.5))
    assert build_plan(other, opened(moved)).digest == build_plan(here, checkpoints).digest


def test_different_merges_have_different_digests(
    models: dict[str, Path], checkpoints: dict[str, Checkpoint], tmp_path: Path
) -> None:
    plain = linear(source_1=1, source_2=3)
    digests = [
        build_plan(plain, checkpoints).digest,
        build_plan(plain, checkpoints, dtype="bfloat16").digest,
        build_plan(linear(source_1=1, source_2=3.001), checkpoints).digest,
        build_plan(recipe(part("passthrough", ["source_1"])), checkpoints).digest,
        build_plan(recipe(part("passthrough", ["source_1"], (0, 3))), checkpoints).digest,
    ]
    copies = {r: Path(shutil.copytree(f, tmp_path / r)) for r, f in models.items()}
    settings = json.loads((copies["base"] / "tokenizer_config.json").read_text())
    settings["add_bos_token"] = True
    (copies["base"] / "tokenizer_config.json").write_text(json.dumps(settings))
    digests.append(build_plan(plain, opened(copies)).digest)
    assert len(set(digests)) == len(digests)


def test_plans_are_equal_in_another_process(models: dict[str, Path]) -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "from merge_recipes import linear, opened; from pathlib import Path\n"
        "from auto_merge.merging.plan import build_plan\n"
        "models = {n: Path(sys.argv[3]) / n for n in ('base', 'source_1', 'source_2')}\n"
        "print(build_plan(linear(source_1=.3, source_2=.7), opened(models)).digest)"
    )
    here = Path(__file__).parent
    folder = models["base"].parent
    command = [sys.executable, "-c", code, str(here), str(here.parent), str(folder)]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert found == build_plan(linear(source_1=0.3, source_2=0.7), opened(models)).digest


def test_the_recipe_and_the_caller_choose_the_dtype(checkpoints: dict[str, Checkpoint]) -> None:
    asked = dataclasses.replace(linear(source_1=1), dtype="float16")
    assert build_plan(asked, checkpoints).dtype == "float16"
    plan = build_plan(asked, checkpoints, dtype="bfloat16")
    assert (plan.dtype, plan.config["dtype"]) == ("bfloat16", "bfloat16")


def test_planning_300_tensors_is_quick(tmp_path: Path) -> None:
    checkpoints = opened(make_models(tmp_path, 3, layers=33))
    roles = ["source_1", "source_2", "source_3"]
    weight = {"weight": {"self_attn": 0.3, "mlp": 0.4, "": 0.5}}
    parts = [part("ties", dict.fromkeys(roles, weight), (n, n + 3)) for n in range(0, 33, 3)]
    plan = build_plan(recipe(*parts), checkpoints)
    assert len(plan.steps) == 300
    seconds = []
    for _ in range(7):
        started = time.process_time()
        build_plan(recipe(*parts), checkpoints)
        seconds.append(time.process_time() - started)
    assert min(seconds) < 0.05  # about 8 ms on a quiet machine
