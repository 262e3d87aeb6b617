"""Finds the code in what a model answers to a request for code."""

from __future__ import annotations

import re
from collections.abc import Iterable

_RESPONSE = "### Response:"
_FENCE = re.compile(r"```(?:python3?|py)?[ ]*\n", re.I)
_AFTER_CODE = ('if __name__ == "__main__":', "# Example usage")
_ANNOUNCEMENTS = ("The solution is:", "The answer is:")
_NEXT_ANSWER = "\n\nThe answer is:"
_BLANK_LINES = re.compile(r"\A(?: *\n)+")


def extract_code(answer: str, *, cut_at: Iterable[str] = ()) -> str:
    """Returns the code in an answer, which may be all of it.

    In this order: what follows the last ``### Response:``; tabs become four spaces; the content of
    the first fenced block, closed or not; nothing from a main block or an example of use on; what
    follows ``The solution is:``, then what follows ``The answer is:``, each up to the next answer.
    Blank lines before and blanks after the code go. The indentation of its first line stays, as it
    may be the body of a function whose head stands in the prompt.

    Args:
        answer: What the model said, prompt included or not.
        cut_at: More texts that the code ends before.
    """
    text = answer.rpartition(_RESPONSE)[2].replace("\r\n", "\n").replace("\t", "    ")
    fence = _FENCE.search(text)
    if fence is not None:
        text = text[fence.end() :].partition("```")[0]
    for marker in (*_AFTER_CODE, *cut_at):
        text = text.partition(marker)[0]
    for announcement in _ANNOUNCEMENTS:
        if announcement in text:
            text = text.partition(announcement)[2].partition(_NEXT_ANSWER)[0]
    return _BLANK_LINES.sub("", text).rstrip()
