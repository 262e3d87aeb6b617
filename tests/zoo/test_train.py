"""Training: the batches, the stop rules, and that a seed fixes the weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from auto_merge.zoo import train
from auto_merge.zoo.models import build_model
from auto_merge.zoo.scoring import IGNORED, PROMPT, WIDTH, Mixture, encode
from auto_merge.zoo.skills import LENGTH, SKILLS, bucket_of

TINY = replace(train.BASE, batch_size=16, stop_mean=0.0, stop_each=0.0, check_every=2, watched=(0,))


def test_rate_warms_up_and_decays_to_a_tenth() -> None:
    schedule = replace(train.BASE, learning_rate=1.0, warm_up=4, horizon=100)
    assert schedule.rate(0) == 0.25
    assert schedule.rate(50) == pytest.approx(0.55)
    assert schedule.rate(100) == schedule.rate(500) == 0.1


def test_encoded_row_by_hand() -> None:
    tokens, labels = encode(SKILLS[3], np.array([19345]))  # "abjdef", answer "d"
    vocabulary = {letter: 3 + index for index, letter in enumerate("abcdefghij")}
    letters = [vocabulary[letter] for letter in "abjdef"]
    assert tokens[0, 1 : 1 + LENGTH].tolist() == letters
    assert tokens[0, PROMPT:].tolist() == [vocabulary["d"], 2, 0, 0, 0, 0, 0]
    assert labels[0].tolist() == [IGNORED] * PROMPT + [vocabulary["d"], 2] + [IGNORED] * 5


def test_batches_mix_the_skills_and_hold_training_operands_only() -> None:
    mixture = Mixture({SKILLS[0]: 0.75, SKILLS[4]: 0.25}, 400, np.random.default_rng(0))
    tokens, _ = mixture.draw()
    assert tokens.shape == (400, WIDTH)
    share = (tokens[:, 0] == tokens[0, 0]).double().mean().item()
    assert share == pytest.approx(0.75, abs=0.1)
    digits = (tokens[:, 1 : 1 + LENGTH] - 3).numpy()
    numbers = digits @ 10 ** np.arange(LENGTH - 1, -1, -1)
    assert bucket_of(numbers).min() >= 3


def test_fit_stops_at_the_first_check_that_meets_the_rule() -> None:
    lines: list[str] = []
    assert train.fit(build_model(0), replace(TINY, max_steps=6), (0, 0), lines.append) == 2
    assert len(lines) == 1


def test_fit_says_so_when_the_rule_cannot_be_met() -> None:
    never = replace(TINY, stop_mean=1.0, max_steps=4)
    with pytest.raises(RuntimeError, match="within 4 steps"):
        train.fit(build_model(0), never, (0, 0), lambda line: None)


def test_initialisation_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, second = build_model(5), build_model(5)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.lm_head.weight, second.lm_head.weight)
    assert not torch.equal(first.lm_head.weight, build_model(6).lm_head.weight)


def test_script_refuses_a_folder_with_content(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as caught:
        train.main([str(tmp_path)])
    assert caught.value.code == 2


@pytest.mark.slow
def test_same_seed_same_weights_whatever_the_number_of_processes() -> None:
    tiny = dict.fromkeys(("reverse", "sort"), TINY)
    first = train.train(3, TINY, tiny, processes=1)
    second = train.train(3, TINY, tiny, processes=2)
    other = train.train(4, TINY, tiny, processes=2)
    for name, state in first.items():
        assert all(torch.equal(value, second[name][key]) for key, value in state.items())
    assert not torch.equal(first["sort"]["lm_head.weight"], first["reverse"]["lm_head.weight"])
    assert not torch.equal(first["sort"]["lm_head.weight"], other["sort"]["lm_head.weight"])
