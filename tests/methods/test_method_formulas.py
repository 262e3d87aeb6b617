"""Worked examples: the right answer is computed by hand in the comment."""

from __future__ import annotations

import math

import pytest
import torch
from methods_support import Memory, merged

from auto_merge.errors import RecipeError, UserError
from auto_merge.methods import METHODS


def tensor(*rows: object) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def test_linear_is_the_weighted_mean():
    first, second = tensor([1, 2], [3, 4]), tensor([5, 6], [7, 8])
    # (1 * W1 + 3 * W2) / 4: (1 + 15) / 4 = 4, (2 + 18) / 4 = 5, ...
    result = merged("linear", [first, second], None, weight=(1.0, 3.0))
    assert torch.equal(result, tensor([4, 5], [6, 7]))


def test_linear_accepts_negative_weights():
    first, second = tensor([1, 2, 3, 4]), tensor([0, 2, 4, 8])
    # (2 W1 - W2) / 1
    result = merged("linear", [first, second], None, weight=(2.0, -1.0))
    assert torch.equal(result, tensor([2, 2, 2, 0]))


@pytest.mark.parametrize("weights", [(0.0, 0.0), (1.0, -1.0), (0.1 + 0.2, -0.3)])
def test_linear_refuses_weights_that_sum_to_zero(weights):
    sources = [tensor([1, 2]), tensor([3, 4])]
    with pytest.raises(RecipeError, match=r"linear: weights sum to zero \(.*\); the mean is"):
        merged("linear", sources, None, weight=weights)


def test_task_arithmetic_adds_the_sum_of_task_vectors():
    base = tensor([1, 1], [1, 1])
    first, second = tensor([2, 1], [0, 3]), tensor([1, 3], [1, 0])
    # deltas [1 0; -1 2] and [0 2; 0 -1]; 0.5 * (2 d1 + 1 d2) = [1 1; -1 1.5]
    result = merged("task_arithmetic", [first, second], base, weight=(2.0, 1.0), scale=0.5)
    assert torch.equal(result, tensor([2, 2], [0, 2.5]))


def test_ties_trims_elects_and_averages():
    base = tensor([10, 10, 10, 10])
    first, second = tensor([14, 9, 12, 10.5]), tensor([12, 13, 7, 10.25])
    # The deltas are 4, -1, 2, .5 and 2, 3, -3, .25. Density .5 means k = int(4 * .5) = 2: the
    # second smallest magnitudes are 1 and 2, one entry falls in each. What is left: 4, -1, 2, 0
    # and 2, 3, -3, 0. The sums are 6, 2, -1, 0: signs + + - and, as they sum to 1, + again.
    # The means of what agrees are 3, 3, -3 and, with nothing positive left, 0.
    result = merged("ties", [first, second], base, density=0.5, scale=2.0)
    assert torch.equal(result, tensor([16, 16, 4, 10]))


def test_ties_gives_cancelled_entries_the_majority_sign():
    base = torch.zeros(1, 4)
    first, second = tensor([1, -1, -5, 2]), tensor([1, -3, -5, -2])
    # sums (2, -4, -10, 0); the sum of signs is -1, so the last entry is negative: mean of (-2)
    assert torch.equal(merged("ties", [first, second], base), tensor([1, -2, -5, -2]))
    # signs balance: sums (2, -4, 0); nobody decides the last entry, the base stays
    columns = [0, 1, 3]
    result = merged(
        "ties",
        [first[:, columns].contiguous(), second[:, columns].contiguous()],
        base[:, :3].clone(),
    )
    assert torch.equal(result, tensor([1, -2, 0]))


def test_ties_weights_decide_the_sign_and_the_mean():
    base = torch.zeros(1, 3)
    sources = [tensor([1, 4, 1]), tensor([-2, 8, 1]), tensor([-1, 1, 1])]
    # weights 4, 1, 1: sums (4 - 2 - 1, ...) > 0; mean of agreeing: 1 | (16 + 8 + 1) / 6 | 1
    result = merged("ties", sources, base, weight=(4.0, 1.0, 1.0))
    torch.testing.assert_close(result, tensor([1, 25 / 6, 1]))


def test_ties_density_zero_keeps_the_largest_entries():
    base = torch.zeros(1, 4)
    # k = n: the threshold is the largest magnitude, which stays together with its equals
    result = merged("ties", [tensor([1, -3, 2, 3])], base, density=0.0)
    assert torch.equal(result, tensor([0, -3, 0, 3]))


def test_slerp_of_orthogonal_tensors():
    first, second = tensor([1, 0], [0, 0]), tensor([0, 0], [0, 2])
    # angle 90 degrees: sin(60) W1 + sin(30) W2 at t = 1/3
    result = merged("slerp", [first, second], None, t=1 / 3)
    torch.testing.assert_close(result, tensor([math.sqrt(3) / 2, 0], [0, 1]))


def test_slerp_of_tensors_at_sixty_degrees():
    first, second = tensor([1, 0]), tensor([0.5, math.sqrt(3) / 2])
    # half way is the unit vector at 30 degrees
    result = merged("slerp", [first, second], None, t=0.5)
    torch.testing.assert_close(result, tensor([math.sqrt(3) / 2, 0.5]))


def test_slerp_of_nearly_parallel_and_opposite_tensors_is_linear():
    first = tensor([1, 2, 3, 4])
    torch.testing.assert_close(
        merged("slerp", [first, 3 * first], None, t=0.25), tensor([1.5, 3, 4.5, 6])
    )
    torch.testing.assert_close(
        merged("slerp", [first, -first], None, t=0.25), tensor([0.5, 1, 1.5, 2])
    )


def test_slerp_with_a_zero_tensor_counts_as_orthogonal():
    first = tensor([3, 4])
    result = merged("slerp", [first, torch.zeros(1, 2)], None, t=0.5)
    torch.testing.assert_close(result, first * math.sqrt(0.5))
    assert torch.equal(merged("slerp", [0 * first, 0 * first], None, t=0.5), 0 * first)


def test_slerp_measures_the_angle_once():
    memo = Memory()
    sources = [tensor([1, 0]), tensor([0, 1])]
    for t in (0.2, 0.4, 0.6):
        merged("slerp", sources, None, memo=memo, t=t)
    assert memo.computed == ["slerp/cosine"]


def test_half_precision_does_not_bend_the_angle():
    # Products of float16 entries this small underflow; the published code saw a cosine of .27 here.
    source = torch.full((200, 500), 1e-4, dtype=torch.float16)
    result = merged("slerp", [source, source.clone()], None, t=0.5)
    assert torch.equal(result, source)


def test_passthrough_copies_or_scales():
    source = tensor([1, -2], [0, 4])
    assert torch.equal(merged("passthrough", [source], None), source)
    assert torch.equal(
        merged("passthrough", [source], None, scale=-0.5), tensor([-0.5, 1], [0, -2])
    )


def test_results_are_rounded_once_to_the_output_type():
    # 1 + 2**-9 three times: bfloat16 sums would lose each small part, the float32 mean keeps it.
    sources = [torch.tensor([value]).bfloat16() for value in (1.0, 1.0078125, 1.015625)]
    assert merged("linear", sources, None).item() == 1.0078125
    assert merged("linear", sources, None, out_dtype=torch.float32).item() == pytest.approx(
        1.0078125, abs=1e-7
    )


def test_registry_is_complete_and_declares_its_parameters():
    assert sorted(METHODS) == ["linear", "passthrough", "slerp", "task_arithmetic", "ties"]
    for name in METHODS:
        method = METHODS.get(name)
        assert method.name == name
        for parameter in method.parameters:
            assert parameter.low <= parameter.default <= parameter.high
            assert parameter.doc.endswith(".")
            assert method.parameter(parameter.name) is parameter
    with pytest.raises(UserError, match="unknown merge method 'slrp'; did you mean 'slerp'"):
        METHODS.get("slrp")
    with pytest.raises(KeyError):
        METHODS.get("ties").parameter("weights")
