"""Makes our answer filters known to lm-eval, so that task files can name them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from auto_merge.evaluation import filters
from auto_merge.evaluation.subsets import digest


def register_filters() -> None:
    """Registers :data:`auto_merge.evaluation.filters.ANSWER_FILTERS`; once is enough.

    A filter gives one text per document, that of its first response, so ``take_first`` does not
    follow it. A name that is taken already, by a filter of the user's, keeps its meaning.
    """
    from lm_eval.api.registry import filter_registry

    for name, extract in filters.ANSWER_FILTERS.items():
        if name not in filter_registry:
            filter_registry.register(name)(_filter_class(extract))


def answer_code(config: Mapping[str, Any]) -> list[str]:
    """Digest of the code that reads answers, for a task that uses it; else nothing.

    Args:
        config: The task's YAML, functions as text.
    """
    used = {
        step.get("function")
        for pipeline in config.get("filter_list") or ()
        for step in pipeline.get("filter") or ()
    }
    if not used & filters.ANSWER_FILTERS.keys():
        return []
    return [digest("filters.py", Path(filters.__file__).read_text(encoding="utf-8"))]


def _filter_class(extract: Callable[[str], str]) -> type:
    from lm_eval.api.filter import Filter

    class AnswerFilter(Filter):  # type: ignore[misc]
        def apply(
            self, resps: Iterable[str | Sequence[str]], docs: Sequence[Mapping[str, Any]]
        ) -> list[str]:
            # After take_first a response is a text already.
            return [extract(resp if isinstance(resp, str) else resp[0]) for resp in resps]

    return AnswerFilter
