"""Sources whose vocabularies or embedding heights differ: what the merged rows are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from merge_recipes import opened, part, recipe
from pico import FAMILIES, VOCABULARY, read_tensors, write_tensors
from transformers import AutoModelForCausalLM
from vocabulary_models import (
    EMBEDDING,
    HEAD,
    METHODS,
    cut,
    ids_of,
    linear,
    logits,
    make_model,
    merge,
)

from auto_merge.checkpoints.checkpoint import Checkpoint, open_checkpoint
from auto_merge.merging.export import merged_tensors
from auto_merge.merging.live import LiveModel
from auto_merge.merging.plan import Plan, build_plan
from auto_merge.recipe.model import Recipe

N = len(VOCABULARY)
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        ],
    ),
]


def tensors(plan: Plan, checkpoints: dict[str, Checkpoint]) -> dict[str, torch.Tensor]:
    found = merged_tensors(plan, checkpoints)
    return {step.output: t.clone() for step, t in zip(plan.steps, found, strict=True)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """``a`` has <x> and <y>, ``b`` has <y>, <z> and <x> in another order."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "base": make_model(folder / "base"),
        "a": make_model(folder / "a", ["<x>", "<y>"], seed=1),
        "b": make_model(folder / "b", ["<y>", "<z>", "<x>"], seed=2),
        "padded": make_model(folder / "padded", rows=80, seed=3),
    }


@pytest.fixture(scope="module")
def checkpoints(models: dict[str, Path]) -> dict[str, Checkpoint]:
    return opened(models)


def test_added_tokens_come_after_the_donors_in_order_of_appearance(
    checkpoints: dict[str, Checkpoint],
) -> None:
    def added(given: Recipe, **arguments: Any) -> dict[str, int]:
        plan = build_plan(given, checkpoints, **arguments)
        assert plan.config["vocab_size"] == N + len(plan.added_tokens)
        assert plan.steps[0].shape[0] == N + len(plan.added_tokens)
        return {token.content: token.id for token in plan.added_tokens}

    assert added(linear(a=1, b=1)) == {"<x>": N, "<y>": N + 1, "<z>": N + 2}
    assert added(linear(b=1, a=1)) == {"<y>": N, "<z>": N + 1, "<x>": N + 2}
    ends = recipe(part("passthrough", ["base"], (0, 1)), part("passthrough", ["a"], (1, 2)))
    assert added(ends) == {"<x>": N, "<y>": N + 1}
    middle = recipe(*(part("passthrough", [r], (0, 1)) for r in ("base", "b", "base")))
    assert added(middle) == {}
    assert added(middle, token_sources=["a"]) == {"<x>": N, "<y>": N + 1}
    assert added(linear(b=1, a=1), token_sources=["a", "b"]) == added(linear(a=1, b=1))


@pytest.mark.parametrize("method", METHODS)
def test_common_rows_merge_as_ever_and_single_owners_rows_are_kept(
    models: dict[str, Path],
    checkpoints: dict[str, Checkpoint],
    tmp_path: Path,
    method: str,
) -> None:
    """Common rows are what the models without their added tokens give, bit for bit."""
    plain = opened({role: cut(models[role], tmp_path / role) for role in ("base", "a", "b")})
    given = merge(method, ["a", "b"])
    expected = tensors(build_plan(given, plain), plain)
    found = tensors(build_plan(given, checkpoints), checkpoints)
    ids = {t.content: t.id for t in build_plan(given, checkpoints).added_tokens}
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name][: len(tensor)], tensor), name
    for name in (EMBEDDING, HEAD):
        assert found[name].shape == (N + 3, 16)
        assert torch.equal(found[name][ids["<z>"]], checkpoints["b"].tensor(name)[N + 1])


def test_rows_of_tokens_that_several_have_follow_the_method(
    checkpoints: dict[str, Checkpoint],
) -> None:
    a, b = (checkpoints[role].tensor(EMBEDDING) for role in "ab")
    x = (a[N], b[N + 2])
    y = (a[N + 1], b[N])
    z = b[N + 1]
    rows = tensors(build_plan(linear(a=1, b=3), checkpoints), checkpoints)[EMBEDDING][N:]
    assert torch.allclose(rows[0], 0.25 * x[0] + 0.75 * x[1], atol=1e-6)
    assert torch.allclose(rows[1], 0.25 * y[0] + 0.75 * y[1], atol=1e-6)
    assert torch.equal(rows[2], z)
    # The base has none of them: it stands at the mean of those that have.
    weights = {"a": {"weight": 0.5}, "b": {"weight": 2.0}}
    arithmetic = recipe(part("task_arithmetic", weights, (0, 2)))
    rows = tensors(build_plan(arithmetic, checkpoints), checkpoints)[EMBEDDING][N:]
    mean = (x[0] + x[1]) / 2
    assert torch.allclose(rows[0], mean + 0.5 * (x[0] - mean) + 2 * (x[1] - mean), atol=1e-6)
    assert torch.equal(rows[2], z)


def test_a_model_that_lacks_a_token_contributes_nothing_to_its_row(
    checkpoints: dict[str, Checkpoint],
) -> None:
    """Whatever the weights of the others are."""
    for given in (linear(base=5, b=1, a=-3), linear(base=-2.5, b=3)):
        plan = build_plan(given, checkpoints)
        ids = {token.content: token.id for token in plan.added_tokens}
        row = tensors(plan, checkpoints)[EMBEDDING][ids["<z>"]]
        assert torch.equal(row, checkpoints["b"].tensor(EMBEDDING)[N + 1])


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("role", ["base", "a", "b", "padded"])
def test_single_models_keep_their_logits_bit_for_bit(tmp_path: Path, role: str, tied: bool) -> None:
    """Also beside tokens of models that take no part."""
    family = "llama_tied" if tied else "llama"
    added = {"base": [], "a": ["<x>", "<y>"], "b": ["<y>", "<z>", "<x>"], "padded": []}
    models = {
        name: make_model(
            tmp_path / name, more, seed=n, family=family, rows=80 if name == "padded" else None
        )
        for n, (name, more) in enumerate(added.items())
    }
    checkpoints = opened(models)
    own = ids_of(models[role])
    prompt = [*range(4, 30), *range(N, len(own))]
    source = AutoModelForCausalLM.from_pretrained(models[role])
    expected = logits(source, prompt)
    for zero in ({}, {"base": 0.0, "a": 0.0, "b": 0.0} if role != "padded" else {}):
        plan = build_plan(
            linear(**(zero | {role: 0.4})), checkpoints, token_sources=["base", "a", "b", "padded"]
        )
        ids = ids_of(models["base"]) | {t.content: t.id for t in plan.added_tokens}
        names = {number: token for token, number in own.items()}
        live = LiveModel(checkpoints).materialise(plan)
        found = logits(live, [ids[names[number]] for number in prompt])
        order = [ids[token] for token in own]
        assert torch.equal(found[:, order], expected[:, list(own.values())])
        # Tokens that the model does not know get the mean logit, so they are never chosen.
        for token, number in ids.items():
            if token not in own:
                mean = expected[:, list(own.values())].mean(-1)
                assert torch.allclose(found[:, number], mean, atol=1e-5)


def test_one_hot_weights_are_one_merge(checkpoints: dict[str, Checkpoint]) -> None:
    alone = build_plan(linear(a=1), checkpoints, token_sources=["a", "b"])
    assert build_plan(linear(b=0, a=2), checkpoints, token_sources=["a", "b"]) == alone
    nothing = merge("ties", ["a", "b"], scale=0.0)
    base = build_plan(linear(base=1), checkpoints, token_sources=["a", "b"])
    assert build_plan(nothing, checkpoints) == base


def test_tokens_of_the_other_end_keep_their_rows(checkpoints: dict[str, Checkpoint]) -> None:
    """The first slice's model does not know <z>, the last one's does."""
    stack = recipe(part("passthrough", ["a"], (0, 1)), part("passthrough", ["b"], (1, 2)))
    plan = build_plan(stack, checkpoints)
    found = tensors(plan, checkpoints)
    a, b = checkpoints["a"], checkpoints["b"]
    assert [token.content for token in plan.added_tokens] == ["<x>", "<y>", "<z>"]
    assert torch.equal(found[EMBEDDING][: N + 2], a.tensor(EMBEDDING))
    assert torch.equal(found[EMBEDDING][N + 2], b.tensor(EMBEDDING)[N + 1])
    assert torch.equal(found[HEAD][:N], b.tensor(HEAD)[:N])
    assert torch.equal(found[HEAD][N:], b.tensor(HEAD)[[N + 2, N, N + 1]])
    assert torch.equal(found["model.norm.weight"], b.tensor("model.norm.weight"))


def test_one_tokenizer_for_all_candidates_without_a_base(
    checkpoints: dict[str, Checkpoint],
) -> None:
    """The first source changes from candidate to candidate, the donor does not."""
    fixed: dict[str, Any] = {"donor": "a", "token_sources": ["a", "b"]}
    given = [part("linear", roles, (0, 2)) for roles in (["a"], ["b"], ["b", "a"], ["base"])]
    plans = [build_plan(recipe(each, base=None), checkpoints, **fixed) for each in given]
    assert {plan.donor for plan in plans} == {"a"}
    assert {plan.config["vocab_size"] for plan in plans} == {N + 3}
    assert {plan.added_tokens[0].content for plan in plans} == {"<z>"}
    a, b = (checkpoints[role].tensor(EMBEDDING) for role in "ab")
    rows = [tensors(plan, checkpoints)[EMBEDDING] for plan in plans]
    assert torch.equal(rows[0][: N + 2], a)
    assert torch.equal(rows[1][N:], b[[N + 2, N, N + 1]])
    assert build_plan(recipe(given[0], base=None), checkpoints, donor="a") == build_plan(
        recipe(given[0], base=None), checkpoints
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("donor_rows", "other_rows"), [(64, 80), (80, 64), (72, 80)])
def test_padded_heights(tmp_path: Path, method: str, donor_rows: int, other_rows: int) -> None:
    models = {"base": make_model(tmp_path / "base", rows=donor_rows)}
    for number, role in enumerate("ab", start=1):
        models[role] = make_model(tmp_path / role, rows=other_rows, seed=number)
    plain = opened({role: cut(models[role], tmp_path / f"{role}_cut") for role in models})
    checkpoints = opened(models)
    given = merge(method, ["a", "b"])
    plan = build_plan(given, checkpoints)
    assert plan.config["vocab_size"] == donor_rows
    assert plan.added_tokens == ()
    found, expected = tensors(plan, checkpoints), tensors(build_plan(given, plain), plain)
    for name in (EMBEDDING, HEAD):
        assert torch.equal(found[name][:N], expected[name])
        assert torch.equal(found[name][N:], checkpoints["base"].tensor(name)[N:])
    logits(LiveModel(checkpoints).materialise(plan))


def test_added_tokens_fill_the_donors_padding(tmp_path: Path) -> None:
    models = {
        "base": make_model(tmp_path / "base", rows=80),
        "a": make_model(tmp_path / "a", ["<x>"], rows=96, seed=1),
    }
    checkpoints = opened(models)
    plan = build_plan(linear(a=1, base=1), checkpoints)
    assert [token.id for token in plan.added_tokens] == [N]
    assert plan.config["vocab_size"] == 80
    found = tensors(plan, checkpoints)[EMBEDDING]
    assert torch.equal(found[N], checkpoints["a"].tensor(EMBEDDING)[N])
    assert torch.equal(found[N + 1 :], checkpoints["base"].tensor(EMBEDDING)[N + 1 :])


def test_tokens_without_rows_do_not_count(tmp_path: Path) -> None:
    """A padding token that was added to the tokenizer only, as in many fine-tuned models."""
    models = {
        "base": make_model(tmp_path / "base"),
        "a": make_model(tmp_path / "a", ["<PAD>"], rows=N, seed=1),
        "b": make_model(tmp_path / "b", ["<PAD>"], seed=2),
    }
    checkpoints = opened(models)
    plan = build_plan(linear(a=1, base=1), checkpoints)
    assert plan.added_tokens == ()
    assert all(not step.blocks for step in plan.steps)
    rows = tensors(build_plan(linear(a=1, b=1), checkpoints), checkpoints)[EMBEDDING]
    assert torch.equal(rows[N], checkpoints["b"].tensor(EMBEDDING)[N])
    # The donor's own token without a row gets the row of a model that has one.
    donor = build_plan(recipe(part("linear", ["a", "b"], (0, 2)), base="a"), checkpoints)
    assert (donor.added_tokens, donor.config["vocab_size"]) == ((), N + 1)
    assert torch.equal(
        tensors(donor, checkpoints)[EMBEDDING][N], checkpoints["b"].tensor(EMBEDDING)[N]
    )


@pytest.mark.parametrize(
    ("method", "parameters"),
    [("passthrough", {}), ("linear", {}), ("task_arithmetic", {}), ("ties", {"density": 1.0})],
)
def test_special_tokens_in_another_order_are_a_permutation(
    tmp_path: Path, method: str, parameters: dict[str, float]
) -> None:
    turned = (*VOCABULARY[3::-1], *VOCABULARY[4:])
    order = [3, 2, 1, 0, *range(4, N)]
    models = {
        "base": make_model(tmp_path / "base"),
        "a": make_model(tmp_path / "a", seed=1, vocabulary=turned),
        "b": make_model(tmp_path / "b", seed=2),
    }
    checkpoints = opened(models)
    given = merge(method, ["b", "a"], **parameters)
    plan = build_plan(given, checkpoints)
    assert plan.added_tokens == ()
    found = tensors(plan, checkpoints)
    sorted_a = open_checkpoint(_reordered(models["a"], tmp_path / "sorted", order))
    straight = {**checkpoints, "a": sorted_a}
    expected = tensors(build_plan(given, straight), straight)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def _reordered(folder: Path, out: Path, order: list[int]) -> Path:
    make_model(out)
    weights = read_tensors(folder)
    for name in (EMBEDDING, HEAD):
        weights[name] = weights[name][order].contiguous()
    write_tensors(out, weights)
    return out


def test_nothing_changes_where_nothing_is_aligned(
    models: dict[str, Path], checkpoints: dict[str, Checkpoint]
) -> None:
    plan = build_plan(linear(a=1), checkpoints)
    assert all(step.is_copy and not step.blocks for step in plan.steps)
    live = LiveModel(checkpoints)
    live.materialise(plan)
    assert live.last is not None
    assert (live.last.num_aliased, live.last.bytes_written) == (len(plan.steps), 0)
    aligned = build_plan(linear(a=1, b=1), checkpoints)
    assert {step.output for step in aligned.steps if step.blocks} == {EMBEDDING, HEAD}
    # Common rows are read where they lie.
    first = aligned.steps[0].blocks[0]
    assert first.rows == ((0, N),)
    assert all(rows.parts[0][1] == ((0, N),) for rows in first.inputs)


def test_digests_tell_tokens_of_other_names_apart(
    checkpoints: dict[str, Checkpoint], tmp_path: Path
) -> None:
    """The weights are the same, the tokenizer is not."""
    other = opened({"c": make_model(tmp_path / "c", ["<p>", "<q>"], seed=1)})
    plans = [
        build_plan(linear(base=1), {**checkpoints, **other}, token_sources=[role]) for role in "ac"
    ]
    assert plans[0].steps == plans[1].steps
    assert plans[0].digest != plans[1].digest


def test_digests_tell_alignments_apart(checkpoints: dict[str, Checkpoint]) -> None:
    plans = [
        build_plan(linear(a=1), checkpoints),
        build_plan(linear(a=1), checkpoints, token_sources=["b"]),
        build_plan(linear(a=1), checkpoints, token_sources=["a", "b"]),
        build_plan(linear(a=1, b=1), checkpoints),
        build_plan(linear(b=1, a=1), checkpoints),
    ]
    assert len({plan.digest for plan in plans}) == len(plans)
    layers = [[s.digest for s in plan.steps if "layers" in s.output] for plan in plans]
    assert layers[0] == layers[1] == layers[2]
    assert layers[3] == layers[4]


@pytest.mark.parametrize("device", DEVICES)
def test_a_live_model_has_the_rows_of_the_export(
    checkpoints: dict[str, Checkpoint], device: str
) -> None:
    live = LiveModel(checkpoints, device=device)
    for method in METHODS:
        plan = build_plan(merge(method, ["a", "b"]), checkpoints, token_sources=["a", "b"])
        weights = live.materialise(plan).state_dict()
        for name, tensor in tensors(plan, checkpoints).items():
            assert torch.allclose(weights[name].cpu(), tensor, rtol=1e-6, atol=1e-7), name


def test_one_resident_model_changes_its_height(checkpoints: dict[str, Checkpoint]) -> None:
    live = LiveModel(checkpoints)
    for given in (linear(a=1, b=1), linear(base=1), linear(b=1, a=1), linear(a=1, padded=1)):
        plan = build_plan(given, checkpoints)
        fresh = logits(LiveModel(checkpoints).materialise(plan))
        assert torch.equal(logits(live.materialise(plan)), fresh)


def test_equal_matrices_need_no_tokenizer(models: dict[str, Path], tmp_path: Path) -> None:
    bare = {role: cut(models[role], tmp_path / role) for role in ("base", "a")}
    (bare["a"] / "tokenizer.json").unlink()
    assert build_plan(linear(a=1, base=1), opened(bare)).added_tokens == ()


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"llama_tied"}))
def test_every_family_has_its_rows_aligned(tmp_path: Path, family: str) -> None:
    models = {
        "base": make_model(tmp_path / "base", family=family, layers=1),
        "a": make_model(tmp_path / "a", ["<x>"], family=family, layers=1, seed=1),
    }
    checkpoints = opened(models)
    plan = build_plan(recipe(part("linear", ["base", "a"], (0, 1))), checkpoints)
    live = LiveModel(checkpoints).materialise(plan)
    assert logits(live, [5, N, 6]).shape == (3, N + 1)
    rowed = {step.output for step in plan.steps if step.blocks}
    assert rowed == {s.output for s in plan.steps if s.shape[0] == N + 1}
