"""Builds the evaluator that a configuration describes."""

from __future__ import annotations

from auto_merge.checkpoints.vocab_files import extended_tokenizer
from auto_merge.config.evaluation import TaskFunction
from auto_merge.config.run_config import RunConfig
from auto_merge.evaluation.evaluator import HarnessEvaluator
from auto_merge.evaluation.ledger import Ledger
from auto_merge.evaluation.settings import EvaluationSettings, PythonSource
from auto_merge.search.setup import Opened


def resolve_device(wanted: str) -> str:
    """Turns ``auto`` into the device that this machine has; other names pass through."""
    if wanted != "auto":
        return wanted
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def build_evaluator(setup: Opened, device: str, *, limit: float | None = None) -> HarnessEvaluator:
    """Opens the ledger and loads the tasks.

    Args:
        setup: Models and tasks.
        device: Where the models will be.
        limit: Upper bound of documents per task, or a fraction; in a search the rung decides.

    Raises:
        TaskError: A task or metric cannot be used.
        RunError: The ledger is damaged or cannot be written.
    """
    config = setup.config
    evaluator = HarnessEvaluator(
        setup.objectives,
        evaluation_settings(config, setup.cast.dtype, device, limit),
        extended_tokenizer(setup.donor.path, setup.added_tokens, config.cache_dir),
        Ledger(config.cache_dir / "ledger.sqlite"),
    )
    evaluator.prepare()
    return evaluator


def evaluation_settings(
    config: RunConfig, dtype: str, device: str, limit: float | None
) -> EvaluationSettings:
    """The evaluator's settings as the configuration gives them."""
    section = config.evaluation
    return EvaluationSettings(
        cache_dir=config.cache_dir,
        include_path=config.include_paths,
        overrides=tuple({} if entry.function else entry.overrides for entry in section.tasks),
        functions=tuple(_python_source(function) for function in config.functions),
        allow_code_execution=config.allow_code_execution,
        num_fewshot=section.num_fewshot,
        limit=limit,
        holdout_split=section.holdout.split if section.holdout else None,
        batch_size=section.batch_size,
        device=device,
        dtype=dtype,
        apply_chat_template=section.apply_chat_template,
        fewshot_as_multiturn=section.fewshot_as_multiturn,
        system_instruction=section.system_instruction,
        seed=config.random_seed,
    )


def _python_source(function: TaskFunction | None) -> PythonSource | None:
    if function is None:
        return None
    return PythonSource(
        function.file, function.name, function.documents, function.heldout, function.metadata
    )


def heldout_fidelity(setup: Opened, evaluator: HarnessEvaluator) -> int:
    """Held-out documents of the task that has most; asking for so many means all."""
    tasks = {objective.task for objective in setup.objectives}
    return max(evaluator.num_documents(task, "heldout") for task in tasks)
