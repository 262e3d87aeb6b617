"""Greedy decoding of one batch of prompts."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from auto_merge.errors import InvalidWeightsError
from auto_merge.evaluation.batches import check_tokens, keep_arguments, pad
from auto_merge.evaluation.prompts import GenerationTokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Decoding:
    """Greedy answers to prompts that share their stop settings.

    Rows whose answer has ended leave the batch as soon as half of it has.

    Args:
        model: A causal language model of transformers.
        tokenizer: Decodes the answers.
        requests: At least one; same ``stops``, ``stop_ids`` and ``max_new_tokens``.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        requests: Sequence[GenerationTokens],
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._prompts = [request.inputs for request in requests]
        self._stops = requests[0].stops
        self._limit = requests[0].max_new_tokens
        self._ends = set(requests[0].stop_ids) | _end_tokens(model)
        # A stop text of n characters is held by the last n tokens, as a token has a character.
        self._window = max((len(stop) for stop in self._stops), default=0)
        self._answers: list[list[int]] = [[] for _ in requests]
        self._over = [False] * len(requests)

    def run(self) -> list[str]:
        """Decodes and returns the answers in request order.

        Raises:
            InvalidWeightsError: The model returned NaN.
        """
        tokens = pad(self._prompts, "left", 0)
        check_tokens(self._model, tokens)
        shortest = min(len(prompt) for prompt in self._prompts)
        mask = None
        if shortest < tokens.shape[1]:
            mask = pad([[1] * len(prompt) for prompt in self._prompts], "left", 0)
            mask = mask.to(self._model.device)
        alive = list(range(len(self._prompts)))
        inputs = tokens.to(self._model.device)
        cache: Any = None
        for _ in range(self._limit):
            logits, cache = self._step(inputs, mask, cache)
            best, chosen = logits.max(-1)
            if not bool(torch.isfinite(best).all()):
                raise InvalidWeightsError("the model returned NaN or infinite outputs")
            going = self._extend(alive, chosen.tolist())
            if not any(going):
                break
            keep = list(range(len(alive)))
            if 2 * sum(going) <= len(alive):
                keep = [k for k, flag in enumerate(going) if flag]
                index = torch.tensor(keep, device=chosen.device)
                cache.batch_select_indices(index)
                chosen = chosen[index]
                mask = mask if mask is None else mask[index]
                alive = [alive[k] for k in keep]
            inputs = chosen[:, None]
            if mask is not None:
                mask = torch.cat([mask, torch.ones_like(inputs)], dim=1)
        return [self._text(answer) for answer in self._answers]

    def _step(
        self, inputs: torch.Tensor, mask: torch.Tensor | None, cache: Any
    ) -> tuple[torch.Tensor, Any]:
        """One forward pass: outputs of the last position ``[n, vocabulary]``, and the cache."""
        extra: dict[str, Any] = {}
        if mask is not None:
            extra["attention_mask"] = mask
            if "position_ids" in inspect.signature(self._model.forward).parameters:
                positions = (mask.cumsum(-1) - 1).clamp(min=0)
                extra["position_ids"] = positions[:, -inputs.shape[1] :]
        output = self._model(
            input_ids=inputs,
            past_key_values=cache,
            use_cache=True,
            **extra,
            **keep_arguments(self._model, 1),
        )
        return output.logits[:, -1].float(), output.past_key_values

    def _extend(self, alive: Sequence[int], chosen: Sequence[int]) -> list[bool]:
        """Adds a token to every answer that is not over; says which ones go on."""
        for row, token in zip(alive, chosen, strict=True):
            if not self._over[row]:
                self._answers[row].append(token)
                self._over[row] = token in self._ends
        going = [row for row in alive if not self._over[row]]
        if self._stops and going:
            windows = [self._answers[row][-self._window :] for row in going]
            for row, text in zip(going, self._tokenizer.batch_decode(windows), strict=True):
                self._over[row] = any(stop in text for stop in self._stops)
        return [not self._over[row] for row in alive]

    def _text(self, answer: list[int]) -> str:
        if answer and answer[-1] in self._ends:
            answer = answer[:-1]
        text = str(self._tokenizer.decode(answer, skip_special_tokens=True))
        for stop in self._stops:
            text = text.split(stop)[0]
        return text


def _end_tokens(model: PreTrainedModel) -> set[int]:
    """End-of-sequence tokens that the model's own generation configuration names."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    if configured is None:
        return set()
    return set(configured) if isinstance(configured, list) else {int(configured)}
