"""What holds for every strategy: its space, its recipes, and that its searches go on exactly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM
from world import STRATEGIES, make_world, write_configuration

from auto_merge.cli import run_command
from auto_merge.config import load_config
from auto_merge.errors import RecipeError
from auto_merge.runs import reader
from auto_merge.runs.store import RunStore
from auto_merge.runs.view import RunView
from auto_merge.search.candidates import Workbench
from auto_merge.search.setup import Setup, prepare
from auto_merge.trial import Status, Value

FIXED = {
    "normal_models": {"merging_method": {"linear": {"weights": [{"value": [1, 3]}]}}},
    "normal_slices": {
        "slices": [
            {
                "sources": [{"model": "right", "layer_range": [0, 2]}],
                "merging_method": {"passthrough": None},
            },
            {
                "sources": [{"model": "left", "layer_range": [1, 2]}],
                "merging_method": {"passthrough": None},
            },
        ]
    },
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    for strategy in STRATEGIES:
        write_configuration(folder, strategy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTO_MERGE_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(params=STRATEGIES)
def setup(world: Path, request: pytest.FixtureRequest) -> Setup:
    return prepare(load_config(world / f"{request.param}.yaml"))


def samples(setup: Setup, count: int = 40) -> list[dict[str, Value]]:
    space = setup.strategy.space()
    space.seed(7)
    return [dict(sample) for sample in space.sample_configuration(count)]


def workbench(setup: Setup) -> Workbench:
    return Workbench(setup.checkpoints, device="cpu", dtype="float32")


def view(folder: Path) -> RunView:
    return reader.view(RunStore(folder))


def test_decoding_is_total_and_pure(setup: Setup) -> None:
    bench = workbench(setup)
    built = 0
    for configuration in samples(setup):
        before = dict(configuration)
        recipe = setup.strategy.decode(configuration)
        assert configuration == before
        assert setup.strategy.decode(dict(reversed(before.items()))) == recipe
        try:
            built += bool(bench.plan(recipe).steps)
        except RecipeError:
            # Only a depth that cannot be may keep a sample from being built.
            assert setup.config.strategy == "dis"
            assert not 1 <= recipe.num_layers <= 4
    assert built >= 30


def test_its_own_configurations_can_be_encoded(setup: Setup) -> None:
    for configuration in samples(setup):
        again = setup.strategy.encode(configuration)
        assert setup.strategy.decode(again) == setup.strategy.decode(configuration)


def test_start_points_are_legal_and_different(setup: Setup) -> None:
    from ConfigSpace import Configuration

    space, bench = setup.strategy.space(), workbench(setup)
    points = setup.strategy.initial_design()
    digests = []
    for _, point in points:
        Configuration(space, values=point).check_valid_configuration()
        digests.append(bench.plan(setup.strategy.decode(point)).digest)
    assert len(points) >= 3
    assert len(set(digests)) >= len(digests) - 1  # two ways of writing the base


def test_inactive_values_change_nothing(setup: Setup) -> None:
    space = setup.strategy.space()
    for configuration in samples(setup, 10):
        recipe = setup.strategy.decode(configuration)
        inactive = {
            name: hp.default_value for name, hp in space.items() if name not in configuration
        }
        assert setup.strategy.decode({**configuration, **inactive}) == recipe


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_source_alone_is_reproduced_bit_for_bit(world: Path, strategy: str) -> None:
    changes = ["strategies.prune.layers=2"] if strategy == "prune" else []
    setup = prepare(load_config(world / f"{strategy}.yaml", changes))
    bench = workbench(setup)
    tokens = torch.arange(4, 24).view(2, 10)
    recipes = [setup.strategy.decode(point) for _, point in setup.strategy.initial_design()]
    for role in ("left", "right"):
        source = AutoModelForCausalLM.from_pretrained(world / "models" / role)
        plan = bench.plan(setup.cast.single_model(role))
        assert plan.digest in [bench.plan(recipe).digest for recipe in recipes]
        with torch.no_grad():
            merged = bench.materialise(plan)(input_ids=tokens).logits
            assert torch.equal(merged, source(input_ids=tokens).logits)


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "lfs"])
def test_a_search_ends_and_goes_on_exactly(world: Path, strategy: str) -> None:
    file = str(world / f"{strategy}.yaml")

    def search(output: str, trials: int) -> int:
        words = ["--set", f"search.max_trials={trials}", "--quiet"]
        return run_command(["--config", file, "--output", str(world / output), *words])

    assert search(f"{strategy}_whole", 12) == 0
    for trials in (5, 12):
        assert search(f"{strategy}_parts", trials) == 0
    whole, parts = view(world / f"{strategy}_whole"), view(world / f"{strategy}_parts")
    assert len(whole.trials) == 12
    assert [row.trial for row in whole.trials] == [row.trial for row in parts.trials]
    statuses = {row.outcome.status for row in whole.trials if row.outcome}
    assert statuses <= {Status.SUCCESS, Status.INFEASIBLE}
    assert whole.final is not None
    assert parts.final is not None
    assert whole.final.recipe == parts.final.recipe
    best = AutoModelForCausalLM.from_pretrained(world / f"{strategy}_whole/best")
    assert best.config.num_hidden_layers == whole.final.recipe.num_layers
    assert (world / f"{strategy}_whole/report.html").is_file()


@pytest.mark.parametrize("strategy", FIXED)
def test_a_fixed_recipe_is_merged_scored_and_reported(world: Path, strategy: str) -> None:
    file = write_configuration(world, "lfs")
    data = json.loads(json.dumps(load_config(file).resolved()))
    section = data["strategies"].pop("lfs")
    kept = {key: section[key] for key in ("base_model", "models")}
    data.update(strategy=strategy, name=strategy)
    data["strategies"] = {strategy: {**kept, **FIXED[strategy]}}
    data["global_params"].pop("search")
    data["global_params"]["output_path"] = str(world / strategy)
    own = world / f"{strategy}.yaml"
    own.write_text(json.dumps(data))
    assert run_command(["--config", str(own), "--quiet"]) == 0
    seen = view(world / strategy)
    assert len(seen.trials) == 1
    assert seen.final is not None
    best = AutoModelForCausalLM.from_pretrained(world / strategy / "best")
    assert best.config.num_hidden_layers == seen.final.recipe.num_layers
