"""Prompts as text and as tokens, the way lm-eval's Hugging Face backend cuts them.

Tokens are made once per document and used for every candidate, so nothing here knows a model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auto_merge.errors import TaskError
from auto_merge.evaluation.subsets import canonical_json, digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_MAX_LENGTH = 2048


@dataclass(frozen=True)
class Continuation:
    """Asks for the log-likelihood of ``continuation`` after ``context``."""

    context: str
    continuation: str


@dataclass(frozen=True)
class Generation:
    """Asks for the greedy answer to ``context``.

    Attributes:
        context: The prompt.
        stops: Texts that end the answer and do not belong to it.
        max_new_tokens: Upper bound of the answer's length.
    """

    context: str
    stops: tuple[str, ...]
    max_new_tokens: int


@dataclass(frozen=True)
class ContinuationTokens:
    """A tokenised :class:`Continuation`.

    Attributes:
        inputs: What the model reads: context and continuation without its last token.
        targets: The continuation's tokens; the last ``len(targets)`` outputs predict them.
    """

    inputs: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True)
class GenerationTokens:
    """A tokenised :class:`Generation`.

    Attributes:
        inputs: The prompt.
        stops: Stop texts that have to be looked for in the decoded answer.
        stop_ids: Tokens that end the answer.
        max_new_tokens: Upper bound of the answer's length.
    """

    inputs: tuple[int, ...]
    stops: tuple[str, ...]
    stop_ids: tuple[int, ...]
    max_new_tokens: int


Request = Continuation | Generation
Tokens = ContinuationTokens | GenerationTokens


class Prompter:
    """Turns requests into tokens.

    Args:
        tokenizer: The one tokenizer of all candidates.
        max_length: Longest input in tokens; longer ones lose their beginning, as in lm-eval.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
        # lm-eval's rule: an empty context is replaced by this token, and a text that begins with it
        # gets no second one.
        self._prefix_id: int | None = begin if begin is not None else end
        self._prefix = "" if self._prefix_id is None else str(tokenizer.decode([self._prefix_id]))

    def digest(self) -> str:
        """Digest of everything in the tokenizer that can change a prompt or an answer."""
        tokenizer = self.tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        rules = backend.to_str() if backend is not None else canonical_json(tokenizer.get_vocab())
        special = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
        template = canonical_json(getattr(tokenizer, "chat_template", None))
        return digest(rules, canonical_json(special), template)

    def tokenize(self, requests: Sequence[Request]) -> list[Tokens]:
        """Tokenises requests.

        Raises:
            TaskError: A continuation has no token of its own, an empty context meets a tokenizer
                without begin and end tokens, or an answer's length leaves no room for a prompt.
        """
        texts: list[str] = []
        for request in requests:
            if isinstance(request, Continuation):
                # The blank before a word belongs to the word's token.
                context = request.context.rstrip()
                texts += [context, request.context + request.continuation]
            else:
                texts.append(request.context)
        encoded = iter(self._encode(texts))
        tokens: list[Tokens] = []
        for request in requests:
            if isinstance(request, Continuation):
                tokens.append(self._continuation(request, next(encoded), next(encoded)))
            else:
                tokens.append(self._generation(request, next(encoded)))
        return tokens

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Encodes texts in two batches: with and without the tokenizer's own special tokens."""
        plain = [not (self._prefix and text.startswith(self._prefix)) for text in texts]
        encoded: list[list[int]] = [[] for _ in texts]
        for special in (True, False):
            places = [i for i, flag in enumerate(plain) if flag is special]
            if not places:
                continue
            batch = self.tokenizer(
                [texts[i] for i in places],
                add_special_tokens=special,
                return_attention_mask=False,
                verbose=False,
            )
            for i, ids in zip(places, batch["input_ids"], strict=True):
                encoded[i] = ids
        return encoded

    def _require_prefix(self) -> int:
        if self._prefix_id is None:
            raise TaskError("an empty prompt needs a tokenizer with a begin or an end token")
        return self._prefix_id

    def _continuation(
        self, request: Continuation, context: list[int], whole: list[int]
    ) -> ContinuationTokens:
        if not request.context.strip():
            # Something has to precede the first token; blanks are part of the continuation.
            prefix = self._require_prefix()
            text = request.context + request.continuation
            whole = self.tokenizer.encode(text, add_special_tokens=False)
            context = [prefix]
            whole = whole if whole[:1] == context else [prefix, *whole]
        targets = whole[len(context) :]
        if not targets:
            raise TaskError(
                f"the continuation {request.continuation!r} has no token of its own after its "
                "prompt; give it text, or check target_delimiter"
            )
        if len(targets) > self.max_length:
            raise TaskError(
                f"a continuation of {len(targets)} tokens does not fit into the model's "
                f"{self.max_length}; shorten it"
            )
        # As in lm-eval, the context counts for the tokens it has alone, however the join falls.
        tokens = (context + targets)[-(self.max_length + 1) :]
        return ContinuationTokens(tuple(tokens[:-1]), tuple(targets))

    def _generation(self, request: Generation, context: list[int]) -> GenerationTokens:
        room = self.max_length - request.max_new_tokens
        if room <= 0:
            raise TaskError(
                f"max_gen_toks {request.max_new_tokens} leaves no room for a prompt in the "
                f"model's {self.max_length} tokens; set generation_kwargs.max_gen_toks"
            )
        if not context:
            context = [self._require_prefix()]
        special = set(self.tokenizer.all_special_tokens)
        ids = {self.tokenizer.convert_tokens_to_ids(s) for s in request.stops if s in special}
        if self.tokenizer.eos_token_id is not None:
            ids.add(self.tokenizer.eos_token_id)
        stops = tuple(s for s in request.stops if s and s not in special)
        return GenerationTokens(
            tuple(context[-room:]), stops, tuple(sorted(ids)), request.max_new_tokens
        )


def resolve_max_length(folder: Path, tokenizer: PreTrainedTokenizerBase) -> int:
    """Longest input of the model in ``folder`` in tokens, by lm-eval's rule.

    Looks at ``config.json`` (``text_config`` first), then at the tokenizer's ``model_max_length``.
    """
    config: dict[str, Any] = {}
    file = folder / "config.json"
    if file.is_file():
        config = json.loads(file.read_text(encoding="utf-8"))
    config = config.get("text_config") or config
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        if config.get(name) is not None:
            return int(config[name])
    declared = int(tokenizer.model_max_length)
    # transformers stands for "not declared" with 10**30.
    return declared if declared < 10**12 else DEFAULT_MAX_LENGTH
