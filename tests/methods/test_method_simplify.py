"""Equal merges get equal calls, and a simplified call merges to the same tensor."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from methods_support import FAST, Memory, carry_out, merged_call, noise, simplified

from auto_merge.errors import RecipeError
from auto_merge.methods import METHODS, Call

TENSORS = {key: noise((6, 7), seed) for seed, key in enumerate("abcd")}
COPY_B = Call("passthrough", ("b",), None, {"scale": 1.0})
COPY_BASE = Call("passthrough", ("base",), None, {"scale": 1.0})


def test_linear():
    thirds = simplified("linear", "ab", "base", weight=(2.0, 4.0))
    assert thirds == simplified("linear", "ba", None, weight=(2.0, 1.0))
    assert thirds.arguments["weight"] == (0.333333333333, 0.666666666667)
    assert thirds.base is None
    assert simplified("linear", "abc", None, weight=(0.0, 5.0, 0.0)) == COPY_B
    assert simplified("linear", "bbb", None, weight=(1.0, 2.0, 3.0)) == COPY_B
    assert simplified("linear", "abca", None, weight=(1.0, 1.0, 0.0, -1.0)) == COPY_B
    doubled = simplified("linear", "aba", None, weight=(1.0, 4.0, 1.0))
    assert doubled == thirds
    with pytest.raises(RecipeError, match="weights sum to zero"):
        simplified("linear", "ab", None, weight=(3.0, -3.0))


def test_task_arithmetic():
    call = simplified("task_arithmetic", "cab", "base", weight=(1.0, 2.0, 0.0), scale=0.3)
    assert call == Call("task_arithmetic", ("a", "c"), "base", {"weight": (0.6, 0.3), "scale": 1.0})
    assert simplified("task_arithmetic", "b", "base", weight=(4.0,), scale=0.25) == COPY_B
    assert simplified("task_arithmetic", ["base"], "base", weight=(4.0,), scale=1.0) == COPY_BASE
    assert simplified("task_arithmetic", "ab", "base", weight=(1.0, 1.0), scale=0.0) == COPY_BASE
    assert (
        simplified("task_arithmetic", "aba", "base", weight=(3.0, 1.0, -3.0), scale=1.0) == COPY_B
    )


def test_ties():
    call = simplified("ties", "ba", "base", weight=(2.0, 2.0), density=0.4, scale=0.5)
    kept = {"weight": (1.0, 1.0), "density": 0.4, "scale": 0.5}
    assert call == Call("ties", ("a", "b"), "base", kept)
    assert simplified("ties", "ab", "base", weight=(1.0, 1.0), density=0.4, scale=0.0) == COPY_BASE
    assert simplified("ties", "ab", "base", weight=(0.0, 0.0), density=0.4, scale=1.0) == COPY_BASE
    assert simplified("ties", ["base"], "base", weight=(1.0,), density=0.4, scale=1.0) == COPY_BASE
    assert simplified("ties", "b", "base", weight=(7.0,), density=1.0, scale=1.0) == COPY_B
    assert simplified("ties", "b", "base", weight=(7.0,), density=1.0, scale=0.5) == simplified(
        "task_arithmetic", "b", "base", weight=(0.5,), scale=1.0
    )
    assert simplified("ties", "b", "base", weight=(7.0,), density=0.9, scale=1.0).method == "ties"


def test_slerp():
    assert simplified("slerp", "ba", None, t=0.25) == Call("slerp", ("a", "b"), None, {"t": 0.75})
    assert simplified("slerp", "ba", None, t=0.1) == simplified("slerp", "ab", None, t=0.9)
    assert simplified("slerp", "ab", None, t=1.0) == COPY_B
    assert simplified("slerp", "ba", None, t=0.0) == COPY_B
    assert simplified("slerp", "bb", None, t=0.4) == COPY_B


def test_passthrough():
    assert simplified("passthrough", "b", "base", scale=1.0) == COPY_B
    assert simplified("passthrough", "b", None, scale=0.1 * 3).arguments == {"scale": 0.3}


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """Calls with repeated sources, zero weights and the base among the sources."""
    method = draw(st.sampled_from(["linear", "task_arithmetic", "ties", "slerp", "passthrough"]))
    count = {"slerp": 2, "passthrough": 1}.get(method) or draw(st.integers(1, 5))
    sources = tuple(draw(st.sampled_from("abcd")) for _ in range(count))
    arguments: dict[str, float | tuple[float, ...]] = {}
    for parameter in METHODS.get(method).parameters:
        low, high = max(parameter.low, -3.0), min(parameter.high, 3.0)
        if parameter.name == "weight" and method == "linear":
            low = 0.1  # away from sums of zero
        value = st.one_of(st.floats(low, high), st.sampled_from([0.5, 1.0, max(low, 0.0)]))
        if parameter.per_source:
            arguments[parameter.name] = tuple(draw(value) for _ in range(count))
        else:
            arguments[parameter.name] = draw(value)
    return Call(method, sources, "d" if METHODS.get(method).needs_base else None, arguments)


@FAST
@given(calls())
def test_the_simplified_call_merges_to_the_same(call):
    simple = METHODS.get(call.method).simplify(call)
    torch.testing.assert_close(
        merged_call(simple, TENSORS), merged_call(call, TENSORS), rtol=2e-4, atol=2e-4
    )


@FAST
@given(calls())
def test_simplifying_twice_changes_nothing(call):
    simple = METHODS.get(call.method).simplify(call)
    assert METHODS.get(simple.method).simplify(simple) == simple


@FAST
@given(calls(), st.randoms(use_true_random=False))
def test_order_of_sources_changes_nothing(call, random):
    if call.method == "slerp":
        t = call.arguments["t"]
        turned = Call("slerp", call.sources[::-1], None, {"t": 1.0 - t})
    else:
        order = list(range(len(call.sources)))
        random.shuffle(order)
        arguments = {
            name: tuple(value[i] for i in order) if isinstance(value, tuple) else value
            for name, value in call.arguments.items()
        }
        turned = Call(call.method, tuple(call.sources[i] for i in order), call.base, arguments)
    first, second = (METHODS.get(c.method).simplify(c) for c in (call, turned))
    assert first == second
    assert torch.equal(merged_call(first, TENSORS), merged_call(second, TENSORS))


@FAST
@given(st.lists(st.floats(0.01, 10), min_size=2, max_size=4), st.floats(0.01, 100))
def test_ratios_alone_decide_the_linear_call(weights, factor):
    sources = "abcd"[: len(weights)]
    first = simplified("linear", sources, None, weight=tuple(weights))
    second = simplified("linear", sources, None, weight=tuple(w * factor for w in weights))
    for left, right in itertools.zip_longest(first.arguments["weight"], second.arguments["weight"]):
        assert left == pytest.approx(right, rel=1e-11)


def test_memo_is_optional_knowledge():
    """A fresh memo and a used one give the same bits."""
    memo = Memory()
    arguments = {"weight": (1.0, 0.5), "density": 0.6, "scale": 0.7}
    results = []
    for used in (memo, memo, Memory()):
        out = torch.empty(6, 7)
        sources = [TENSORS["a"], TENSORS["b"]]
        carry_out(METHODS.get("ties").merge(sources, TENSORS["d"], arguments, out, used))
        results.append(out)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
