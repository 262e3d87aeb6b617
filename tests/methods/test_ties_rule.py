"""TIES against a direct transcription of the published rule, and its trimming rank."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from methods_support import DTYPES, FAST, SHAPES, Memory, merged, models, noise, published_ties

from auto_merge.methods.ties import Magnitudes, trim_rank


@FAST
@given(
    st.sampled_from(DTYPES),
    st.sampled_from(SHAPES),
    st.integers(1, 4),
    st.one_of(st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.7, 0.9, 1.0]), st.floats(0, 1)),
    st.floats(-2, 2),
    st.integers(0, 1000),
)
def test_equal_weights_follow_the_published_rule(dtype, shape, count, rho, scale, seed):
    sources, base = models(count, shape, dtype, seed)
    expected = published_ties(sources, base, rho, scale).to(dtype)
    result = merged("ties", sources, base, density=1.0 - rho, scale=scale)
    assert torch.equal(result, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [-1, 0, 1])
def test_many_ties_of_signs_follow_the_published_rule(dtype, bias):
    # Small integers cancel all the time, in sparse and in dense blocks.
    generator = torch.Generator().manual_seed(bias + 5)
    for levels in (2, 3, 40):
        base = torch.zeros(77, 101, dtype=dtype)
        values = [torch.randint(-levels, levels + 1, (77, 101), generator=generator) for _ in "abc"]
        sources = [(value + bias * (value == 2)).to(dtype) for value in values]
        for rho in (0.0, 0.4):
            result = merged("ties", sources, base, density=1 - rho)
            assert torch.equal(result, published_ties(sources, base, rho, 1.0).to(dtype))


def test_sources_that_cancel_everywhere_leave_the_base():
    source = noise((50, 50), 1)
    base = torch.zeros(50, 50)
    assert torch.equal(merged("ties", [source, -source], base), base)


def test_trim_rank_equals_the_published_one_through_the_density():
    grid = [i / steps for steps in (10, 100, 1000, 7, 3) for i in range(steps + 1)]
    generator = random.Random(3)
    sizes = [0, 1, 2, 3, 10, 64, 100, 576, 1000, 1536 * 576, 49152 * 576, 32000 * 5120]
    sizes += [generator.randrange(1, 10**8) for _ in range(60)]
    for rho in grid + [generator.random() for _ in range(200)]:
        for size in sizes:
            assert trim_rank(size, 1.0 - rho) == int(size * rho), (size, rho)


def test_trim_rank_reads_a_typed_density_as_the_decimal_it_is():
    # 1 - 0.7 is 0.30000000000000004; 0.3 was meant, as in 1 - 0.3.
    assert 1.0 - 0.7 != 0.3
    for density, rho in ((0.7, 0.3), (0.9, 0.1), (0.8, 0.2), (0.71, 0.29)):
        for size in (10, 100, 1000, 10**7):
            assert trim_rank(size, density) == int(size * rho)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_threshold_is_the_order_statistic(dtype):
    sources, base = models(1, (37, 41), dtype)
    ordered = (sources[0].float() - base.float()).abs().flatten().sort().values
    magnitudes = Magnitudes.of(sources[0], base)
    for rank in range(1, ordered.numel() + 1, 13):
        assert magnitudes.threshold(sources[0], base, rank) == ordered[rank - 1].item()


def test_memory_keeps_one_small_histogram_per_source():
    sources, base = models(3, (512, 600), torch.bfloat16)
    memo = Memory()
    for density in (0.9, 0.5, 0.5, 0.2):
        merged("ties", sources, base, memo=memo, density=density)
    assert memo.computed == [f"ties/magnitudes/{i}" for i in range(3)]
    for magnitudes in memo.values.values():
        held = (magnitudes.bins, magnitudes.ends, magnitudes.low)
        assert sum(tensor.nbytes for tensor in held) < 64 * 1024
        assert len(magnitudes.known) <= 3


def test_memory_of_thresholds_is_bounded():
    sources, base = models(1, (4096,))
    magnitudes = Magnitudes.of(sources[0], base)
    for rank in range(1, 1000, 3):
        magnitudes.threshold(sources[0], base, rank)
    assert len(magnitudes.known) <= 64


def test_whole_task_vectors_need_no_histogram():
    memo = Memory()
    sources, base = models(2, (64,))
    merged("ties", sources, base, memo=memo, density=1.0)
    merged("ties", sources, base, memo=memo, density=0.99)  # k = int(64 * 0.01) = 0
    assert memo.computed == []
