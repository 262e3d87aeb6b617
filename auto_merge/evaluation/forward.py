"""Runs tokenised requests through a live causal language model. Needs torch; knows no task.

Requests are sorted by length inside one call, so that a batch holds little padding. A result
depends on its batch only through the order of float sums inside matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch

from auto_merge.errors import InvalidWeightsError
from auto_merge.evaluation.batches import Batcher, check_tokens, keep_arguments, pad
from auto_merge.evaluation.decoding import Decoding
from auto_merge.evaluation.prompts import ContinuationTokens, GenerationTokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Likelihood = tuple[float, bool]
"""Log-likelihood of a continuation in nats, and whether it is what greedy decoding would say."""


class Runner:
    """Scores continuations and generates answers.

    Args:
        tokenizer: Decodes answers.
        batch_size: Rows per forward pass, >= 1, or ``"auto"``, see
            :class:`~auto_merge.evaluation.batches.Batcher`.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, batch_size: int | Literal["auto"]
    ) -> None:
        self._tokenizer = tokenizer
        self._batches = Batcher(batch_size)

    @torch.no_grad()
    def likelihoods(
        self, model: PreTrainedModel, requests: Sequence[ContinuationTokens]
    ) -> list[Likelihood]:
        """Log-likelihoods in float32, one per request, in request order.

        Requests with equal inputs (one-token choices after one question) share a row.

        Raises:
            InvalidWeightsError: The model returned NaN.
            CheckpointError: A token has no embedding in this model.
            torch.OutOfMemoryError: Not even one row fits, or a fixed batch does not.
            MemoryError: The same on a CPU.
        """
        sharing: dict[tuple[int, ...], list[int]] = {}
        for i, request in enumerate(requests):
            sharing.setdefault(request.inputs, []).append(i)
        results: list[Likelihood] = [(0.0, False)] * len(requests)

        def run(rows: list[tuple[int, ...]]) -> None:
            asked = [(row, i) for row, inputs in enumerate(rows) for i in sharing[inputs]]
            targets = [requests[i].targets for _, i in asked]
            found = _score(model, rows, [row for row, _ in asked], targets)
            for (_, i), result in zip(asked, found, strict=True):
                results[i] = result

        ordered = sorted(sharing, key=lambda inputs: (-len(inputs), inputs))
        self._batches.run(model.device.type, ordered, len, run)
        return results

    @torch.no_grad()
    def answers(self, model: PreTrainedModel, requests: Sequence[GenerationTokens]) -> list[str]:
        """Greedy answers without their stops, one per request, in request order.

        The most likely token is taken at every step; penalties and sampling settings of the model's
        own generation configuration are not applied, its end tokens are.

        Raises:
            InvalidWeightsError, CheckpointError, torch.OutOfMemoryError, MemoryError: As for
                :meth:`likelihoods`.
        """
        results = [""] * len(requests)
        groups: dict[tuple[Any, ...], list[int]] = {}
        for i, request in enumerate(requests):
            settings = (request.stops, request.stop_ids, request.max_new_tokens)
            groups.setdefault(settings, []).append(i)

        def run(batch: list[int]) -> None:
            texts = Decoding(model, self._tokenizer, [requests[i] for i in batch]).run()
            for i, text in zip(batch, texts, strict=True):
                results[i] = text

        def length(i: int) -> int:
            return len(requests[i].inputs) + requests[i].max_new_tokens

        for members in groups.values():
            ordered = sorted(members, key=lambda i: (-len(requests[i].inputs), requests[i].inputs))
            self._batches.run(model.device.type, ordered, length, run)
        return results


def _score(
    model: PreTrainedModel,
    rows: Sequence[tuple[int, ...]],
    places: Sequence[int],
    targets: Sequence[tuple[int, ...]],
) -> list[Likelihood]:
    """One forward pass.

    Args:
        model: The model.
        rows: Distinct inputs, longest first.
        places: For every target the row that predicts it.
        targets: Token sequences; target k is predicted by the last ``len(targets[k])`` outputs of
            its row.
    """
    tokens = pad(rows, "right", 0)
    check_tokens(model, tokens)
    first = min(len(rows[r]) - len(t) for r, t in zip(places, targets, strict=True))
    keep = tokens.shape[1] - first
    logits = model(
        input_ids=tokens.to(model.device), use_cache=False, **keep_arguments(model, keep)
    ).logits
    # Models that ignore the wish return all outputs; the wanted ones are the last in both cases.
    offset = tokens.shape[1] - logits.shape[1]
    spots = [
        (row, len(rows[row]) - len(target) + k - offset, token)
        for row, target in zip(places, targets, strict=True)
        for k, token in enumerate(target)
    ]
    row, column, token = torch.tensor(spots, device=logits.device).T
    picked = logits[row, column].float()
    chosen = picked.gather(1, token[:, None])[:, 0] - picked.logsumexp(-1)
    greedy = picked.argmax(-1) == token
    values, hits = chosen.tolist(), greedy.tolist()
    results = []
    end = 0
    for target in targets:
        start, end = end, end + len(target)
        value = sum(values[start:end])
        if value != value:
            raise InvalidWeightsError("the model returned NaN log-likelihoods")
        results.append((value, all(hits[start:end])))
    return results
