from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from lm_eval.models.huggingface import HFLM
from workshop import STOP, build_model, build_tokenizer

from auto_merge.errors import CheckpointError, InvalidWeightsError
from auto_merge.evaluation.batches import Batcher, pad
from auto_merge.evaluation.forward import Runner
from auto_merge.evaluation.prompts import (
    Continuation,
    ContinuationTokens,
    Generation,
    GenerationTokens,
    Prompter,
)

# Stated tolerance: nats per continuation, float32, whatever the batch.
TOLERANCE = 1e-4
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]

tokenizer = build_tokenizer()
prompter = Prompter(tokenizer, 128)


def texts(count: int) -> list[str]:
    source = random.Random(0)
    return ["".join(source.choices("abcdefxyz Q?", k=source.randint(1, 40))) for _ in range(count)]


def pairs(count: int) -> list[Continuation]:
    return [
        Continuation(text, " " + text[::-1][: 1 + i % 4]) for i, text in enumerate(texts(count))
    ]


def generations(count: int, stops: tuple[str, ...] = ("ab", "\n")) -> list[Generation]:
    return [Generation(text, stops, 12) for text in texts(count)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_batch_size_changes_nothing(device: str, batch_size: int) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    model = build_model().to(device)
    scored, asked = prompter.tokenize(pairs(30)), prompter.tokenize(generations(30))
    reference, runner = Runner(tokenizer, "auto"), Runner(tokenizer, batch_size)
    for expected, found in zip(
        reference.likelihoods(model, scored), runner.likelihoods(model, scored), strict=True
    ):
        assert found[0] == pytest.approx(expected[0], abs=TOLERANCE)
        assert found[1] == expected[1]
    assert reference.answers(model, asked) == runner.answers(model, asked)


def test_order_of_requests_changes_nothing() -> None:
    model, runner = build_model(), Runner(tokenizer, 8)
    requests = prompter.tokenize(pairs(20))
    there = runner.likelihoods(model, requests)
    back = runner.likelihoods(model, requests[::-1])[::-1]
    assert [value for value, _ in there] == pytest.approx([v for v, _ in back], abs=TOLERANCE)


def lm_eval_requests(arguments: Sequence[tuple[object, ...]]) -> list[object]:
    return [type("Request", (), {"args": pair, "task_name": "t"}) for pair in arguments]


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_lm_eval(seed: int) -> None:
    model = build_model(seed)
    harness = HFLM(pretrained=model, tokenizer=build_tokenizer(), batch_size=7, max_length=128)
    runner = Runner(tokenizer, "auto")
    expected = harness.loglikelihood(
        lm_eval_requests([(p.context, p.continuation) for p in pairs(25)]), disable_tqdm=True
    )
    found = runner.likelihoods(model, prompter.tokenize(pairs(25)))
    assert [v for v, _ in found] == pytest.approx([v for v, _ in expected], abs=TOLERANCE)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    options = {"until": ["ab", "\n"], "max_gen_toks": 12, "do_sample": False}
    answers = harness.generate_until(
        lm_eval_requests([(g.context, options) for g in generations(25)]), disable_tqdm=True
    )
    assert runner.answers(model, prompter.tokenize(generations(25))) == answers


def test_hand_worked_likelihood() -> None:
    # Every output equals the bias-free head of a zero hidden state: all tokens equally likely.
    model = build_model()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    size = model.config.vocab_size
    [(value, _)] = Runner(tokenizer, 1).likelihoods(
        model, [ContinuationTokens(inputs=(5, 6, 7), targets=(7, 8))]
    )
    assert value == pytest.approx(2 * -torch.log(torch.tensor(float(size))).item())


def test_choices_of_one_token_share_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model()
    shapes = []
    forward = model.forward
    monkeypatch.setattr(
        model, "forward", lambda **k: (shapes.append(tuple(k["input_ids"].shape)), forward(**k))[1]
    )
    requests = prompter.tokenize([Continuation("abc=", letter) for letter in "abcd"])
    values = Runner(tokenizer, "auto").likelihoods(model, requests)
    assert shapes == [(1, 4)]
    assert len({value for value, _ in values}) == 4


def test_answers_end_at_end_tokens_of_the_model() -> None:
    model = build_model()
    [free] = Runner(tokenizer, 1).answers(model, prompter.tokenize([Generation("abc", (), 10)]))
    third = tokenizer.encode(free)[2]
    model.generation_config.eos_token_id = [2, third]
    [cut] = Runner(tokenizer, 1).answers(model, prompter.tokenize([Generation("abc", (), 10)]))
    first = tokenizer.encode(free).index(third)
    assert cut == free[:first]


def test_stop_over_several_tokens_is_cut_off() -> None:
    model, runner = build_model(), Runner(tokenizer, 1)
    [free] = runner.answers(model, prompter.tokenize([Generation("hello", (), 20)]))
    assert STOP not in free
    stop = free[3:6]
    [cut] = runner.answers(model, prompter.tokenize([Generation("hello", (stop,), 20)]))
    assert cut == free[: free.index(stop)]


def test_nan_is_an_error_and_never_a_score() -> None:
    model = build_model()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    runner = Runner(tokenizer, 4)
    with pytest.raises(InvalidWeightsError):
        runner.likelihoods(model, prompter.tokenize(pairs(3)))
    with pytest.raises(InvalidWeightsError):
        runner.answers(model, prompter.tokenize(generations(3)))


def test_token_without_embedding() -> None:
    runner = Runner(tokenizer, 4)
    with pytest.raises(CheckpointError, match=r"gives token 999, but the model has only \d+ emb"):
        runner.likelihoods(build_model(), [ContinuationTokens((999, 1), (1,))])
    with pytest.raises(CheckpointError, match="gives token 999"):
        runner.answers(build_model(), [GenerationTokens((999,), (), (2,), 3)])


def test_pad() -> None:
    assert pad([[1, 2], [3]], "left", 0).tolist() == [[1, 2], [0, 3]]
    assert pad([[1, 2], [3]], "right", 9).tolist() == [[1, 2], [3, 9]]


def test_auto_halves_the_batch_when_memory_runs_out() -> None:
    done: list[list[int]] = []
    failed = []

    def run(batch: list[int]) -> None:
        if len(batch) > 100:
            failed.append(len(batch))
            raise torch.OutOfMemoryError("out")
        done.append(batch)

    batches = Batcher("auto")
    batches.run("cpu", list(range(400)), lambda _: 8, run)
    assert [item for batch in done for item in batch] == list(range(400))
    assert max(map(len, done)) <= 100
    first = len(failed)
    assert first > 0
    batches.run("cpu", list(range(400)), lambda _: 8, run)
    assert len(failed) == first


def test_what_does_not_fit_at_all_is_an_error() -> None:
    def run(batch: list[int]) -> None:
        raise torch.OutOfMemoryError("out")

    for size in ("auto", 4):
        with pytest.raises(torch.OutOfMemoryError):
            Batcher(size).run("cpu", [1, 2, 3], lambda _: 1, run)


def test_cpu_allocator_failure_is_a_memory_error() -> None:
    def run(batch: list[int]) -> None:
        torch.empty(2**60, dtype=torch.float32)

    with pytest.raises(MemoryError):
        Batcher("auto").run("cpu", [1], lambda _: 1, run)


FAMILIES: dict[str, dict[str, object]] = {
    "mistral": {"sliding_window": 8, "head_dim": 8},
    "qwen2": {"use_sliding_window": False},
    "qwen3": {"head_dim": 8},
    "gemma2": {"sliding_window": 8, "head_dim": 8, "final_logit_softcapping": 3.0},
    "gemma3_text": {"sliding_window": 8, "head_dim": 8},
    "gpt_neox": {},
    "phi": {},
    "gpt2": {"n_positions": 128, "n_embd": 32, "n_layer": 2, "n_head": 4},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_to_lm_eval_in_every_family(family: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2 if family not in ("gpt_neox", "phi") else 4,
        max_position_embeddings=128,
        initializer_range=0.3,
        bos_token_id=2,
        eos_token_id=2,
        pad_token_id=0,
        **FAMILIES[family],
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
    harness = HFLM(pretrained=model, tokenizer=build_tokenizer(), batch_size=5, max_length=128)
    runner = Runner(tokenizer, "auto")
    expected = harness.loglikelihood(
        lm_eval_requests([(p.context, p.continuation) for p in pairs(10)]), disable_tqdm=True
    )
    found = runner.likelihoods(model, prompter.tokenize(pairs(10)))
    assert [v for v, _ in found] == pytest.approx([v for v, _ in expected], abs=TOLERANCE)
    options = {"until": ["ab", "\n"], "max_gen_toks": 12, "do_sample": False}
    answers = harness.generate_until(
        lm_eval_requests([(g.context, options) for g in generations(10)]), disable_tqdm=True
    )
    assert runner.answers(model, prompter.tokenize(generations(10))) == answers
