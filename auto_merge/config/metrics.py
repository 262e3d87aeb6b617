"""What is known about lm-eval metrics by name: which way is better, and their range."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Metric:
    """A metric by name.

    Attributes:
        direction: Whether larger or smaller values are better.
        bounds: Lowest and highest possible value; ``None`` if it has none.
    """

    direction: Direction
    bounds: tuple[float, float] | None


_FRACTION = Metric("maximize", (0.0, 1.0))
_PERCENT = Metric("maximize", (0.0, 100.0))
_UNBOUNDED_LOSS = Metric("minimize", None)

_ACCURACIES = ("acc", "acc_norm", "acc_bytes", "acc_all", "acc_mutual_info")
_MATCHES = ("exact_match", "em", "f1", "contains", "mc1", "mc2")
_INSTRUCTIONS = tuple(
    f"{level}_level_{mode}_acc" for level in ("prompt", "inst") for mode in ("strict", "loose")
)
_PERPLEXITIES = ("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "loss")
_ERROR_RATES = ("ter", "wer", "cer")

KNOWN: dict[str, Metric] = {
    **dict.fromkeys((*_ACCURACIES, *_MATCHES, *_INSTRUCTIONS), _FRACTION),
    **dict.fromkeys((*_PERPLEXITIES, *_ERROR_RATES), _UNBOUNDED_LOSS),
    "bleu": _PERCENT,
    "chrf": _PERCENT,
    "mcc": Metric("maximize", (-1.0, 1.0)),
    "brier_score": Metric("minimize", (0.0, 2.0)),
}

_PASS = re.compile(r"pass(@|_at_)\d+")


def find(key: str) -> Metric | None:
    """Returns what is known about a metric key such as ``"acc,none"``; ``None`` if nothing."""
    name = key.split(",")[0]
    return _FRACTION if _PASS.fullmatch(name) else KNOWN.get(name)
