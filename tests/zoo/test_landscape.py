"""The landscape measurement on models small enough to work out by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from auto_merge.zoo.landscape import Blend, Scales, climb, group_of, main


class Toy(torch.nn.Module):
    """Two layers with one number per module, under the tensor names of a Llama model."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_hidden_layers=2)
        for name in names():
            self.register_parameter(name.replace(".", "/"), torch.nn.Parameter(torch.zeros(1)))

    def named_parameters(self, *_: object, **__: object):  # type: ignore[no-untyped-def]
        for name, parameter in super().named_parameters():
            yield name.replace("/", "."), parameter


def names() -> list[str]:
    modules = ("self_attn.q_proj.weight", "mlp.up_proj.weight", "input_layernorm.weight")
    inner = [f"model.layers.{layer}.{module}" for layer in range(2) for module in modules]
    return ["model.embed_tokens.weight", *inner, "model.norm.weight", "lm_head.weight"]


def test_groups_are_runs_of_layers_times_modules() -> None:
    assert [group_of(name, 2, 2) for name in names()] == [2, 0, 1, 2, 3, 4, 5, 5, 5]
    assert [group_of(name, 2, 1) for name in names()] == [2, 0, 1, 2, 0, 1, 2, 2, 2]


def test_blend_adds_scaled_deltas_to_the_base() -> None:
    base = {name: torch.tensor([1.0]) for name in names()}
    sources = [{name: torch.tensor([value]) for name in names()} for value in (3.0, 0.0)]
    blend = Blend(Toy(), base, sources)
    scales = np.zeros(blend.shape)
    assert all(value.item() == 1 for _, value in blend.apply(scales).named_parameters())
    scales[:, 1] = [0.5, 0.25]  # first run, mlp: 1 + 0.5 * 2 - 0.25 * 1
    merged = dict(blend.apply(scales).named_parameters())
    assert merged["model.layers.0.mlp.up_proj.weight"].item() == 1.75
    assert sum(value.item() != 1 for value in merged.values()) == 1


@pytest.mark.parametrize("layerwise", [False, True])
def test_climb_approaches_a_known_optimum(layerwise: bool) -> None:
    best = np.array([[0.7] * 3, [0.2] * 3])
    calls = []

    def value(scales: Scales) -> float:
        calls.append(scales)
        return -float(((scales - best) ** 2).sum())

    found = climb(value, best.shape, layerwise, 150, np.random.default_rng(0))
    assert len(calls) == 150
    assert np.abs(found - best).max() < 0.15
    assert np.allclose(calls[0], [[1] * 3, [0] * 3])


def test_command_prints_a_row_per_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--documents", "5", "--heldout", "5", "--evaluations", "2", "--seeds", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("base")
    assert lines[2].startswith("reverse")
    assert lines[-1].startswith("per source, layers, module #0")
