"""Answers of generated text: hand-worked spellings, exact values, hostile text."""

from __future__ import annotations

import string
import time
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auto_merge.evaluation.filters import (
    ANSWER_FILTERS,
    INVALID,
    first_number,
    get_answer,
    get_answer_ja,
    get_answer_zh,
    get_last_number,
    last_number,
    number_or_text,
)
from auto_merge.evaluation.lm_harness_filters import answer_code, register_filters

SPELLINGS = [
    ("42", "42"),
    ("42.", "42"),
    ("007", "7"),
    ("-0.0", "0"),
    ("+5", "5"),
    ("1.50", "1.5"),
    (".5", "0.5"),
    ("2.5 hours", "2.5"),
    ("1,234,567", "1234567"),
    ("$1,234.56", "1234.56"),
    ("12,34", "12"),
    ("1234,567", "1234"),
    ("1{,}234", "1234"),
    (r"1,\!234", "1234"),
    ("-5", "-5"),
    ("−5", "-5"),
    ("-$5", "-5"),
    ("$-5", "-5"),
    (r"-\$1,000", "-1000"),
    ("€ 7", "7"),
    ("Rs.500", "500"),
    ("50%", "50"),
    ("3/4", "0.75"),
    ("3 / 4", "0.75"),
    ("-1/3", "-1/3"),
    ("4/6", "2/3"),
    ("10/5", "2"),
    ("1.5/0.5", "3"),
    ("1,000/3", "1000/3"),
    ("1/3,000", "1/3000"),
    ("3 1/2", "3.5"),
    ("-3 1/2", "-3.5"),
    ("5 10/3", "5"),
    ("½", "0.5"),
    ("3½", "3.5"),
    ("5²", "5"),
    (r"\frac{1}{2}", "0.5"),
    (r"-\dfrac{1}{3}", "-1/3"),
    ("-½", "-0.5"),
    ("-1½", "-1.5"),
    (r"2\tfrac{1}{4}", "2.25"),
    (r"$\boxed{-12}$", "-12"),
    ("**18** dollars", "18"),
    ("３．５", "3.5"),
    ("￥１，２００", "1200"),
    ("٤٢", "42"),
    ("x = 9", "9"),
    ("10-5", "10"),
    ("1, 2 and 3", "1"),
    ("(((7)))", "7"),
]


@pytest.mark.parametrize(("text", "value"), SPELLINGS)
def test_spellings(text: str, value: str) -> None:
    assert first_number(text) == value
    assert get_answer(f"So 3 + 4. The answer is: {text}") == value


@pytest.mark.parametrize(
    "text", ["", " ", "none at all", "5/0", "-", "$", ".", ",", "/", "\\frac{1}{0}", "答", "\x00"]
)
def test_no_number(text: str) -> None:
    assert first_number(text) is None
    assert get_answer("The answer is: " + text) == INVALID


def test_last_number() -> None:
    assert last_number("5 apples, then 1,250.50 pears.") == "1250.5"
    assert last_number("1,2,3") == "3"
    assert last_number("10-5") == "5"
    assert last_number("5, or 2/6") == "1/3"
    assert get_last_number("nothing") == INVALID


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (get_answer, "The answer is: 1. No: The answer is: 2", "2"),
        (get_answer, "The answer is: 12 and not 13", "12"),
        (get_answer, "The answer is:\n\n42", "42"),
        (get_answer, "42", INVALID),
        (get_answer, "The answer is 42", INVALID),
        (get_answer, "the ANSWER is: 42", INVALID),
        (get_answer, "The answer is: 3. The answer is: unknown", INVALID),
        (get_answer, "The answer is: The answer is: 8", "8"),
        (get_answer, "The answer is: None.", "None"),
        (get_answer, "The answer is: none of the 5", "5"),
        (get_answer, "答案是：5", INVALID),
        (get_answer_zh, "一共三个，答案是：1,234", "1234"),
        (get_answer_zh, "答案是:７", "7"),
        (get_answer_zh, "答案为 0.5 千克。", "0.5"),
        (get_answer_zh, "5 + 6，答案：-11。", "-11"),
        (get_answer_zh, "The answer is: 5", INVALID),
        (get_answer_ja, "6×9=54個です。答えは54です。", "54"),
        (get_answer_ja, "答えは、1,200円です。", "1200"),
        (get_answer_ja, "答え：２．５", "2.5"),
        (get_answer_ja, "答え: -3", "-3"),
        (get_answer_ja, "答えは4です。いや、答えは5です。", "5"),
        (get_answer_ja, "答案是：5", INVALID),
    ],
)
def test_delimiters(read: object, text: str, value: str) -> None:
    assert callable(read)
    assert read(text) == value


def test_a_target_without_a_number_matches_no_unreadable_answer() -> None:
    assert number_or_text(" None ") == "None"
    assert number_or_text("") == ""
    assert number_or_text("[unknown]") != get_answer("no delimiter")
    assert number_or_text(18.0) == number_or_text("18") == number_or_text("$18.00") == "18"


@pytest.mark.parametrize("name", sorted(ANSWER_FILTERS))
@pytest.mark.parametrize(
    "unit",
    ["9", "12,", "1,234,", "1 ", "1/", "５", "½", "-", " ", "$", ".", "0.", "答えは", "\\frac{1}{",
     "The answer is: ", "1 2/", "１，", "\\frac{" + "1" * 99],
)  # fmt: skip
def test_time_is_in_proportion_to_length(name: str, unit: str) -> None:
    text = "答えは 答案是 The answer is: " + unit * (100_000 // len(unit))
    seconds = []
    for _ in range(3):
        start = time.process_time()
        ANSWER_FILTERS[name](text)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.1


def test_long_numbers_keep_all_digits() -> None:
    digits = "1" + "0" * 99_998 + "7"
    assert get_answer(f"The answer is: {digits}.50") == f"{digits}.5"
    assert get_answer(f"The answer is: 1/{digits}") == INVALID
    assert get_answer(f"The answer is: {digits} 1/2") == INVALID


@given(st.integers(), st.sampled_from(["{}", "{:,}", "${:,}.00", "{:,} apples", "about {}."]))
def test_integers(value: int, spelling: str) -> None:
    text = spelling.format(value)
    expected = str(value) if "$-" not in text or value < 0 else str(abs(value))
    assert get_answer(f"1 + 1 = 2. The answer is: {text}") == expected


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-1e9, max_value=1e9))
def test_decimals_are_exact(value: object) -> None:
    read = first_number(f"{value:,f}")
    assert read is not None
    assert Fraction(read) == Fraction(str(value))


@given(st.integers(-(10**20), 10**20), st.integers(1, 10**20), st.integers(1, 1000))
def test_fractions_are_exact_and_reduced(over: int, under: int, times: int) -> None:
    read = first_number(f"{over}/{under}")
    assert read is not None
    assert Fraction(read) == Fraction(over, under)
    assert first_number(f"{over * times}/{under * times}") == read


@settings(max_examples=300)
@given(st.text() | st.text(string.digits + ",./-+$ \\{}frac½５は答え"))
def test_any_text_gives_one_stable_spelling(text: str) -> None:
    for read in ANSWER_FILTERS.values():
        for response in (text, "The answer is:" + text, "答えは" + text, "答案是" + text):
            value = read(response)
            assert value in (INVALID, "None") or first_number(value) == value


# --- in lm-eval -----------------------------------------------------------------------------------


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty registry, so that no other test finds filters here that nobody registered."""
    from lm_eval.api import registry

    own = registry.Registry("filter")
    monkeypatch.setattr(registry, "filter_registry", own)
    return own


def test_lm_eval_knows_the_filters(registry: Any) -> None:
    register_filters()
    register_filters()
    for name, read in ANSWER_FILTERS.items():
        responses = [["The answer is: 1,250. 答えは2。答案是：3", "ignored"], [""]]
        built = registry.get(name)()
        expected = [read(first) for first, *_ in responses]
        assert built.apply(responses, [{}, {}]) == expected
        assert built.apply([first for first, *_ in responses], [{}, {}]) == expected


def test_a_filter_of_the_user_keeps_its_name(registry: Any) -> None:
    registry.register("get_answer")(dict)
    register_filters()
    assert registry.get("get_answer") is dict
    assert "get_answer_ja" in registry


def test_the_code_counts_for_tasks_that_use_it() -> None:
    pipeline = {"name": "strict", "filter": [{"function": "get_answer"}]}
    [code] = answer_code({"filter_list": [pipeline]})
    assert len(code) == 32
    assert answer_code({"filter_list": [{"name": "x", "filter": [{"function": "regex"}]}]}) == []
    assert answer_code({}) == answer_code({"filter_list": None}) == []
