"""The ``evaluation`` section: what candidates are scored on, and how."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from auto_merge.config import metrics
from auto_merge.config.fields import (
    Count,
    Flag,
    Number,
    OptionalText,
    Positive,
    Seconds,
    Section,
    Text,
)
from auto_merge.config.places import show

_DEVICE = r"^(auto|cpu|mps|cuda(:\d+)?)$"
_DeviceInput = Annotated[str, Field(pattern=_DEVICE)] | Literal[""] | None


@dataclass(frozen=True)
class TaskFunction:
    """A Python objective, its files resolved.

    Attributes:
        file: Absolute; may not exist.
        name: Function in it.
        documents: Absolute; may not exist.
        heldout: Absolute; ``None`` holds out half of ``documents``.
        metadata: ``stratum`` and ``passage`` name fields of the documents.
    """

    file: Path
    name: str
    documents: Path
    heldout: Path | None
    metadata: Mapping[str, Any]


class FloorEntry(Section):
    """A constraint on one metric."""

    model: Text
    """Name of one of `models` or of the base model."""
    margin: Annotated[float, Field(strict=True, ge=0)] = 0.0
    """How much worse than that model is allowed, in the metric's own unit, at least 0."""


class TaskEntry(Section):
    """One task metric to improve; every further key is a setting of the lm-eval task itself."""

    model_config = ConfigDict(extra="allow")

    task: Text
    """Name of an lm-eval task or task group."""
    metric: Text
    """Result key as lm-eval prints it, `<metric>,<filter>`, for example `acc,none`."""
    direction: Literal["maximize", "minimize"] | None = None
    """Whether larger or smaller values are better. Default: known from the metric's name
    (perplexities and losses are minimised), else `maximize`."""
    bounds: tuple[Number, Number] | None = None
    """Lowest and highest possible value `[low, high]`; scores are scaled to [0, 1] with it.
    Default: known for fractions and percentages such as `acc`, `exact_match`, `pass_at_1`,
    `bleu`; required for all other metrics."""
    weight: Annotated[float, Field(strict=True, gt=0)] = 1.0
    """Share in the weighted mean of all tasks; above 0."""
    floor: FloorEntry | None = None
    """Constraint: the result may not be worse on this metric than a given model by more than a
    margin. It is judged at the end on documents that both were scored on; null for none."""
    function: OptionalText = None
    """Python function `FILE.py:NAME` that scores documents, instead of an lm-eval task; its metric
    is `score,none` and needs `bounds`."""
    documents: OptionalText = None
    """JSON Lines file with the documents of `function`."""
    heldout_documents: OptionalText = None
    """JSON Lines file with the held-out documents of `function`. Null: the second half of the
    seeded permutation of `documents`."""

    @field_validator("metric")
    @classmethod
    def _has_filter(cls, metric: str) -> str:
        if not re.fullmatch(r"[^,\s]+,[^,\s]+", metric):
            raise ValueError(
                f"must be '<metric>,<filter>' as lm-eval prints it, for example 'acc,none', "
                f"got {show(metric)}"
            )
        return metric

    @field_validator("bounds", mode="before")
    @classmethod
    def _is_range(cls, bounds: Any) -> Any:
        if bounds is None:
            return None
        numbers = isinstance(bounds, (list, tuple)) and all(
            isinstance(bound, (int, float)) and not isinstance(bound, bool) for bound in bounds
        )
        if not numbers or len(bounds) != 2 or not bounds[0] < bounds[1]:
            raise ValueError(f"must be two numbers [low, high] with low < high, got {bounds!r}")
        return tuple(bounds)

    @field_validator("function")
    @classmethod
    def _names_file_and_function(cls, function: str | None) -> str | None:
        if function is not None and not re.fullmatch(r".+\.py:[A-Za-z_]\w*", function):
            raise ValueError(f"must be FILE.py:NAME, got {show(function)}")
        return function

    @model_validator(mode="after")
    def _function_has_documents(self) -> TaskEntry:
        if self.function is None:
            for key in ("documents", "heldout_documents"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key} belongs to a Python objective; give its function too")
        elif self.documents is None:
            raise ValueError("a Python objective needs documents, a JSON Lines file")
        elif extra := sorted(set(self.overrides) - {"metadata"}):
            raise ValueError(f"{extra[0]!r} is a setting of lm-eval tasks, not of a function")
        return self

    @model_validator(mode="after")
    def _overrides_are_meant(self) -> TaskEntry:
        for key in self.overrides:
            close = difflib.get_close_matches(key, type(self).model_fields, n=1, cutoff=0.8)
            if close:
                raise ValueError(f"unknown key {key!r}; did you mean {close[0]!r}?")
        return self

    @property
    def overrides(self) -> Mapping[str, Any]:
        """Settings of the lm-eval task that this entry replaces, as ``test_split``."""
        return dict(self.model_extra or {})

    @property
    def meaning(self) -> Mapping[str, Any]:
        """What makes this entry's task another one than that of an equal name."""
        own = {key: getattr(self, key) for key in ("function", "documents", "heldout_documents")}
        return {**self.overrides, **own}

    @property
    def known(self) -> metrics.Metric | None:
        """What is known about the metric by its name."""
        return metrics.find(self.metric)


class Holdout(Section):
    """Where held-out documents come from."""

    split: Text
    """Split of each task's data set whose documents are held out; the search never sees it."""


def _batch_size(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError(f"must be 'auto' or an integer of at least 1, got {show(value)}")


def _as_texts(value: Any) -> Any:
    if value in (None, ""):
        return ()
    return [value] if isinstance(value, str) else value


BatchSize = Annotated[
    Literal["auto"] | Positive,
    BeforeValidator(_batch_size, json_schema_input_type=Literal["auto"] | Positive),
]
Folders = Annotated[
    tuple[Text, ...],
    BeforeValidator(_as_texts, json_schema_input_type=str | list[str] | None),
]


class Evaluation(Section):
    """How candidates are scored."""

    in_memory: Flag = True
    """`true` scores the merged model where it was made; `false` writes each candidate to a
    folder first and scores that (slow, same scores)."""
    vllm: Flag = False
    """Score with vLLM. Not available in this version; a dry run still checks the rest."""
    enforce_eager: Flag = True
    """vLLM without CUDA graphs; has no effect without `vllm`."""
    batch_size: BatchSize = "auto"
    """Documents (requests) per forward pass, at least 1; `auto` fits it to the memory. Scores do
    not depend on it."""
    torch_dtype: Literal["float32", "float16", "bfloat16", "auto"] = "auto"
    """Data type of the model while it is scored; `auto` is the sources' own."""
    num_fewshot: Count | None = None
    """Few-shot examples per prompt, at least 0, for tasks whose entry has no `num_fewshot` of
    its own; null leaves the task's setting."""
    limit: Number | None = None
    """Documents per task (below 1: a fraction) that `evaluate` and `replay` score. Ignored with a
    warning in a search, where the rung decides."""
    device: str = "auto"
    """Where the model runs: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`; `auto` takes an
    accelerator if there is one."""
    include_path: Folders = ()
    """Folder, or list of folders, with lm-eval task files of your own; relative to the file
    that names them, else to the working directory."""
    tasks: Annotated[tuple[TaskEntry, ...], Field(min_length=1)]
    """The objectives, at least one; together they count as their weighted mean."""
    holdout: Holdout | None = None
    """Held-out documents for the final comparison. Null: the second half of each task's seeded
    permutation."""
    apply_chat_template: Flag = False
    """Wrap prompts in the tokenizer's chat template."""
    fewshot_as_multiturn: Flag = False
    """Few-shot examples as turns of a conversation; needs `apply_chat_template`."""
    system_instruction: OptionalText = None
    """System prompt in front of every prompt; null for none."""
    trial_seconds: Seconds | None = None
    """Time limit of one trial in seconds, merging included, above 0; null for none. A trial
    that takes longer fails with status `timeout`."""

    @field_validator("device", mode="before", json_schema_input_type=_DeviceInput)
    @classmethod
    def _is_device(cls, device: Any) -> Any:
        if device in (None, ""):
            return "auto"
        if not isinstance(device, str) or not re.fullmatch(_DEVICE, device):
            raise ValueError(f"must be auto, cpu, mps, cuda or cuda:N, got {show(device)}")
        return device

    @field_validator("tasks")
    @classmethod
    def _tasks_are_different(cls, tasks: tuple[TaskEntry, ...]) -> tuple[TaskEntry, ...]:
        first: dict[str, TaskEntry] = {}
        pairs = set()
        for entry in tasks:
            if (entry.task, entry.metric) in pairs:
                raise ValueError(f"task {entry.task!r} with metric {entry.metric!r} is given twice")
            pairs.add((entry.task, entry.metric))
            if first.setdefault(entry.task, entry).meaning != entry.meaning:
                raise ValueError(f"task {entry.task!r} is given twice with different settings")
        return tasks

    @field_validator("fewshot_as_multiturn")
    @classmethod
    def _multiturn_needs_template(cls, multiturn: bool, info: ValidationInfo) -> bool:
        if multiturn and not info.data.get("apply_chat_template", True):
            raise ValueError("needs apply_chat_template: true")
        return multiturn
