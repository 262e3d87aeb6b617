from __future__ import annotations

from dataclasses import dataclass, field

import torch

from auto_merge.merging.memo import MemoStore
from auto_merge.methods.base import Call


@dataclass
class Summary:
    values: torch.Tensor
    known: dict[int, torch.Tensor] = field(default_factory=dict)


def call(*sources: str, method: str = "ties", scale: float = 1.0) -> Call:
    return Call(method, sources, "base", {"scale": scale})


def test_values_are_computed_once_per_inputs_whatever_the_parameters() -> None:
    store = MemoStore(1 << 20)
    computed = []

    def compute() -> int:
        computed.append(1)
        return len(computed)

    assert store.of(call("a"))("x", compute) == 1
    assert store.of(call("a", scale=0.5))("x", compute) == 1
    assert store.of(call("a"))("y", compute) == 2
    assert store.of(call("a", "b"))("x", compute) == 3
    assert store.of(call("a", method="slerp"))("x", compute) == 4


def test_the_least_recently_used_go_first() -> None:
    store = MemoStore(limit=3000)
    for name in "abc":
        store.of(call(name))("x", lambda: torch.zeros(200))
        store.settle()
    assert store.nbytes <= 3000
    store.of(call("a"))("x", lambda: torch.ones(200))
    store.of(call("d"))("x", lambda: torch.zeros(200))
    store.settle()
    assert store.nbytes <= 3000
    assert int(store.of(call("a"))("x", lambda: torch.ones(200)).sum()) == 0  # kept
    assert int(store.of(call("b"))("x", lambda: torch.ones(200)).sum()) == 200  # dropped


def test_growth_after_storing_is_noticed() -> None:
    store = MemoStore(limit=10_000)
    summary = store.of(call("a"))("x", lambda: Summary(torch.zeros(100)))
    store.settle()
    before = store.nbytes
    summary.known[1] = torch.zeros(1000)
    store.settle()
    assert store.nbytes - before >= 4000
    summary.known[2] = [torch.zeros(2000)]
    store.settle()
    assert store.nbytes == 0
