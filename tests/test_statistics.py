"""Paired comparisons, signed ranks and parameter importance against known answers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from auto_merge.statistics import (
    PairedTask,
    holm,
    paired_comparison,
    parameter_importance,
    signed_rank,
    simultaneous_comparisons,
)
from auto_merge.trial import Outcome, Status, Trial, Value

Generator = np.random.Generator


def binary(won: int, lost: int, tied: int, weight: float = 1.0) -> PairedTask:
    return PairedTask(weight, np.array([1.0] * won + [-1.0] * lost + [0.0] * tied))


def correlated(
    generator: Generator, n: int, first: float, second: float, correlation: float
) -> np.ndarray:
    """Differences of two 0/1 scores with the given means and latent correlation."""
    shared, own = generator.standard_normal(n), generator.standard_normal((2, n))
    latent = math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own
    threshold = stats.norm.ppf([first, second])
    return (latent[0] < threshold[0]).astype(float) - (latent[1] < threshold[1])


def passages(generator: Generator, count: int, first: float, second: float) -> PairedTask:
    """A task of ``count`` passages with 1 to 14 questions whose answers hang together."""
    label = np.repeat(np.arange(count), generator.integers(1, 15, count))
    topic = generator.standard_normal(count)[label]
    model = generator.standard_normal((2, count))[:, label]
    noise = generator.standard_normal((2, len(label)))
    latent = math.sqrt(0.3) * topic + math.sqrt(0.35) * model + math.sqrt(0.35) * noise
    threshold = stats.norm.ppf([first, second])
    return PairedTask(
        1.0, (latent[0] < threshold[0]).astype(float) - (latent[1] < threshold[1]), label
    )


class TestPairedComparison:
    def test_one_task_is_the_paired_t_interval(self) -> None:
        differences = np.random.default_rng(0).normal(0.1, 0.2, 40).clip(-1, 1)
        result = paired_comparison([PairedTask(3.0, differences)])
        expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
        assert result.difference == pytest.approx(differences.mean())
        assert (result.low, result.high) == pytest.approx((expected.low, expected.high))
        assert result.verdict == "better"

    def test_two_tasks_by_hand(self) -> None:
        # 30 won and 10 lost: mean 1/2, mean square 1; 20 and 20: mean 0; weights 1/4 and 3/4.
        first, second = binary(30, 10, 0), binary(20, 20, 0, weight=3.0)
        means = 0.5, 0.0
        variances = (40 / 39 * 0.75) / 40, (40 / 39 * 1.0) / 40
        parts = 0.25**2 * variances[0], 0.75**2 * variances[1]
        freedom = sum(parts) ** 2 / (parts[0] ** 2 / 39 + parts[1] ** 2 / 39)
        half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts))
        result = paired_comparison([first, second])
        centre = 0.25 * means[0] + 0.75 * means[1]
        assert (result.low, result.difference, result.high) == pytest.approx(
            (centre - half, centre, centre + half)
        )
        assert result.verdict == "not distinguishable"

    def test_tasks_without_weight_do_not_matter(self) -> None:
        alone = paired_comparison([binary(30, 10, 60)])
        assert paired_comparison([binary(30, 10, 60), binary(0, 90, 0, weight=0.0)]) == alone

    @pytest.mark.parametrize(
        ("won", "lost", "verdict"),
        [
            (5, 0, "not distinguishable"),  # McNemar p = .0625
            (6, 0, "better"),  # p = .031
            (0, 6, "worse"),
            (7, 1, "not distinguishable"),  # p = .070
            (8, 1, "better"),  # p = .039
        ],
    )
    def test_few_discordant_documents_follow_the_exact_test(
        self, won: int, lost: int, verdict: str
    ) -> None:
        assert stats.binomtest(won, won + lost).pvalue < 0.05 or verdict == "not distinguishable"
        assert paired_comparison([binary(won, lost, 500)]).verdict == verdict

    def test_exact_test_sees_weights(self) -> None:
        # One lost document of a small, heavy task outweighs eight won ones elsewhere.
        result = paired_comparison([binary(8, 0, 992), binary(0, 1, 9)])
        assert result.difference < 0
        assert result.verdict == "not distinguishable"

    @pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 0.25])
    @pytest.mark.parametrize("n", [1, 2, 12, 400])
    def test_equal_differences_give_no_point_interval(self, value: float, n: int) -> None:
        result = paired_comparison([PairedTask(1.0, np.full(n, value))])
        assert result.low <= value <= result.high
        assert result.high - result.low > 1.5 / max(n, 2)

    def test_no_differences_are_bounded_about_as_by_the_rule_of_three(self) -> None:
        result = paired_comparison([binary(0, 0, 1000)])
        assert result.low == -result.high
        assert 2.5 / 1000 < result.high < 4.0 / 1000

    def test_copied_documents_in_a_passage_add_nothing(self) -> None:
        differences = np.random.default_rng(1).choice([-1.0, 0.0, 1.0], 80)
        plain = paired_comparison([PairedTask(1.0, differences)])
        copied = paired_comparison(
            [PairedTask(1.0, np.repeat(differences, 5), np.repeat(np.arange(80), 5))]
        )
        assert (copied.low, copied.high) == pytest.approx((plain.low, plain.high))

    def test_single_document_passages_are_documents(self) -> None:
        task = binary(30, 20, 50)
        labels = [f"passage {index}" for index in range(100)]
        labelled = paired_comparison([PairedTask(1.0, task.differences, labels)])
        plain = paired_comparison([task])
        assert (labelled.low, labelled.high) == pytest.approx((plain.low, plain.high))

    def test_simultaneous_intervals_are_wider_and_keep_the_estimate(self) -> None:
        task = binary(60, 40, 400)
        alone = paired_comparison([task])
        for several in simultaneous_comparisons([[task]] * 5):
            assert several.difference == alone.difference
            assert several.low < alone.low < alone.high < several.high

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(
            st.tuples(
                st.floats(0.01, 10),
                st.lists(st.sampled_from([-1.0, -0.3, 0.0, 0.0, 1.0]), min_size=1, max_size=40),
            ),
            min_size=1,
            max_size=4,
        )
    )
    def test_interval_holds_the_estimate_and_mirrors(
        self, parts: list[tuple[float, list[float]]]
    ) -> None:
        tasks = [PairedTask(weight, values) for weight, values in parts]
        mirrored = [PairedTask(weight, [-v for v in values]) for weight, values in parts]
        one, other = paired_comparison(tasks), paired_comparison(mirrored)
        assert -1 <= one.low <= one.difference <= one.high <= 1
        assert one.high > one.low
        assert (other.low, other.high) == pytest.approx((-one.high, -one.low), abs=1e-12)
        assert (one.verdict == "better") == (other.verdict == "worse")

    @pytest.mark.parametrize(
        ("tasks", "text"),
        [
            ([], "weight above 0"),
            ([PairedTask(0.0, [0.0])], "weight above 0"),
            ([PairedTask(-1.0, [0.0])], "weights must be >= 0"),
            ([PairedTask(1.0, [])], "n >= 1"),
            ([PairedTask(1.0, [float("nan")])], "finite"),
            ([PairedTask(1.0, [1.5])], r"\[-1, 1\]"),
            ([PairedTask(1.0, [0.0, 1.0], [1])], "clusters have shape"),
        ],
    )
    def test_refuses(self, tasks: list[PairedTask], text: str) -> None:
        with pytest.raises(ValueError, match=text):
            paired_comparison(tasks)

    def test_refuses_a_confidence_of_one(self) -> None:
        with pytest.raises(ValueError, match="confidence"):
            paired_comparison([binary(1, 1, 1)], confidence=1.0)


def _plain(*parts: tuple[float, int, float, float, float]) -> Callable[[Generator], list]:
    return lambda generator: [
        PairedTask(weight, correlated(generator, n, first, second, rho))
        for weight, n, first, second, rho in parts
    ]


SCENARIOS = {
    "one task": (_plain((1, 1000, 0.8, 0.75, 0.6)), 0.05),
    "small": (_plain((1, 100, 0.6, 0.6, 0.6)), 0.0),
    "unequal tasks": (
        _plain((1, 1000, 0.9, 0.5, 0.6), (2, 200, 0.6, 0.65, 0.6), (1, 60, 0.4, 0.3, 0.2)),
        (0.4 - 2 * 0.05 + 0.1) / 4,
    ),
    "ceiling": (_plain((1, 500, 0.98, 0.96, 0.6)), 0.02),
    "ceiling, four tasks": (_plain(*[(1, 500, 0.98, 0.98, 0.6)] * 4), 0.0),
    "passages": (lambda generator: [passages(generator, 40, 0.8, 0.75)], 0.05),
    "passages near a ceiling": (lambda generator: [passages(generator, 60, 0.99, 0.98)], 0.01),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_simulated_coverage(scenario: str) -> None:
    make, truth = SCENARIOS[scenario]
    generator = np.random.default_rng(7)
    runs = 1600
    held = 0
    for _ in range(runs):
        result = paired_comparison(make(generator))
        held += result.low <= truth <= result.high
    assert 0.935 <= held / runs <= 0.965


@pytest.mark.parametrize(("n", "first", "second"), [(200, 0.98, 0.98), (300, 0.995, 0.99)])
def test_coverage_with_few_discordant_documents_is_at_least_nominal(
    n: int, first: float, second: float
) -> None:
    generator = np.random.default_rng(3)
    results = [
        paired_comparison([PairedTask(1.0, correlated(generator, n, first, second, 0.6))])
        for _ in range(800)
    ]
    held = [result.low <= first - second <= result.high for result in results]
    assert np.mean(held) >= 0.935


def test_simultaneous_coverage() -> None:
    generator = np.random.default_rng(11)
    runs, held = 800, 0
    for _ in range(runs):
        # Four models against one winner: the shared winner correlates the comparisons.
        scores = generator.random((5, 300)) < 0.7
        tasks = [[PairedTask(1.0, scores[0].astype(float) - other)] for other in scores[1:]]
        held += all(result.low <= 0 <= result.high for result in simultaneous_comparisons(tasks))
    assert 0.93 <= held / runs <= 0.985


class TestSignedRank:
    def test_agrees_with_scipy_without_ties(self) -> None:
        values = np.random.default_rng(5).normal(0.3, 1.0, 20)
        expected = stats.wilcoxon(values, alternative="greater", method="exact").pvalue
        assert signed_rank(values.tolist()).p_value == pytest.approx(expected)

    def test_three_pairs_by_hand(self) -> None:
        # Ranks 1, 2, 3 with signs -, +, +: W+ = 5; 2 of 8 sign patterns reach 5.
        result = signed_rank([-1.0, 2.0, 4.0])
        assert result.p_value == 2 / 8
        assert result.estimate == 1.75  # Walsh averages -1 .5 1.5 2 3 4
        assert (result.low, result.high) == (-math.inf, math.inf)

    def test_ties_and_zeros(self) -> None:
        # Two equal sizes share rank 1.5: patterns give 0, 1.5, 1.5, 3; both positive is 1 in 4.
        assert signed_rank([0.0, 1.0, 1.0]).p_value == 1 / 4
        assert signed_rank([0.0, 0.0]).p_value == 1.0

    def test_interval_is_the_tabulated_one(self) -> None:
        # n = 10, 95 %: W+ <= 8 has probability .0244, so the 9th Walsh average from either end.
        values = [float(value) for value in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)]
        walsh = sorted((a + b) / 2 for i, a in enumerate(values) for b in values[i:])
        result = signed_rank(values)
        assert (result.low, result.high) == (walsh[8], walsh[-9])

    def test_interval_covers(self) -> None:
        generator = np.random.default_rng(9)
        results = [signed_rank(generator.laplace(0.5, 1.0, 20).tolist()) for _ in range(500)]
        assert np.mean([result.low <= 0.5 <= result.high for result in results]) >= 0.93

    @pytest.mark.parametrize("values", [[], [float("nan")]])
    def test_refuses(self, values: list[float]) -> None:
        with pytest.raises(ValueError, match="finite"):
            signed_rank(values)

    def test_holm_by_hand(self) -> None:
        assert holm([0.04, 0.01, 0.03]) == pytest.approx((0.06, 0.03, 0.06))
        assert holm([0.9, 0.6]) == (1.0, 1.0)
        assert holm([]) == ()


def _trials(count: int, *, noise: float = 0.02) -> list[tuple[Trial, Outcome]]:
    """Cost depends on ``strong``, a little on ``weak`` where active, never on ``idle``."""
    generator = np.random.default_rng(0)
    rows = []
    for index in range(count):
        configuration: dict[str, Value] = {
            "method": str(generator.choice(["linear", "ties"])),
            "strong": float(generator.random()),
            "idle": float(generator.random()),
            "constant": 1.0,
        }
        if configuration["method"] == "ties":
            configuration["weak"] = float(generator.random())
        cost = 0.5 * float(configuration["strong"]) + 0.1 * float(configuration.get("weak", 0.3))
        cost += noise * float(generator.standard_normal())
        fidelity = int(generator.choice([30, 90]))
        trial = Trial(index, index, configuration, fidelity)
        rows.append((trial, Outcome(Status.SUCCESS, cost=cost)))
    return rows


class TestParameterImportance:
    def test_ranks_what_matters(self) -> None:
        result = parameter_importance(_trials(120))
        assert result is not None
        assert result.shares[0].name == "strong"
        assert {share.name for share in result.shares} == {"strong", "idle", "method", "weak"}
        by_name = {share.name: share.share for share in result.shares}
        assert by_name["strong"] > 0.6
        assert abs(by_name["idle"]) < 0.05
        assert result.explained > 0.7
        assert result.num_configurations == 120

    def test_choice_gets_the_credit_and_not_what_it_switches_on(self) -> None:
        generator = np.random.default_rng(4)
        rows = []
        for index in range(100):
            configuration: dict[str, Value] = {"method": str(generator.choice(["linear", "ties"]))}
            if configuration["method"] == "ties":
                configuration["density"] = float(generator.random())
            cost = 0.3 * (configuration["method"] == "ties") + 0.01 * generator.standard_normal()
            outcome = Outcome(Status.SUCCESS, cost=float(cost))
            rows.append((Trial(index, index, configuration, 30), outcome))
        result = parameter_importance(rows)
        assert result is not None
        assert [share.name for share in result.shares] == ["method", "density"]
        assert result.shares[0].share > 0.8
        assert abs(result.shares[1].share) < 0.02

    def test_is_deterministic(self) -> None:
        assert parameter_importance(_trials(30)) == parameter_importance(_trials(30))

    def test_pure_noise_explains_nothing(self) -> None:
        rows = [
            (trial, Outcome(Status.SUCCESS, cost=float(cost)))
            for (trial, _), cost in zip(
                _trials(60), np.random.default_rng(2).random(60), strict=True
            )
        ]
        result = parameter_importance(rows)
        assert result is not None
        assert result.explained < 0.15

    def test_a_configuration_counts_once_and_failures_not_at_all(self) -> None:
        rows = _trials(12)
        again = [(Trial(50, 0, rows[0][0].configuration, 270), Outcome(Status.SUCCESS, cost=0.1))]
        failed = [(Trial(51, 51, {"strong": 0.5}, 30), Outcome(Status.CRASHED))]
        result = parameter_importance([*rows, *again, *failed])
        assert result is not None
        assert result.num_configurations == 12

    def test_says_nothing_without_data(self) -> None:
        assert parameter_importance([]) is None
        assert parameter_importance(_trials(9)) is None
        flat = [(trial, Outcome(Status.SUCCESS, cost=0.5)) for trial, _ in _trials(20)]
        assert parameter_importance(flat) is None
