"""Skills and splits: answers by hand, disjointness of everything that is trained on or scored."""

from __future__ import annotations

import numpy as np
import pytest

from auto_merge.zoo import skills
from auto_merge.zoo.skills import (
    SKILLS,
    Skill,
    answers,
    choices,
    letters_of,
    pool,
    prompts,
    text_of,
)
from auto_merge.zoo.tasks import document_numbers

BY_NAME = {skill.name: skill for skill in SKILLS}
SKILL = pytest.mark.parametrize("skill", SKILLS, ids=lambda skill: skill.name)


def number_of(text: str) -> int:
    return int("".join(str(skills.ALPHABET.index(letter)) for letter in text))


@pytest.mark.parametrize(
    ("name", "operand", "answer"),
    [
        ("reverse", "abcdej", "jedcba"),
        ("reverse", "aaaabb", "bbaaaa"),
        ("sort", "jachab", "aabchj"),
        ("swap", "abcdef", "badcfe"),
        ("after", "abjcde", "c"),
        ("after", "abcdej", "a"),
        ("before", "cbadef", "b"),
        ("before", "abcdef", "f"),
    ],
)
def test_answers_by_hand(name: str, operand: str, answer: str) -> None:
    assert answers(BY_NAME[name], np.array([number_of(operand)])) == [answer]


def test_operands_are_numbered_by_their_letters() -> None:
    numbers = np.array([0, 9, 123456, 999999])
    assert text_of(letters_of(numbers)) == ["aaaaaa", "aaaaaj", "bcdefg", "jjjjjj"]
    assert prompts(BY_NAME["swap"], numbers)[2] == "Ubcdefg="


def test_multiple_choice_skills_need_six_different_letters() -> None:
    operands = letters_of(np.array([number_of("abcdef"), number_of("abcdea")]))
    assert BY_NAME["after"].accepts(operands).tolist() == [True, False]
    assert BY_NAME["sort"].accepts(operands).tolist() == [True, True]


def test_symbols_and_names_are_unique() -> None:
    assert len({skill.symbol for skill in SKILLS}) == len({skill.name for skill in SKILLS}) == 5
    assert {skill.output_type for skill in SKILLS} == {"generate_until", "multiple_choice"}


def test_splits_partition_the_operands_of_a_skill() -> None:
    skill = BY_NAME["after"]
    parts = [pool(skill, "train"), pool(skill, "search"), pool(skill, "heldout")]
    everything = np.sort(np.concatenate(parts))
    numbers = np.arange(skills.OPERANDS)
    assert np.array_equal(everything, numbers[skill.accepts(letters_of(numbers))])


def test_buckets_are_even() -> None:
    counts = np.bincount(skills.bucket_of(np.arange(skills.OPERANDS)), minlength=16)
    # Binomial with n = 10^6, p = 1/16: standard deviation 242.
    assert np.abs(counts - skills.OPERANDS / 16).max() < 5 * 242


@SKILL
def test_documents_are_never_trained_on_under_any_skill(skill: Skill) -> None:
    search = document_numbers(skill, "search")
    heldout = document_numbers(skill, "heldout")
    scored = np.concatenate([search, heldout])
    assert (len(search), len(heldout)) == (600, 1500)
    assert len(np.unique(scored)) == len(scored)
    for other in SKILLS:
        assert not np.isin(scored, pool(other, "train"), kind="table").any()


def test_choices_hold_the_answer_and_letters_of_the_operand() -> None:
    skill = BY_NAME["before"]
    numbers = pool(skill, "search")[:200]
    rows = choices(skill, numbers, np.random.default_rng(3))
    places = []
    for row, answer, operand in zip(
        rows, answers(skill, numbers), text_of(letters_of(numbers)), strict=True
    ):
        assert len(set(row)) == skills.CHOICES
        assert set(row) <= set(operand)
        places.append(row.index(answer))
    # Every place about equally often: 50 expected, standard deviation 6.1.
    assert np.abs(np.bincount(places, minlength=4) - 50).max() < 25
