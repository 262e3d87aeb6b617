"""Bad input: one line, exit status 2, nothing left behind."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pico import VOCABULARY, make_llama
from world import make_world

from auto_merge.cli import run_command

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTO_MERGE_CACHE", str(tmp_path / "cache"))
    make_world(tmp_path)
    return tmp_path


def edit(world: Path, old: str, new: str) -> None:
    text = (world / "lfs.yaml").read_text("utf-8")
    assert old in text
    (world / "lfs.yaml").write_text(text.replace(old, new), "utf-8")


def other_shape(world: Path) -> None:
    make_llama(world / "models/wide", layers=2, config={"intermediate_size": 48})
    edit(world, "models/left", "models/wide")


def other_depth(world: Path) -> None:
    make_llama(world / "models/deep", layers=3)
    edit(world, "models/left", "models/deep")


def other_words(world: Path) -> None:
    words = (*VOCABULARY[:-2], VOCABULARY[-1], VOCABULARY[-2])
    make_llama(world / "models/words", layers=2, vocabulary=words)
    edit(world, "models/left", "models/words")


def truncated(world: Path) -> None:
    file = world / "models/left/model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def pickled(world: Path) -> None:
    (world / "models/left/model.safetensors").rename(world / "models/left/pytorch_model.bin")


def empty_task(world: Path) -> None:
    (world / "tasks/pico_next_search.jsonl").write_text("", "utf-8")


def occupied(world: Path) -> None:
    (world / "run").mkdir()
    (world / "run/thesis.tex").write_text("")


BAD_INPUT: list[tuple[str, Callable[[Path], None], str]] = [
    ("missing model", lambda w: edit(w, "models/left", "models/lost"), "no such folder"),
    ("misspelt key", lambda w: edit(w, "max_trials", "max_trails"), "did you mean 'max_trials'?"),
    ("misspelt method", lambda w: edit(w, "slerp:", "slrep:"), "did you mean 'slerp'?"),
    ("unknown task", lambda w: edit(w, "task: pico_next", "task: pico_nxt"), "'pico_next'"),
    ("unknown metric", lambda w: edit(w, "exact_match,none", "exact_match,strict"), "pico_next"),
    ("other metric", lambda w: edit(w, "acc,none", "acc_norm,none"), "pico_choice"),
    ("wrong range", lambda w: edit(w, "max: 0.99", "max: 1.5"), "within [0, 1]"),
    ("wrong type", lambda w: edit(w, "max_trials: 16", "max_trials: many"), "max_trials"),
    ("shapes differ", other_shape, "has shape [16, 48]"),
    ("layer counts differ", other_depth, "must have equal layer counts"),
    ("vocabulary differs", other_words, "vocabular"),
    ("truncated checkpoint", truncated, "model.safetensors"),
    ("pickled checkpoint", pickled, "pickled weights"),
    (
        "granularity",
        lambda w: edit(w, "layer_granularity: 1", "layer_granularity: 3"),
        "must divide the 2 layers of the models, got 3; possible: 1, 2",
    ),
    ("empty task", empty_task, "pico_next"),
    ("folder in use", occupied, "choose another --output"),
    ("missing section", lambda w: edit(w, "strategy: lfs", "strategy: dis"), "no section 'dis'"),
    ("vllm", lambda w: edit(w, "device: cpu", "vllm: true"), "not available in this version"),
]


@pytest.mark.parametrize(
    ("spoil", "text"), [case[1:] for case in BAD_INPUT], ids=[case[0] for case in BAD_INPUT]
)
def test_bad_input_is_one_line_and_leaves_nothing(
    world: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None],
    text: str,
) -> None:
    spoil(world)
    before = sorted(path for path in world.rglob("*") if "cache" not in path.parts)
    words = ["--config", str(world / "lfs.yaml"), "--output", str(world / "run"), "--quiet"]
    assert run_command(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert text in error
    after = sorted(path for path in world.rglob("*") if "cache" not in path.parts)
    assert after == before


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--config", "lost.yaml"], "error: lost.yaml: no such file"),
        (["--confg", "x"], "error: No such option: --confg"),
        (["status", "nowhere"], "error: nowhere: not a run folder (no manifest.json)"),
        (["export", "nowhere", "out"], "error: nowhere: not a run folder"),
        (["merge", "lost.yaml", "out"], "error: lost.yaml: cannot be read: No such file"),
        (["recipe", "lost.json"], "error: lost.json: cannot be read"),
        (["frobnicate"], "error: No such command 'frobnicate'"),
        (["recipe", "x", "--format", "plam"], "did you mean 'plan'?"),
        (["recipe", "x", "--format", "mergekit"], "not available in this version"),
    ],
)
def test_wrong_usage(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(words) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("words", [["--json"], ["--set", "a=1"], ["--dry-run"], ["--quiet"]])
def test_options_belong_behind_the_command(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command([*words, "status", "nowhere"]) == 2
    assert f"{words[0]} goes behind the command 'status'" in capsys.readouterr().err


def test_errors_are_json_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["status", "nowhere", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["status"] == 2


def test_an_unforeseen_error_is_one_line_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*args: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("auto_merge.runs.store.RunStore.__init__", explode)
    assert run_command(["status", "nowhere"]) == 1
    assert capsys.readouterr().err == "error: ZeroDivisionError: oops (--debug shows where)\n"
    assert run_command(["status", "nowhere", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_exported_folders_are_not_overwritten(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = world / "out"
    out.mkdir()
    (out / "precious.txt").write_text("x")
    recipe = world / "recipe.yaml"
    recipe.write_text(
        "recipe: 1\nmodels: {left: models/left}\n"
        "slices: [{method: passthrough, sources: [{model: left, layers: [0, 2]}]}]\n"
    )
    assert run_command(["merge", str(recipe), str(out)]) == 2
    assert "out" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["precious.txt"]
    assert run_command(["merge", str(recipe), str(world / "new")]) == 0
    assert run_command(["merge", str(recipe), str(world / "new")]) == 2
    assert run_command(["merge", str(recipe), str(world / "new"), "--overwrite"]) == 0


def test_doctor_and_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["doctor", "--json"]) == 0
    names = [finding["name"] for finding in json.loads(capsys.readouterr().out)]
    assert {"torch", "devices", "memory", "merge kernels"} <= set(names)
    assert run_command(["schema"]) == 0
    assert "properties" in json.loads(capsys.readouterr().out)


def test_help_and_config_errors_import_nothing_heavy() -> None:
    code = (
        "import sys\nfrom auto_merge.cli import run_command\n"
        "run_command(['--help']); run_command(['--config', 'lost.yaml'])\n"
        "heavy = ('torch', 'transformers', 'smac', 'lm_eval', 'numpy', 'ConfigSpace')\n"
        "assert not [name for name in heavy if name in sys.modules]\n"
    )
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=REPOSITORY)
    assert time.monotonic() - started < 30, "a hang, not a slow machine"
