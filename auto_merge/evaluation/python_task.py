"""An objective that is a Python function ``score(model, tokenizer, documents)``.

It goes the same way as a task of lm-eval: nested subsets, held-out documents, the ledger, chunks.
The function's file is trusted code, as a task folder is: it runs in this process.
"""

from __future__ import annotations

import copy
import inspect
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from auto_merge.errors import AutoMergeError, Interrupted, TaskError, nearest
from auto_merge.evaluation.lm_harness_leaf import as_documents, as_number
from auto_merge.evaluation.settings import PythonSource
from auto_merge.evaluation.subsets import Document, digest, divide

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

METRIC = "score,none"
"""The one metric key of a Python objective."""

Function = Callable[["PreTrainedModel", "PreTrainedTokenizerBase", list[dict[str, Any]]], Any]
"""Takes the live model, its tokenizer and some documents; returns one number per document."""


class PythonTask:
    """A Python objective whose documents are divided.

    Args:
        name: Name as configured.
        source: Where function and documents are.
        seed: Seed of the order of documents.

    Attributes:
        name: Name as configured.
        parts: Documents, divided.
        digest: Digest of the file that holds the function, and of the function's name.

    Raises:
        TaskError: The function or the documents cannot be used; the message says why.
    """

    def __init__(self, name: str, source: PythonSource, seed: int) -> None:
        self.name = name
        self._place = f"{source.file}:{source.function}"
        text = _text(source.file, f"task {name!r}: function")
        self._function = self._load(text, source)
        self.digest = digest("python objective", text, source.function)
        documents = self._documents(source.documents, source.metadata)
        other = None
        if source.heldout is not None:
            other = self._documents(source.heldout, source.metadata)
        self.parts = divide(documents, seed=seed, other=other)
        if not self.parts.search or not self.parts.heldout:
            side = "search" if not self.parts.search else "held-out"
            raise TaskError(
                f"task {name!r} has no {side} documents: {len(documents)} in {source.documents}, "
                "duplicates removed; give it more, or a file of held-out ones"
            )

    def _load(self, text: str, source: PythonSource) -> Function:
        # The very text that the digest covers, not a compiled file that may be older.
        module = ModuleType(f"auto_merge_objective_{digest(self._place)}")
        module.__file__ = str(source.file)
        # Data classes and pickles look their module up by name.
        sys.modules[module.__name__] = module
        try:
            code = compile(text, str(source.file), "exec", dont_inherit=True)
            exec(code, module.__dict__)  # noqa: S102 - the user's own file
        except Exception as error:
            raise TaskError(
                f"task {self.name!r}: {source.file} cannot be loaded: {_said(error)}"
            ) from error
        function = module.__dict__.get(source.function)
        if not callable(function):
            known = [name for name, value in module.__dict__.items() if inspect.isfunction(value)]
            raise TaskError(
                f"task {self.name!r}: {source.file} has no function {source.function!r}"
                f"{nearest(source.function, known)}"
            )
        try:
            inspect.signature(function).bind(None, None, None)
        except TypeError as error:
            raise TaskError(
                f"task {self.name!r}: {self._place} has to take (model, tokenizer, documents): "
                f"{error}"
            ) from error
        loaded: Function = function
        return loaded

    def _documents(self, file: Path, metadata: Mapping[str, Any]) -> list[Document]:
        text = _text(file, f"task {self.name!r}: documents")
        contents = []
        # Not splitlines(), which also cuts at characters that JSON allows inside a text.
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            try:
                content = json.loads(line)
            except ValueError as error:
                raise TaskError(
                    f"task {self.name!r}: {file}, line {number} is no JSON: {error}"
                ) from error
            if not isinstance(content, dict):
                raise TaskError(
                    f"task {self.name!r}: {file}, line {number} has to be a JSON object, it is "
                    f"{line.strip()[:60]}"
                )
            contents.append(content)
        if not contents:
            raise TaskError(f"task {self.name!r}: {file} has no documents")
        return as_documents(self.name, contents, metadata)

    def check_metric(self, key: str) -> None:
        """Refuses every metric key but the one that there is.

        Raises:
            TaskError: It is another one.
        """
        if key != METRIC:
            raise TaskError(
                f"task {self.name!r} is a Python function and has no metric {key!r}; "
                f"it has: {METRIC}"
            )

    def score(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        documents: Sequence[Document],
    ) -> list[dict[str, float]]:
        """Calls the function; one metrics mapping per document, in order.

        The function gets copies of the documents, and runs without gradients.

        Raises:
            TaskError: It raised an error, or returned something else than one finite number per
                document.
            MemoryError, torch.OutOfMemoryError: It ran out of memory.
        """
        import torch

        contents = [copy.deepcopy(dict(document.content)) for document in documents]
        try:
            with torch.no_grad():
                returned = self._function(model, tokenizer, contents)
                values = list(returned) if isinstance(returned, Iterable) else None
        except (AutoMergeError, Interrupted, MemoryError, torch.OutOfMemoryError):
            raise
        except (Exception, SystemExit) as error:
            raise TaskError(f"task {self.name!r}: {self._place} raised {_said(error)}") from error
        if values is None or isinstance(returned, (str, bytes, Mapping)):
            raise self._wrong(f"returned {type(returned).__name__}")
        if len(values) != len(documents):
            raise self._wrong(f"returned {len(values)} scores for {len(documents)} documents")
        return [
            {METRIC: self._number(value, document)}
            for value, document in zip(values, documents, strict=True)
        ]

    def _number(self, value: Any, document: Document) -> float:
        number = as_number(value)
        if number is None or not math.isfinite(number):
            shown = " ".join(repr(value).split())[:60]
            raise self._wrong(f"returned {shown} for document {document.index}")
        return number

    def _wrong(self, what: str) -> TaskError:
        rule = "it has to return one finite number per document"
        return TaskError(f"task {self.name!r}: {self._place} {what}; {rule}")


def _text(file: Path, what: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{what} file {file} cannot be read: {_said(error)}") from error


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
