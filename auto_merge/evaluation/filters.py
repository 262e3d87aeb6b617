r"""Numbers in generated answers, in one spelling. Pure functions; knows no vendor.

An answer counts as right when its text equals the target's, so both are brought to one spelling:
``1,234,567`` and ``$1234567.00`` to ``1234567``, ``.50``, ``1/2`` and ``\frac{1}{2}`` to ``0.5``,
``2/6`` to ``1/3``. Values are exact, nothing is rounded.

Read are decimals, thousands separators (groups of three), signs, currencies, percentages (the sign
is dropped), fractions, mixed numbers, full-width and other decimal digits of Unicode. Not read are
decimal commas (``0,5``), powers of ten and number words. Every function takes time in proportion to
the length of its text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from fractions import Fraction

INVALID = "[invalid]"
"""What a filter gives for a text without an answer; no target is spelled like this."""

ENGLISH_DELIMITERS = ("The answer is:",)
CHINESE_DELIMITERS = ("答案是", "答案为", "答案：", "答案:")
JAPANESE_DELIMITERS = ("答えは", "答え：", "答え:")

# Fractions are computed with big integers, whose cost is no longer proportional to their length.
_MAX_FRACTION_DIGITS = 50

_NUMBER = r"(?:[0-9]+(?:,[0-9]+)*(?:\.[0-9]+)?|(?<![0-9A-Za-z])\.[0-9]+)"
_ANSWER = re.compile(
    r"(?P<sign>(?<![0-9A-Za-z)])[-+])?(?:[$€£¥]\s?)?"
    r"(?:(?P<whole>[0-9]+)\s(?P<over>[0-9]+)/(?P<under>[0-9]+)"
    rf"|(?P<number>{_NUMBER})(?:\s?/\s?(?P<denominator>{_NUMBER}))?)"
)
_DIGIT = re.compile(r"[0-9]")
_GROUPED = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s?\{([0-9.]{1,99})\}\s?\{([0-9.]{1,99})\}")
# Stands before a fraction that was one sign: 3½ is the mixed number 3 1/2, but -½ has no gap.
_JOINT = "\x00"
_AFTER_DIGIT = re.compile(rf"(?<=[0-9]){_JOINT}")
_NONE = re.compile(r"\W{0,9}none\W{0,9}(?:\n|$)", re.IGNORECASE)
_SIGNS = {"−": "-", "⁄": "/", "∕": "/", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "￥": "¥"}


def first_number(text: str) -> str | None:
    """The first number of a text in canonical spelling; ``None`` if there is none.

    Examples: ``"$1,234.50 a day"`` -> ``"1234.5"``, ``"3 1/2 kg"`` -> ``"3.5"``, ``"5/0"`` ->
    ``None``.
    """
    text = _plain(text)
    digit = _DIGIT.search(text)
    if digit is None:
        return None
    # At most a sign, a currency, a blank and a point stand before the first digit.
    match = _ANSWER.search(text, max(0, digit.start() - 4))
    assert match is not None
    return _readings(match)[0]


def last_number(text: str) -> str | None:
    """The last number of a text in canonical spelling; ``None`` if there is none."""
    last = None
    for match in _ANSWER.finditer(_plain(text)):
        last = match
    return None if last is None else _readings(last)[-1]


def number_or_text(text: object) -> str:
    """Spelling of a target: its number if it has one, else its text without surrounding blanks.

    A target without a number (``"None"``, for a question without an answer) stays as it is: were it
    :data:`INVALID`, every answer that cannot be read would count as right.
    """
    plain = str(text).strip()
    return first_number(plain) or plain


def answer_after(text: str, delimiters: tuple[str, ...]) -> str:
    """The first number after the last delimiter of a text, in canonical spelling.

    Args:
        text: A generated answer.
        delimiters: Phrases that announce the answer; that which ends last counts.

    Returns:
        The number; ``"None"`` if that word stands there alone; :data:`INVALID` without delimiter or
        number.
    """
    ends = [text.rfind(phrase) + len(phrase) for phrase in delimiters if phrase in text]
    if not ends:
        return INVALID
    tail = text[max(ends) :]
    return "None" if _NONE.match(tail) else first_number(tail) or INVALID


def get_answer(text: str) -> str:
    """The number after the last ``The answer is:``."""
    return answer_after(text, ENGLISH_DELIMITERS)


def get_answer_zh(text: str) -> str:
    """The number after the last ``答案是：``, ``答案为`` or ``答案：``."""
    return answer_after(text, CHINESE_DELIMITERS)


def get_answer_ja(text: str) -> str:
    """The number after the last ``答えは`` or ``答え：``."""
    return answer_after(text, JAPANESE_DELIMITERS)


def get_last_number(text: str) -> str:
    """The last number of the text, wherever it stands."""
    return last_number(text) or INVALID


ANSWER_FILTERS: Mapping[str, Callable[[str], str]] = {
    "get_answer": get_answer,
    "get_answer_zh": get_answer_zh,
    "get_answer_ja": get_answer_ja,
    "get_last_number": get_last_number,
}
"""Answer filters by the names under which task files use them."""


def _plain(text: str) -> str:
    """The text with ASCII digits and signs, and fractions written with a slash.

    Unicode's compatibility forms (NFKC) would do most of it, but turn ``5²`` into 52 and ``3½``
    into 31/2.
    """
    table = {ord(sign): plain for sign in set(text) if (plain := _ascii(sign)) is not None}
    text = text.translate(table) if table else text
    if "\\" in text or "{,}" in text:
        text = _LATEX_FRACTION.sub(rf"{_JOINT}\1/\2", text)
        for mark, plain in (("{,}", ","), (r"\!", ""), (r"\$", "$")):
            text = text.replace(mark, plain)
    if _JOINT in text:
        text = _AFTER_DIGIT.sub(" ", text).replace(_JOINT, "")
    return text


def _ascii(sign: str) -> str | None:
    """Replacement of one character; ``None`` to leave it."""
    if sign.isascii():
        return None
    if sign in _SIGNS:
        return _SIGNS[sign]
    if "\uff01" <= sign <= "\uff5e":  # full-width forms
        return chr(ord(sign) - 0xFEE0)
    if (digit := unicodedata.decimal(sign, None)) is not None:
        return str(digit)
    if unicodedata.decomposition(sign).startswith("<fraction>"):
        return _JOINT + unicodedata.normalize("NFKC", sign).replace("⁄", "/")
    return None


def _readings(match: re.Match[str]) -> list[str | None]:
    """Canonical values of a match: one, or the first and the last of a list as ``1,2,3``."""
    sign = "-" if match["sign"] == "-" else ""
    if match["whole"] is not None:
        return _mixed(sign, match["whole"], match["over"], match["under"])
    integer, point, decimals = match["number"].partition(".")
    pieces = integer.split(",")
    if len(pieces) > 1 and _GROUPED.fullmatch(integer):
        pieces = ["".join(pieces)]
    elif len(pieces) > 1:
        pieces = [pieces[0], pieces[-1]]
    pieces[-1] += point + decimals
    values: list[str | None] = [_decimal("", piece) for piece in pieces]
    if match["denominator"] is not None:
        values[-1] = _fraction(pieces[-1], match["denominator"].replace(",", ""))
    if sign and values[0] not in (None, "0"):
        values[0] = f"-{values[0]}"
    return values


def _mixed(sign: str, whole: str, over: str, under: str) -> list[str | None]:
    if len(over) + len(under) > _MAX_FRACTION_DIGITS or int(over) >= int(under):
        return [_decimal(sign, whole), _fraction(over, under)]
    if len(whole) > _MAX_FRACTION_DIGITS:
        return [None]
    return [_spell((-1 if sign else 1) * (int(whole) + Fraction(int(over), int(under))))]


def _decimal(sign: str, digits: str) -> str:
    """Canonical spelling of ``[0-9]*(.[0-9]+)?`` of any length."""
    integer, _, decimals = digits.partition(".")
    integer, decimals = integer.lstrip("0") or "0", decimals.rstrip("0")
    value = f"{integer}.{decimals}" if decimals else integer
    return value if value == "0" else sign + value


def _fraction(over: str, under: str) -> str | None:
    """Canonical value of a fraction of decimals; ``None`` if it has none or is absurdly long."""
    if len(over) + len(under) > _MAX_FRACTION_DIGITS:
        return None
    divisor = Fraction(under)
    return _spell(Fraction(over) / divisor) if divisor else None


def _spell(value: Fraction) -> str:
    """Exact decimals where they end, else a reduced fraction."""
    rest, places = value.denominator, 0
    for prime in (2, 5):
        power = 0
        while rest % prime == 0:
            rest, power = rest // prime, power + 1
        places = max(places, power)
    if rest > 1:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    whole, decimals = digits[: len(digits) - places], digits[len(digits) - places :]
    return _decimal("-" if value < 0 else "", f"{whole}.{decimals}")
