from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.api.model import TemplateLM
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from auto_merge.errors import TaskError
from auto_merge.evaluation.prompts import (
    Continuation,
    ContinuationTokens,
    Generation,
    GenerationTokens,
    Prompter,
    resolve_max_length,
)

VOCABULARY = ["<s>", "</s>", "<unk>", "<x>", " a", "a", "b", " ", "ab", "\n", "b\n"]


def build(begin: bool) -> PreTrainedTokenizerFast:
    """A tokenizer that merges across the border of prompt and answer; with or without <s>."""
    ids = {token: i for i, token in enumerate(VOCABULARY)}
    merges = [(" ", "a"), ("a", "b"), ("b", "\n")]
    tokenizer = Tokenizer(models.BPE(ids, merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_next")
    if begin:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>" if begin else None,
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<x>"],
    )


class Harness(TemplateLM):
    """lm-eval's own rules for cutting a pair, on our tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else begin

    def tok_encode(self, string: str, add_special_tokens: bool | None = None) -> list[int]:
        if add_special_tokens is None:
            prefix = self.tokenizer.decode(self.prefix_token_id)
            add_special_tokens = not string.startswith(prefix)
        return self.tokenizer.encode(string, add_special_tokens=add_special_tokens)

    def _loglikelihood_tokens(self, requests, **kwargs):
        return [(context, continuation) for _, context, continuation in requests]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError

    def generate_until(self, requests, disable_tqdm=False):
        raise NotImplementedError


@pytest.mark.parametrize("begin", [True, False])
@given(context=st.text("ab \n", max_size=6), continuation=st.text("ab \n", min_size=1, max_size=5))
def test_pairs_are_cut_as_in_lm_eval(begin: bool, context: str, continuation: str) -> None:
    tokenizer = build(begin)
    if context and not context.strip() and not begin:
        return  # lm-eval refuses a prompt of blanks without a begin token
    request = type("Request", (), {"args": (context, continuation)})
    [(before, after)] = Harness(tokenizer).loglikelihood([request], disable_tqdm=True)
    if not after:
        with pytest.raises(TaskError, match="has no token of its own"):
            Prompter(tokenizer, 50).tokenize([Continuation(context, continuation)])
        return
    [tokens] = Prompter(tokenizer, 50).tokenize([Continuation(context, continuation)])
    assert tokens == ContinuationTokens(tuple((before + after)[:-1]), tuple(after))


def test_long_prompts_lose_their_beginning() -> None:
    prompter = Prompter(build(False), 4)
    [pair, answer] = prompter.tokenize(
        [Continuation("a\na\na\na", "bb"), Generation("a\na\na\na", ("\n",), 1)]
    )
    assert isinstance(pair, ContinuationTokens)
    assert len(pair.inputs) == 4
    assert isinstance(answer, GenerationTokens)
    assert answer.inputs == tuple(build(False).encode("\na\na"))[-3:]


def test_a_text_that_begins_with_the_begin_token_gets_no_second_one() -> None:
    [tokens] = Prompter(build(True), 50).tokenize([Generation("<s>ab", (), 5)])
    assert tokens.inputs == (0, 8)


def test_special_stops_become_tokens() -> None:
    [tokens] = Prompter(build(False), 50).tokenize([Generation("a", ("b\n", "<x>", "</s>", ""), 5)])
    assert isinstance(tokens, GenerationTokens)
    assert tokens.stops == ("b\n",)
    assert tokens.stop_ids == (1, 3)


def test_refusals() -> None:
    prompter = Prompter(build(False), 8)
    with pytest.raises(TaskError, match=r"max_gen_toks 8 leaves no room .* 8 tokens"):
        prompter.tokenize([Generation("a", (), 8)])
    with pytest.raises(TaskError, match="continuation of 9 tokens does not fit into the model's 8"):
        prompter.tokenize([Continuation("a", "\n" * 9)])
    bare = build(False)
    bare.eos_token = None
    with pytest.raises(TaskError, match="needs a tokenizer with a begin or an end token"):
        Prompter(bare, 8).tokenize([Continuation("", "a")])


def test_digest_sees_rules_and_template() -> None:
    plain, other, chatty = build(False), build(True), build(False)
    chatty.chat_template = "{{ messages }}"
    digests = {Prompter(t, 8).digest() for t in (plain, other, chatty, build(False))}
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"max_position_embeddings": 77}, 77),
        ({"max_position_embeddings": 77, "text_config": {"max_position_embeddings": 99}}, 99),
        ({"n_ctx": 55}, 55),
        ({}, 2048),
        (None, 2048),
    ],
)
def test_max_length(tmp_path: Path, config: dict[str, object] | None, expected: int) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    tokenizer = build(False)
    assert resolve_max_length(tmp_path, tokenizer) == expected
    tokenizer.model_max_length = 33
    assert resolve_max_length(tmp_path, tokenizer) == (33 if expected == 2048 else expected)
