"""The evaluator: scores candidates on growing subsets of documents, each document once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from auto_merge.errors import Interrupted, RunError, TaskError, TrialTimeoutError
from auto_merge.evaluation.ledger import Ledger, Metrics, Row
from auto_merge.evaluation.prompts import ContinuationTokens, GenerationTokens, Tokens
from auto_merge.evaluation.python_task import PythonTask
from auto_merge.evaluation.sandbox import Program, settle
from auto_merge.evaluation.scores import DocumentScores, document_weights, task_score
from auto_merge.evaluation.settings import EvaluationSettings
from auto_merge.evaluation.subsets import Document, canonical_json, clamp, digest
from auto_merge.evaluation.suite import Slot, Split, Suite, Track
from auto_merge.trial import Objective, TaskScore

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from auto_merge.evaluation.forward import Runner
    from auto_merge.evaluation.lm_harness_leaf import Response
    from auto_merge.seams import Candidate


@dataclass(frozen=True)
class Counts:
    """Documents of one evaluation.

    Attributes:
        scored: Documents run through the model now.
        found: Documents whose scores were in the ledger.
    """

    scored: int = 0
    found: int = 0


class HarnessEvaluator:
    """Scores candidates with lm-eval tasks on a live transformers model.

    Documents are scored and committed in chunks of one fixed line of all tasks' documents. A run
    that is interrupted and goes on later therefore forms the same batches as one that is not.

    Args:
        objectives: The run's objectives, at least one.
        settings: How tasks are evaluated.
        tokenizer: Folder of the one tokenizer of all candidates.
        ledger: Where scores are kept.

    Attributes:
        last_counts: Documents of the latest :meth:`evaluate`, also after it failed.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        settings: EvaluationSettings,
        tokenizer: Path,
        ledger: Ledger,
    ) -> None:
        self.last_counts = Counts()
        self._objectives = tuple(objectives)
        self._settings = settings
        self._tokenizer = tokenizer
        self._ledger = ledger
        self._loaded: Suite | None = None
        self._context = ""
        self._device = ""
        self._runner: Runner

    def prepare(self) -> None:
        """Loads tasks, data and tokenizer; the first evaluation would do it otherwise.

        Raises:
            TaskError: A task or metric cannot be used.
            CheckpointError: There is no tokenizer in the folder.
        """
        if self._loaded is None:
            self._load()

    def _load(self) -> Suite:
        import torch

        from auto_merge.evaluation.forward import Runner

        suite = Suite(self._objectives, self._settings, self._tokenizer)
        device = self._settings.device
        if device == "auto":
            device = "mps" if torch.backends.mps.is_available() else "cpu"
            device = "cuda" if torch.cuda.is_available() else device
        self._device = device.partition(":")[0]
        self._runner = Runner(suite.prompter.tokenizer, self._settings.batch_size)
        self._context = canonical_json(
            {
                "backend": "hf",
                "device": self._device,
                "dtype": self._settings.dtype,
                "max_length": suite.prompter.max_length,
                "tokenizer": suite.prompter.digest(),
                "versions": [version("lm_eval"), version("transformers")],
            }
        )
        self._loaded = suite
        return suite

    @property
    def _suite(self) -> Suite:
        return self._loaded or self._load()

    @property
    def max_fidelity(self) -> int:
        """Largest fidelity that still adds a search document to some task."""
        limit = self._settings.limit
        sizes = [len(track.slots["search"]) for track in self._suite.tracks]
        return max(clamp(size, size, limit) for size in sizes)

    def tasks_digest(self) -> dict[str, str]:
        """Digest per configured task: its source, its prompts' settings and all its documents.

        Equal digests mean that a fidelity stands for the same documents and prompts.
        """
        found = {}
        for track in self._suite.tracks:
            content = [
                (slot.leaf.digest, slot.document.key)
                for split in ("search", "heldout")
                for slot in track.slots[split]
            ]
            found[track.objective.task] = digest(canonical_json(content))
        return found

    def num_documents(self, task: str, split: Split = "search") -> int:
        """Number of distinct documents of a configured task on one side of the border."""
        for track in self._suite.tracks:
            if track.objective.task == task:
                return len(track.slots[split])
        raise ValueError(f"{task!r} is not one of the configured tasks")

    def evaluate(
        self,
        candidate: Candidate,
        fidelity: int,
        *,
        split: Split = "search",
        should_stop: Callable[[], bool] | None = None,
        deadline: float | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> tuple[TaskScore, ...]:
        """Scores the first ``fidelity`` documents of every task; only missing ones are run.

        Args:
            candidate: The model; its weights are made only if a document is missing.
            fidelity: Documents per configured task, >= 1; more than there are means all.
            split: Which documents.
            should_stop: Asked before every chunk.
            deadline: Value of ``time.monotonic()`` after which no chunk is begun.
            on_progress: Called after every chunk with the numbers of newly scored documents so far
                and in all.

        Returns:
            One score per objective, in order.

        Raises:
            Interrupted: ``should_stop`` said so; finished chunks are in the ledger.
            TrialTimeoutError: The deadline passed; finished chunks are in the ledger.
            InvalidWeightsError: The model returned NaN.
            TaskError: A task gives no finite number for its metric, or a Python objective fails.
            AutoMergeError: The sandbox of a task that runs programs could not be started.
            RunError: The ledger cannot be read or written.
            torch.OutOfMemoryError, MemoryError: The model does not fit.
        """
        if fidelity < 1:
            raise ValueError(f"fidelity is {fidelity}, it has to be at least 1")
        line = self._suite.line_up(fidelity, split)
        known = self._read(candidate, line)
        missing = sum(_key(slot) not in known for slot in line)
        scored = 0
        self.last_counts = Counts(0, len(line) - missing)
        model: PreTrainedModel | None = None
        for chunk in self._chunks(line, known):
            if should_stop is not None and should_stop():
                raise Interrupted(f"stopped after {scored} of {missing} documents")
            if deadline is not None and time.monotonic() > deadline:
                raise TrialTimeoutError(
                    f"the time limit passed after {scored} of {missing} documents"
                )
            model = model or self._model(candidate)
            known.update(self._score(model, candidate, chunk))
            scored += len(chunk)
            self.last_counts = Counts(scored, len(line) - missing)
            if on_progress is not None:
                on_progress(scored, missing)
        return tuple(
            task_score(self._collect(track, fidelity, split, known)) for track in self._suite.tracks
        )

    def document_scores(
        self, candidate: Candidate, fidelity: int, split: Split = "search"
    ) -> tuple[DocumentScores, ...]:
        """Reads what was scored, document by document, one entry per objective.

        Raises:
            RunError: Some of these documents were not scored on this candidate yet.
        """
        line = self._suite.line_up(fidelity, split)
        known = self._read(candidate, line)
        missing = sum(_key(slot) not in known for slot in line)
        if missing:
            raise RunError(
                f"{missing} of {len(line)} {split} documents were not scored on {candidate.digest};"
                " evaluate it first"
            )
        return tuple(self._collect(track, fidelity, split, known) for track in self._suite.tracks)

    # --- ledger ----------------------------------------------------------------------------------

    def _subject(self, candidate: Candidate, leaf_digest: str) -> str:
        return digest(candidate.digest, self._context, leaf_digest)

    def _read(self, candidate: Candidate, line: Sequence[Slot]) -> dict[tuple[str, str], Metrics]:
        """Known metrics by (leaf digest, document key)."""
        leaves: dict[str, list[Slot]] = {}
        for slot in line:
            leaves.setdefault(slot.leaf.digest, []).append(slot)
        known: dict[tuple[str, str], Metrics] = {}
        for leaf, slots in leaves.items():
            documents = [slot.document.key for slot in slots]
            found = self._ledger.get(self._subject(candidate, leaf), documents)
            known.update({(leaf, document): metrics for document, metrics in found.items()})
        return known

    def _chunks(
        self, line: Sequence[Slot], known: Mapping[tuple[str, str], Metrics]
    ) -> Iterator[list[Slot]]:
        """What is missing from each chunk of the line."""
        size = self._settings.chunk_size
        for start in range(0, len(line), size):
            chunk = [slot for slot in line[start : start + size] if _key(slot) not in known]
            if chunk:
                yield chunk

    # --- scoring ---------------------------------------------------------------------------------

    def _model(self, candidate: Candidate) -> PreTrainedModel:
        model = candidate.model()
        if model.device.type != self._device:
            raise ValueError(f"the model is on {model.device}, expected was {self._device}")
        model.eval()
        return model

    def _score(
        self, model: PreTrainedModel, candidate: Candidate, chunk: Sequence[Slot]
    ) -> dict[tuple[str, str], Metrics]:
        """Scores and commits one chunk."""
        from auto_merge.evaluation.lm_harness import quiet

        with quiet():
            found = {**self._ask(model, chunk), **self._call(model, chunk)}
        settled = settle(list(found.values()))
        scores: dict[tuple[str, str], Metrics] = dict(zip(found, settled, strict=True))
        leaves = {slot.leaf.digest for slot in chunk}
        subjects = {leaf: self._subject(candidate, leaf) for leaf in leaves}
        self._ledger.put(
            Row(subjects[leaf], document, metrics) for (leaf, document), metrics in scores.items()
        )
        return scores

    def _ask(
        self, model: PreTrainedModel, chunk: Sequence[Slot]
    ) -> dict[tuple[str, str], Mapping[str, float | Program]]:
        """Scores the documents of lm-eval tasks, all their requests together."""
        asked = [
            (slot.leaf, slot.document) for slot in chunk if not isinstance(slot.leaf, PythonTask)
        ]
        tokens = [leaf.tokens(document) for leaf, document in asked]
        responses = self._respond(model, [token for group in tokens for token in group])
        scores: dict[tuple[str, str], Mapping[str, float | Program]] = {}
        for (leaf, document), group in zip(asked, tokens, strict=True):
            answers = [next(responses) for _ in group]
            scores[leaf.digest, document.key] = leaf.score(document, answers)
        return scores

    def _call(
        self, model: PreTrainedModel, chunk: Sequence[Slot]
    ) -> dict[tuple[str, str], Mapping[str, float | Program]]:
        """Scores the documents of Python objectives, each objective's in one call."""
        calls: dict[PythonTask, list[Document]] = {}
        for slot in chunk:
            if isinstance(slot.leaf, PythonTask):
                calls.setdefault(slot.leaf, []).append(slot.document)
        scores: dict[tuple[str, str], Mapping[str, float | Program]] = {}
        for task, documents in calls.items():
            found = task.score(model, self._suite.prompter.tokenizer, documents)
            for document, metrics in zip(documents, found, strict=True):
                scores[task.digest, document.key] = metrics
        return scores

    def _respond(self, model: PreTrainedModel, tokens: Sequence[Tokens]) -> Iterator[Response]:
        """Responses in request order."""
        scored = [token for token in tokens if isinstance(token, ContinuationTokens)]
        generated = [token for token in tokens if isinstance(token, GenerationTokens)]
        likelihoods = iter(self._runner.likelihoods(model, scored))
        answers = iter(self._runner.answers(model, generated))
        for token in tokens:
            yield next(likelihoods) if isinstance(token, ContinuationTokens) else next(answers)

    # --- results ---------------------------------------------------------------------------------

    def _collect(
        self,
        track: Track,
        fidelity: int,
        split: Split,
        known: Mapping[tuple[str, str], Metrics],
    ) -> DocumentScores:
        slots = self._suite.take(track, fidelity, split)
        metric = track.objective.metric
        values = []
        for slot in slots:
            metrics = known[_key(slot)]
            if metric not in metrics:
                raise TaskError(
                    f"task {slot.leaf.name!r} gave no number for {metric!r} on document "
                    f"{slot.document.index}; it gave: {', '.join(sorted(metrics)) or 'nothing'}"
                )
            values.append(metrics[metric])
        leaves = tuple(slot.leaf.name for slot in slots)
        return DocumentScores(
            task=track.objective.task,
            metric=metric,
            values=np.array(values, dtype=np.float64),
            weights=document_weights(leaves, track.by_size),
            leaves=leaves,
            documents=tuple(slot.document.key for slot in slots),
            clusters=_clusters(slots),
        )


def _key(slot: Slot) -> tuple[str, str]:
    return slot.leaf.digest, slot.document.key


def _clusters(slots: Sequence[Slot]) -> np.ndarray[tuple[int], np.dtype[np.int64]] | None:
    if not any(slot.document.passage for slot in slots):
        return None
    numbers: dict[tuple[str, str], int] = {}
    clusters = []
    for slot in slots:
        name = (slot.leaf.name, slot.document.passage or slot.document.key)
        clusters.append(numbers.setdefault(name, len(numbers)))
    return np.array(clusters, dtype=np.int64)
