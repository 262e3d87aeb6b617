"""How tasks are evaluated: everything that a run's ``evaluation`` section decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class PythonSource:
    """An objective that is a Python function, see :mod:`auto_merge.evaluation.python_task`.

    Attributes:
        file: The Python file.
        function: Name of the function in it.
        documents: JSON Lines file with the documents, one object a line.
        heldout: JSON Lines file with the held-out documents; ``None`` holds out the second half of
            the permutation of ``documents``.
        metadata: ``stratum`` and ``passage`` name fields of the documents, as in a task's YAML.
    """

    file: Path
    function: str
    documents: Path
    heldout: Path | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of an evaluator.

    Attributes:
        cache_dir: Folder for converted datasets.
        include_path: Folders with task YAML files, searched before lm-eval's own tasks.
        overrides: One mapping per objective, in objective order: keys that replace those of the
            task's YAML (``{"test_split": "validation"}``). Empty means none for any.
        functions: One per objective, in objective order: the Python function that scores it, or
            ``None`` for a task of lm-eval. Empty means ``None`` for all.
        allow_code_execution: Whether tasks may run programs that a model wrote, in the sandbox.
        num_fewshot: Few-shot examples of every task that does not say 0; ``None`` keeps the tasks'
            own numbers.
        limit: Upper bound of documents per configured task and split, or a fraction if below 1.
        holdout_split: Dataset split with the held-out documents; ``None`` holds out the second half
            of each task's permutation.
        batch_size: Rows per forward pass, or ``"auto"``.
        chunk_size: Documents that are scored and committed together, >= 1.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``; where the candidates' models are.
        dtype: Data type of the candidates' models, for the ledger key.
        max_length: Longest input in tokens; ``None`` reads the model's own.
        apply_chat_template: Render prompts with the tokenizer's chat template.
        fewshot_as_multiturn: Few-shot examples are turns of the chat.
        system_instruction: Text before every prompt.
        seed: Seed of the permutations and of few-shot examples.
    """

    cache_dir: Path
    include_path: tuple[Path, ...] = ()
    overrides: tuple[Mapping[str, Any], ...] = ()
    functions: tuple[PythonSource | None, ...] = ()
    allow_code_execution: bool = False
    num_fewshot: int | None = None
    limit: float | None = None
    holdout_split: str | None = None
    batch_size: int | Literal["auto"] = "auto"
    chunk_size: int = 128
    device: str = "auto"
    dtype: str = "float32"
    max_length: int | None = None
    apply_chat_template: bool = False
    fewshot_as_multiturn: bool = False
    system_instruction: str | None = None
    seed: int = 0
