"""Prompt of the Winograd schemas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lm_eval.utils import general_detokenize


def prompt(doc: Mapping[str, Any]) -> str:
    """The passage with its pronoun between stars, and the question about it.

    ``span2_index`` counts words, so the pronoun is looked for from that word on: it may be the
    first word, and a mark may be written to it.
    """
    words = str(doc["text"]).split()
    noun, pronoun = doc["span1_text"], doc["span2_text"]
    before = "".join(word + " " for word in words[: doc["span2_index"]])
    after = " ".join(words[doc["span2_index"] :]).replace(pronoun, f"*{pronoun}*", 1)
    return (
        f"Passage: {general_detokenize((before + after).rstrip())}\n"
        f"Question: In the passage above, does the pronoun # {pronoun} # refer to * {noun} *?\n"
        "A. Yes\nB. No\nAnswer:"
    )
