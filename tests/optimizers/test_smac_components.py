"""Surrogate and search inside SMAC: formulas, legality, purity."""

from __future__ import annotations

import numpy as np
import pytest
from ConfigSpace import Configuration, ConfigurationSpace, Integer
from hypothesis import given, settings
from hypothesis import strategies as st
from optimizer_spaces import bowl, conditional_space

from auto_merge.optimizers.proposer import configuration_key, plain_value
from auto_merge.trial import Value


def sampled(count: int, seed: int = 0) -> list[Configuration]:
    space = conditional_space()
    space.seed(seed)
    return list(space.sample_configuration(count))


def rows(count: int, seed: int = 0) -> list[tuple[Configuration, float, int]]:
    return [(c, bowl(plain(c)), 30) for c in sampled(count, seed)]


def plain(configuration: Configuration) -> dict[str, Value]:
    return {name: plain_value(value) for name, value in configuration.items()}


def surrogate(count: int = 30, pending: int = 0):
    from auto_merge.optimizers.smac_surrogate import ConditionalGaussianProcess

    known = rows(count)
    vectors = np.array([c.get_array() for c, _, _ in known])
    costs = np.array([cost for _, cost, _ in known])
    waiting = np.array([c.get_array() for c in sampled(pending + 2, seed=9)])[:pending]
    model = ConditionalGaussianProcess(
        conditional_space(), np.full(count, 30.0), waiting.reshape(pending, vectors.shape[1])
    )
    return model.train(vectors, costs[:, None]), vectors, costs, waiting


def test_the_surrogate_learns_a_smooth_cost() -> None:
    model, vectors, costs, _ = surrogate(60)
    fresh = sampled(200, seed=5)
    mean, variance = model.predict_marginalized(np.array([c.get_array() for c in fresh]))
    truth = np.array([bowl(plain(c)) for c in fresh])
    assert np.corrcoef(mean.ravel(), truth)[0, 1] > 0.9
    at_rows = model.predict_marginalized(vectors)
    assert np.abs(at_rows[0].ravel() - costs).max() < 0.05
    assert at_rows[1].mean() < variance.mean()


def test_pending_configurations_lower_the_variance_and_keep_the_mean() -> None:
    alone = surrogate()[0]
    believing, _, _, waiting = surrogate(pending=3)
    before, after = alone.predict_marginalized(waiting), believing.predict_marginalized(waiting)
    np.testing.assert_allclose(before[0], after[0])
    assert (after[1] < before[1]).all()


def test_rows_with_more_documents_are_believed_more() -> None:
    from auto_merge.optimizers.smac_surrogate import ConditionalGaussianProcess

    vector = np.linspace(0, 1, 12)[:, None]
    vectors = np.concatenate([vector, vector])  # every point twice, with different results
    costs = np.concatenate([np.full(12, 0.2), np.full(12, 0.6)]) + np.tile(vector.ravel() / 10, 2)
    documents = np.repeat([900.0, 9.0], 12)
    space = ConfigurationSpace({"x": (0.0, 1.0)})
    model = ConditionalGaussianProcess(space, documents, np.empty((0, 1)))
    mean = model.train(vectors, costs[:, None]).predict_marginalized(vector)[0]
    assert mean.max() < 0.35


def test_constant_costs_and_equal_rows_can_be_fitted() -> None:
    from auto_merge.optimizers.smac_search import challengers

    (first, _, _), *others = rows(12)
    flat = [(configuration, 0.3, 30) for configuration, _, _ in [(first, 0, 0), *others]]
    assert next(challengers(conditional_space(), flat, [first], 1)) is not None


def test_challengers_are_legal_pure_and_depend_on_the_seed() -> None:
    from auto_merge.optimizers.smac_search import challengers

    known = rows(15)

    def keys(seed: int) -> list[object]:
        found = list(challengers(conditional_space(), known, [], seed))
        for configuration in found:  # through plain values and back, as they travel
            Configuration(conditional_space(), values=plain(configuration))
        return [configuration_key(plain(configuration)) for configuration in found]

    first = keys(3)
    assert len(first) > 100
    assert first == keys(3)
    assert first != keys(4)


def test_integers_stay_integers() -> None:
    from auto_merge.optimizers.smac_search import challengers

    space = ConfigurationSpace()
    space.add(Integer("layer", (1, 5)), Integer("other", (0, 1)))
    space.seed(0)
    known = [(c, c["layer"] / 10, 10) for c in space.sample_configuration(12)]
    for configuration in challengers(space, known, [], 0):
        assert configuration["layer"] in range(1, 6)
        np.testing.assert_allclose(
            configuration.get_array(),
            Configuration(space, values=plain(configuration)).get_array(),
        )


def test_expected_improvement_is_never_negative() -> None:
    from auto_merge.optimizers.smac_search import ExpectedImprovement

    class Hopeless:
        def predict_marginalized(self, vectors):
            return np.full((len(vectors), 1), 0.9), np.full((len(vectors), 1), 1e-6)

    acquisition = ExpectedImprovement()
    acquisition.update(model=Hopeless(), eta=0.1)
    values = acquisition(sampled(5))
    assert values.shape == (5, 1)
    assert (values >= 0).all()


def test_squash_keeps_the_good_half_and_the_order() -> None:
    from auto_merge.optimizers.smac_search import squash

    costs = np.array([0.1, 0.2, 0.3, 0.6, 2.0])
    bent = squash(costs)
    np.testing.assert_array_equal(bent[:3], costs[:3])
    assert bent[3] == pytest.approx(0.3 + 0.1 * np.tanh(1.5))
    assert (np.diff(bent) > 0).all()


@settings(deadline=None, max_examples=50)
@given(st.floats(-0.99, 1.99))
def test_reflection_stays_in_the_unit_interval(value: float) -> None:
    from auto_merge.optimizers.smac_search import _reflect

    expected = -value if value < 0 else 2 - value if value > 1 else value
    assert _reflect(np.array([value]))[0] == pytest.approx(expected)


def test_twins_differ_in_numbers_only() -> None:
    from auto_merge.optimizers.smac_search import _first_twins

    names = ["layer_0_mlp", "layer_0_attn", "layer_1_mlp", "layer_12_mlp", "layer_1_attn"]
    assert _first_twins(names).tolist() == [0, 1, 0, 0, 1]
