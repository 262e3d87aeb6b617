"""Properties that every merge method has, on generated inputs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from methods_support import DTYPES, FAST, SHAPES, merged, models

ALL = ("linear", "task_arithmetic", "ties", "slerp", "passthrough")
COUNTS = {"slerp": 2, "passthrough": 1}
dtypes = st.sampled_from(DTYPES)
shapes = st.sampled_from(SHAPES)
seeds = st.integers(0, 10_000)


def rounding(dtype: torch.dtype) -> dict[str, float]:
    """Tolerance of two float32 roundings, or one step of a 16-bit type."""
    return {
        torch.float32: {"rtol": 1e-5, "atol": 1e-5},
        torch.bfloat16: {"rtol": 2**-7, "atol": 1e-5},
        torch.float16: {"rtol": 2**-10, "atol": 1e-5},
    }[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ALL)
def test_shape_dtype_and_finiteness_on_degenerate_tensors(method, dtype):
    for shape in SHAPES:
        ones = torch.ones(shape, dtype=dtype)
        for values in ((0, 0, 0), (1, 1, 1), (1, 2, -3), (0, 1, 0)):  # zero, constant, collinear
            sources = [value * ones for value in values][: COUNTS.get(method, 3)]
            result = merged(method, sources, ones)
            assert result.shape == ones.shape
            assert result.dtype == dtype
            assert result.isfinite().all()


@FAST
@given(dtypes, shapes, seeds, st.integers(0, 2), st.floats(0.01, 100))
def test_one_hot_returns_the_source(dtype, shape, seed, hot, size):
    sources, base = models(3, shape, dtype, seed)
    weight = tuple(size if i == hot else 0.0 for i in range(3))
    assert torch.equal(merged("linear", sources, None, weight=weight), sources[hot])
    one = tuple(1.0 if i == hot else 0.0 for i in range(3))
    assert torch.equal(merged("task_arithmetic", sources, base, weight=one), sources[hot])
    torch.testing.assert_close(
        merged("ties", sources, base, weight=weight), sources[hot], **rounding(dtype)
    )


@FAST
@given(dtypes, shapes, seeds)
def test_scale_zero_returns_the_base(dtype, shape, seed):
    sources, base = models(3, shape, dtype, seed)
    for method in ("task_arithmetic", "ties"):
        assert torch.equal(merged(method, sources, base, scale=0.0), base)
        assert torch.equal(merged(method, sources, base, weight=(0.0, 0.0, 0.0)), base)


@FAST
@given(dtypes, shapes, seeds, st.floats(-2, 2))
def test_ties_of_one_whole_source_is_task_arithmetic(dtype, shape, seed, scale):
    sources, base = models(1, shape, dtype, seed)
    torch.testing.assert_close(
        merged("ties", sources, base, scale=scale),
        merged("task_arithmetic", sources, base, scale=scale),
        **rounding(dtype),
    )


@FAST
@given(dtypes, shapes, seeds)
def test_slerp_ends_are_the_sources(dtype, shape, seed):
    sources, _ = models(2, shape, dtype, seed)
    assert torch.equal(merged("slerp", sources, None, t=0.0), sources[0])
    assert torch.equal(merged("slerp", sources, None, t=1.0), sources[1])


@FAST
@given(dtypes, shapes, seeds, st.floats(0, 1))
def test_slerp_mirrored(dtype, shape, seed, t):
    sources, _ = models(2, shape, dtype, seed)
    torch.testing.assert_close(
        merged("slerp", sources, None, t=t),
        merged("slerp", sources[::-1], None, t=1 - t),
        **rounding(dtype),
    )


@FAST
@given(
    dtypes, shapes, seeds, st.integers(-3, 3), st.lists(st.floats(0.1, 9), min_size=3, max_size=3)
)
def test_ratios_alone_matter(dtype, shape, seed, power, weights):
    sources, base = models(3, shape, dtype, seed)
    scaled = tuple(weight * 2.0**power for weight in weights)
    for method in ("linear", "ties"):
        first = merged(method, sources, base, weight=tuple(weights))
        assert torch.equal(first, merged(method, sources, base, weight=scaled))


@FAST
@given(seeds, st.sampled_from(["linear", "task_arithmetic"]), st.integers(1, 2047))
def test_parts_of_a_tensor_give_the_parts_of_the_result(seed, method, cut):
    """Elementwise results do not depend on where a tensor is cut."""
    sources, base = models(3, (2048,), torch.bfloat16, seed)
    weight = (0.3, 0.4, 0.2)
    whole = merged(method, sources, base, weight=weight)
    part = merged(method, [s[cut:].clone() for s in sources], base[cut:].clone(), weight=weight)
    assert torch.equal(whole[cut:], part)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("method", ALL)
def test_damaged_sources_show_in_the_result(method, value):
    sources, base = models(COUNTS.get(method, 3), (40, 40), torch.float32)
    sources[0].view(-1)[123] = value
    arguments = {"density": 0.3} if method == "ties" else {}
    result = merged(method, sources, base, **arguments)
    assert not result.view(-1)[123].isfinite()
