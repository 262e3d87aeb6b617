"""Native and torch kernels give the same bits, whatever the dtypes, chunks and threads."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterator

import pytest
import torch
from methods_support import DTYPES, SHAPES, models, noise

from auto_merge.methods import fallback, kernels, native

MIXES = [*((dtype,) * 3 for dtype in DTYPES), (torch.bfloat16, torch.float32, torch.float16)]
WEIGHTS = [kernels.float32(weight) for weight in (0.3, -0.45, 1.15)]
POSITIVE = [kernels.float32(weight) for weight in (0.3, 0.45, 1.0)]
BIG = (700, 411)  # several chunks and threads, no multiple of any of them


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def inputs(mix: tuple[torch.dtype, ...], shape: tuple[int, ...]):
    sources, base = models(len(mix), shape)
    typed = [source.to(dtype).view(-1) for source, dtype in zip(sources, mix, strict=True)]
    return typed, base.to(mix[0]).view(-1)


def everything(module, sources, base, out_dtype):
    """Results of every kernel of one implementation."""
    outs = [torch.empty_like(base, dtype=out_dtype) for _ in range(4)]
    invalid = module.run(
        [
            kernels.weighted_sum(sources, WEIGHTS, outs[0]),
            kernels.weighted_delta_sum(sources, base, WEIGHTS, outs[1]),
            kernels.ties(sources, base, POSITIVE, [0.05, 0.1, 0.02], 0.7, outs[2]),
            kernels.ties(sources, base, [1.0, 1.0, 1.0], [0.0, 0.0, 0.0], 1.0, outs[3]),
        ]
    )
    counts, low = module.delta_histogram(sources[0], base)
    return [*outs, *invalid, counts, torch.where(counts > 0, low, 0)]


def total(module, sources, weights, out):
    module.run([kernels.weighted_sum(sources, weights, out)])


@pytest.mark.usefixtures("kernels_built")
@pytest.mark.parametrize("mix", MIXES, ids=str)
def test_native_equals_torch_bit_for_bit(mix):
    for shape, out_dtype in itertools.product((*SHAPES, BIG), DTYPES):
        sources, base = inputs(mix, shape)
        pairs = zip(
            everything(native, sources, base, out_dtype),
            everything(fallback, sources, base, out_dtype),
            strict=True,
        )
        for ours, theirs in pairs:
            assert torch.equal(ours, theirs)


@pytest.mark.usefixtures("kernels_built")
def test_native_conversions_cover_every_sixteen_bit_number():
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    for dtype in (torch.bfloat16, torch.float16):
        numbers = patterns.view(dtype)
        wide = torch.empty(2**16)
        total(native, [numbers], [1.0], wide)
        assert torch.equal(wide.nan_to_num(1.5), numbers.float().nan_to_num(1.5))
        # Back again, and at the midpoints and their neighbours, where rounding decides.
        steps = wide[wide.isfinite()].sort().values
        middle = (steps[1:].double() + steps[:-1].double()).div(2).float()
        up, down = (middle.nextafter(torch.tensor(s * torch.inf)) for s in (1, -1))
        for values in (wide, middle, up, down, wide * 1.5):
            narrow = torch.empty(values.numel(), dtype=dtype)
            total(native, [values.contiguous()], [1.0], narrow)
            expected = values.to(dtype)
            assert torch.equal(narrow.isnan(), expected.isnan())
            same = narrow.view(torch.int16) == expected.view(torch.int16)
            assert same[~expected.isnan()].all()


@pytest.mark.parametrize("module", [native, fallback], ids=["native", "torch"])
def test_threads_do_not_change_a_bit(module, threads, request):
    if module is native:
        request.getfixturevalue("kernels_built")
    # Torch under several threads is slow on a busy machine: just above one chunk has to do there.
    shape = (300, 441) if module is fallback else BIG
    sources, base = inputs((torch.bfloat16,) * 3, shape)
    results = []
    for count in (1, 2) if module is fallback else (1, 2, 3, 5):
        torch.set_num_threads(count)
        results.append(everything(module, sources, base, torch.bfloat16))
        results[-1].append(torch.tensor(module.dot_products(sources[0], base)))
    for other in results[1:]:
        assert all(torch.equal(*pair) for pair in zip(results[0], other, strict=True))


@pytest.mark.usefixtures("kernels_built")
@pytest.mark.parametrize("large", [0, 100_000, 10**9])
def test_works_that_run_together_give_what_each_gives_alone(large, threads, monkeypatch):
    def works():
        made = []
        for shape in ((3, 5), (0, 4), (300, 441), (1025,), BIG, (7,)):
            sources, base = inputs((torch.bfloat16,) * 3, shape)
            outs = [torch.empty_like(base) for _ in range(3)]
            made.append(kernels.weighted_sum(sources, WEIGHTS, outs[0]))
            made.append(kernels.weighted_delta_sum(sources, base, WEIGHTS, outs[1]))
            made.append(kernels.ties(sources, base, POSITIVE, [0.05, 0.1, 0.02], 0.7, outs[2]))
        return made

    alone = works()
    for work in alone:
        kernels.run([work])
    monkeypatch.setattr(native, "_LARGE", large)
    for count in (1, 3):
        torch.set_num_threads(count)
        together = works()
        assert [int(count) for count in kernels.run(together)] == [0] * len(together)
        pairs = zip(alone, together, strict=True)
        assert all(torch.equal(one.out, other.out) for one, other in pairs)


@pytest.mark.parametrize("module", [native, fallback], ids=["native", "torch"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity_are_counted(module, dtype, request):
    if module is native:
        request.getfixturevalue("kernels_built")
    (source,), base = inputs((dtype,), (5000,))
    for place, value in ((0, float("nan")), (1023, float("inf")), (1024, -float("inf"))):
        source[place] = value
    source[4999] = torch.finfo(dtype).max
    out = torch.empty_like(base)
    works = [
        kernels.weighted_sum([source], [1.0], out),
        kernels.weighted_delta_sum([source], base, [1.0], torch.empty_like(base)),
        kernels.ties([source], base, [1.0], [0.0], 1.0, torch.empty_like(base)),
    ]
    assert [int(count) for count in module.run(works)[:1]] == [3]
    assert [int(count) for count in module.run(works)[1:]] == [
        int((~work.out.isfinite()).sum()) for work in works[1:]
    ]
    assert int(kernels.count_invalid(source)) == 3


@pytest.mark.usefixtures("kernels_built")
@pytest.mark.parametrize("dtype", DTYPES)
def test_selected_deltas_are_equal(dtype):
    (source,), base = inputs((dtype,), (9000,))
    counts, _ = fallback.delta_histogram(source, base)
    used = counts.nonzero().view(-1).tolist()
    for place in used[:: max(1, len(used) // 15)]:
        for rank in {1, int(counts[place]) // 2 + 1, int(counts[place])}:
            chosen = native.select_delta(source, base, place, rank)
            assert chosen == fallback.select_delta(source, base, place, rank)


@pytest.mark.usefixtures("kernels_built")
@pytest.mark.parametrize("dtype", DTYPES)
def test_dot_products_agree(dtype):
    first, second = noise((30_001,), 1, dtype), noise((30_001,), 2, dtype)
    exact = (
        (first.double() ** 2).sum().item(),
        (second.double() ** 2).sum().item(),
        (first.double() * second.double()).sum().item(),
    )
    for module in (native, fallback):
        assert module.dot_products(first, second) == pytest.approx(exact, rel=1e-12, abs=1e-9)


def test_other_dtypes_take_the_torch_kernels():
    source = noise((100,), 3, torch.float64)
    out = torch.empty(100, dtype=torch.float64)
    total(kernels, [source], [0.5], out)
    assert torch.equal(out, (source.float() * 0.5).double())


def test_parameters_of_a_live_model_can_be_written():
    out = torch.nn.Parameter(torch.zeros(3))
    total(kernels, [torch.ones(3)], [2.0], out)
    kernels.copy(out * 2, out)
    assert out.tolist() == [4.0, 4.0, 4.0]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (torch.zeros(2, 3), r"differ: \(3, 2\).* and \(2, 3\)"),
        (torch.zeros(2, 3).t(), "contiguous floating-point"),
        (torch.zeros(3, 2, dtype=torch.int32), "contiguous floating-point"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(source, message):
    out = torch.empty(3, 2)
    with pytest.raises(ValueError, match=message):
        kernels.weighted_sum([source], [1.0], out)


def test_magnitude_puts_the_halves_together():
    value = kernels.float32(0.1)
    bits = ctypes.c_uint32.from_buffer(ctypes.c_float(value)).value
    assert kernels.magnitude(bits >> 16, bits & 0xFFFF) == value


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_accelerator_gives_the_same_bits(dtype):
    sources, base = inputs((dtype,) * 3, BIG)
    there = everything(fallback, [s.cuda() for s in sources], base.cuda(), dtype)
    here = everything(fallback, sources, base, dtype)
    assert all(torch.equal(left.cpu(), right) for left, right in zip(there, here, strict=True))
