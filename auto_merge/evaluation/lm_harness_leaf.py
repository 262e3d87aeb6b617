"""One leaf task of lm-eval: its documents, its prompts, and the metrics of one answered document.

Prompts and metrics are lm-eval's own; what is added is that neither depends on which other
documents are asked for at the same time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from auto_merge.errors import TaskError
from auto_merge.evaluation.lm_harness_sources import split_documents
from auto_merge.evaluation.prompts import Continuation, Generation, Prompter, Request, Tokens
from auto_merge.evaluation.sandbox import Program
from auto_merge.evaluation.subsets import (
    Document,
    Parts,
    canonical_json,
    digest,
    divide,
    document_key,
)

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import Task

Response = tuple[float, bool] | str
"""What a model says to a request: (log-likelihood, is greedy) or an answer."""

# Settings of generation that make no difference to greedy decoding.
_GREEDY_NEUTRAL = {"do_sample", "temperature", "top_p", "top_k", "min_p"}
_LENGTH_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_DEFAULT_LENGTH = 256


class ChatTemplate(Protocol):
    """Renders messages to a prompt."""

    def __call__(
        self, messages: list[dict[str, str]], *, add_generation_prompt: bool = True
    ) -> str:
        """Returns the prompt text."""


@dataclass(frozen=True)
class PromptSettings:
    """What shapes prompts besides the task.

    Attributes:
        num_fewshot: Few-shot examples; ``None`` keeps the task's own number. A task that says 0
            stays at 0, as in lm-eval.
        seed: Seed of documents and few-shot examples.
        chat_template: Renders messages; ``None`` for plain text.
        fewshot_as_multiturn: Whether examples are turns of their own in a chat.
        system_instruction: Text before everything else.
    """

    num_fewshot: int | None = None
    seed: int = 0
    chat_template: ChatTemplate | None = None
    fewshot_as_multiturn: bool = False
    system_instruction: str | None = None


class Leaf:
    """A leaf task whose documents are divided and whose prompts are reproducible.

    Args:
        task: The lm-eval task.
        source: Its source text.
        prompter: Tokenises its prompts.
        settings: What shapes prompts.
        fixed_fewshot: Whether the configuration sets this very task's ``num_fewshot``, which then
            wins over ``settings.num_fewshot``.
        holdout_split: Dataset split that holds the held-out documents; ``None`` for the second half
            of the permutation.

    Attributes:
        name: Task name.
        parts: Documents, divided.
        digest: Digest of the task's source and of everything else that shapes its prompts, the
            tokenizer excepted.

    Raises:
        TaskError: No documents, no held-out documents, or no few-shot examples to draw from.
    """

    def __init__(
        self,
        task: Task,
        source: str,
        prompter: Prompter,
        settings: PromptSettings,
        *,
        fixed_fewshot: bool = False,
        holdout_split: str | None = None,
    ) -> None:
        self.name = str(task.task_name)
        self._task = task
        self._prompter = prompter
        self._settings = settings
        own = task.get_config("num_fewshot")
        if settings.num_fewshot is not None and own != 0 and not fixed_fewshot:
            own = settings.num_fewshot
        self._num_fewshot = int(own or 0)
        self._metadata = task.get_config("metadata") or {}
        self.parts = self._divide(holdout_split)
        self.digest = self._digest(source)
        self._prepared: dict[str, tuple[list[Instance], list[Tokens]]] = {}

    # --- documents -------------------------------------------------------------------------------

    def _divide(self, holdout_split: str | None) -> Parts:
        documents = self._documents(list(self._task.eval_docs))
        if not documents:
            raise TaskError(f"task {self.name!r} has no documents; check its split and data files")
        other = None
        if holdout_split is not None:
            other = self._documents(split_documents(self._task, holdout_split))
        pool = self._pool() if self._num_fewshot else []
        taken = {document.key for document in [*documents, *(other or [])]}
        free = [content for content in pool if document_key(content) not in taken]
        num_reserved = 0
        if len(free) < self._num_drawn():
            num_reserved = max(2 * self._num_fewshot, len(documents) // 10)
        seed = self._settings.seed
        parts = divide(documents, seed=seed, other=other, num_reserved=num_reserved)
        if not parts.search or not parts.heldout:
            side = "search" if not parts.search else "held-out"
            raise TaskError(
                f"task {self.name!r} has no {side} documents: {len(documents)} in all, "
                f"{num_reserved} of them set aside as few-shot examples, duplicates removed; "
                "give it more documents or another evaluation.holdout"
            )
        if self._num_fewshot:
            self._set_pool([*free, *(dict(document.content) for document in parts.fewshot)])
        return parts

    def _documents(self, contents: Sequence[Mapping[str, Any]]) -> list[Document]:
        return as_documents(self.name, contents, self._metadata)

    # --- few-shot examples -----------------------------------------------------------------------

    def _pool(self) -> list[dict[str, Any]]:
        sampler = getattr(self._task, "sampler", None)
        if sampler is None:
            raise TaskError(
                f"task {self.name!r} is a Python class with its own few-shot examples, which "
                "cannot be kept apart from its documents; use num_fewshot: 0"
            )
        return list(sampler.fewshot_docs())

    def _num_drawn(self) -> int:
        """Examples that lm-eval's sampler draws: one to spare if they come from the same split."""
        if not self._num_fewshot:
            return 0
        own = self._task.fewshot_cfg.split
        return self._num_fewshot + int(own is not None and own == self._task.config.test_split)

    def _set_pool(self, pool: list[dict[str, Any]]) -> None:
        sampler = self._task.sampler
        # They were applied when the pool was read.
        sampler.fewshot_indices = None
        sampler.replace_df(pool)
        self._pool_digest = digest(*(document_key(content) for content in pool))

    def _digest(self, source: str) -> str:
        settings = self._settings
        shots: list[Any] = [self._num_fewshot]
        if self._num_fewshot:
            shots += [settings.seed, self.name, self._pool_digest]
        chat = [settings.chat_template is not None, settings.fewshot_as_multiturn]
        return digest(source, canonical_json([shots, chat, settings.system_instruction]))

    # --- requests --------------------------------------------------------------------------------

    def tokens(self, document: Document) -> list[Tokens]:
        """Tokenised requests of a document; made once, always the same.

        Raises:
            TaskError: The prompt cannot be built, does not fit, or asks for sampled answers.
        """
        if document.key not in self._prepared:
            instances = self._build(document)
            try:
                tokens = self._prompter.tokenize([self._request(i) for i in instances])
            except TaskError as error:
                place = f"task {self.name!r}, document {document.index}"
                raise TaskError(f"{place}: {error}") from error
            self._prepared[document.key] = instances, tokens
        return self._prepared[document.key][1]

    def _build(self, document: Document) -> list[Instance]:
        task, settings = self._task, self._settings
        doc = document.content
        # lm-eval draws examples from one generator in order of requests; here every document has
        # its own.
        task.set_fewshot_seed(int(digest(str(settings.seed), self.name, document.key), 16))
        chat = {
            "apply_chat_template": settings.chat_template is not None,
            "chat_template": settings.chat_template,
        }
        try:
            context = task.fewshot_context(
                doc,
                num_fewshot=self._num_fewshot,
                system_instruction=settings.system_instruction,
                fewshot_as_multiturn=settings.fewshot_as_multiturn,
                gen_prefix=task.doc_to_prefix(doc),
                **chat,
            )
            built = task.construct_requests(
                doc=doc, ctx=context, metadata=(self.name, document.index, 1), **chat
            )
        except Exception as error:
            # Templates and functions of a task are foreign: their faults are the task's.
            raise TaskError(
                f"task {self.name!r}, document {document.index}: the prompt cannot be built: "
                f"{type(error).__name__}: {' '.join(str(error).split())}"
            ) from error
        return built if isinstance(built, list) else [built]

    def _request(self, instance: Instance) -> Request:
        if instance.request_type == "loglikelihood":
            context, continuation = instance.args[:2]
            return Continuation(context, continuation)
        context, options = instance.args[:2]
        return Generation(context, *self._generation(options))

    def _generation(self, options: Mapping[str, Any]) -> tuple[tuple[str, ...], int]:
        """Stops and length of an answer; refuses what is not plain greedy decoding."""
        sampled = options.get("do_sample")
        if sampled or (sampled is None and float(options.get("temperature") or 0.0) > 0.0):
            raise TaskError(
                f"task {self.name!r} samples its answers, so that a score could not be repeated; "
                "set generation_kwargs.do_sample to false"
            )
        unknown = set(options) - _GREEDY_NEUTRAL - set(_LENGTH_NAMES) - {"until"}
        if unknown:
            raise TaskError(
                f"task {self.name!r}: generation_kwargs.{min(unknown)} is not supported; known: "
                f"until, {', '.join(_LENGTH_NAMES)}, {', '.join(sorted(_GREEDY_NEUTRAL))}"
            )
        until = options.get("until") or []
        stops = (until,) if isinstance(until, str) else tuple(until)
        length = next((options[n] for n in _LENGTH_NAMES if options.get(n)), _DEFAULT_LENGTH)
        return stops, int(length)

    # --- metrics ---------------------------------------------------------------------------------

    def score(
        self, document: Document, responses: Sequence[Response]
    ) -> dict[str, float | Program]:
        """Metrics of one document, ``"acc,none"`` -> value; those that are numbers or programs.

        A program counts 1 if it passes in the sandbox and 0 if it does not; who calls runs it.

        Args:
            document: The document.
            responses: One per tokenised request of the document.

        Raises:
            TaskError: A metric is NaN or infinite, or a program from a task that must have none.
        """
        metrics: dict[str, float | Program] = {}
        self.tokens(document)
        raw = self._process(document, self._prepared[document.key][0], responses)
        for key, value in raw.items():
            if isinstance(value, Program):
                metrics[key] = self._allowed(value)
                continue
            number = as_number(value)
            if number is None:
                continue
            if not math.isfinite(number):
                raise TaskError(
                    f"task {self.name!r}, document {document.index}: metric {key!r} is {number}; "
                    "a metric has to be finite"
                )
            metrics[key] = number
        return metrics

    def _allowed(self, program: Program) -> Program:
        if not self._task.get_config("unsafe_code"):
            raise TaskError(
                f"task {self.name!r} returns programs; say unsafe_code: true in its YAML"
            )
        return program

    def _process(
        self, document: Document, built: Sequence[Instance], responses: Sequence[Response]
    ) -> dict[str, Any]:
        instances = [copy(instance) for instance in built]
        for instance, response in zip(instances, responses, strict=True):
            instance.resps = [response]
            instance.filtered_resps = {}
        raw: dict[str, Any] = {}
        for pipeline in self._task._filters:
            # Each document on its own, so that no filter can look at its neighbours.
            pipeline.apply(instances)
            filtered = [instance.filtered_resps[pipeline.name] for instance in instances]
            results = self._task.process_results(document.content, filtered)
            raw.update({f"{metric},{pipeline.name}": value for metric, value in results.items()})
        return raw

    def check_metric(self, key: str) -> None:
        """Refuses a metric key that this task does not produce as a mean over documents.

        Raises:
            TaskError: The message says which keys would do.
        """
        from lm_eval.api.metrics import mean

        name, _, pipeline = key.partition(",")
        rules = self._task.aggregation()
        if name in rules and rules[name] is not mean:
            kind = getattr(rules[name], "__name__", "a function of all documents")
            raise TaskError(
                f"task {self.name!r}: metric {name!r} is not a mean over documents but {kind}, and "
                f"cannot be followed document by document; usable: {self._usable() or 'none'}"
            )
        filters = [ensemble.name for ensemble in self._task._filters]
        produced = self._produced()
        if pipeline not in filters or (produced is not None and key not in produced):
            raise TaskError(
                f"task {self.name!r} has no metric {key!r}; it has: {self._usable() or 'none'}"
            )

    def _usable(self) -> str:
        from lm_eval.api.metrics import mean

        rules = self._task.aggregation()
        keys = self._produced()
        if keys is None:
            keys = {f"{name},{ens.name}" for name in rules for ens in self._task._filters}
        return ", ".join(sorted(k for k in keys if rules.get(k.partition(",")[0], mean) is mean))

    def _produced(self) -> set[str] | None:
        """Keys that the task gives for an empty answer; ``None`` if it cannot be tried."""
        if callable(self._task.get_config("process_results")):
            # Foreign code need not stand an empty answer; scoring will tell.
            return None
        document = self.parts.search[0]
        instances = self._build(document)
        trial: list[Response] = [
            "" if instance.request_type == "generate_until" else (-1.0 - i, False)
            for i, instance in enumerate(instances)
        ]
        raw = self._process(document, instances, trial)
        return {key for key, value in raw.items() if as_number(value) is not None}


def as_documents(
    task: str, contents: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any]
) -> list[Document]:
    """Describes documents; ``metadata`` may name their ``stratum`` and ``passage`` fields.

    Raises:
        TaskError: A document has no such field.
    """
    stratum, passage = metadata.get("stratum"), metadata.get("passage")
    documents = []
    for index, content in enumerate(contents):
        for field in (stratum, passage):
            if field is not None and field not in content:
                raise TaskError(
                    f"task {task!r}: metadata names the field {field!r}, but document "
                    f"{index} has only {', '.join(content)}"
                )
        documents.append(
            Document(
                index,
                document_key(content),
                content,
                "" if stratum is None else str(content[stratum]),
                "" if passage is None else str(content[passage]),
            )
        )
    return documents


def as_number(value: Any) -> float | None:
    """The value as a float if it is one number, else ``None``."""
    if isinstance(value, (bool, int, float)):
        return float(value)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return float(value.item())
    return None
