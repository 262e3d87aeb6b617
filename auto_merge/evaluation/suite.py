"""The configured tasks of a run, loaded: their leaves, and the order in which documents count."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from auto_merge.errors import TaskError
from auto_merge.evaluation.prompts import Prompter, resolve_max_length
from auto_merge.evaluation.python_task import PythonTask
from auto_merge.evaluation.settings import EvaluationSettings, PythonSource
from auto_merge.evaluation.subsets import Document, canonical_json, clamp, interleave
from auto_merge.trial import Objective

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from auto_merge.evaluation.lm_harness import LoadedTask
    from auto_merge.evaluation.lm_harness_leaf import ChatTemplate, Leaf

Split = Literal["search", "heldout"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Slot:
    """A document in the order of its configured task."""

    leaf: Leaf | PythonTask
    document: Document


@dataclass(frozen=True)
class Track:
    """The documents of one objective's task.

    Attributes:
        objective: The objective.
        by_size: Whether leaves count by their numbers of documents.
        slots: All documents of each split in scoring order: fidelity b is the first b.
    """

    objective: Objective
    by_size: bool
    slots: Mapping[Split, tuple[Slot, ...]]


@dataclass(frozen=True)
class _Wanted:
    """An objective's task as configured."""

    task: str
    overrides: Mapping[str, Any]
    function: PythonSource | None

    @property
    def key(self) -> tuple[str, str]:
        """Equal for objectives that share a task."""
        return self.task, canonical_json([self.overrides, str(self.function)])


@dataclass(frozen=True)
class _Members:
    """A loaded task: how its leaves count, see ``LoadedTask.by_size``, and the leaves."""

    by_size: Mapping[str, bool] | None
    leaves: Sequence[Leaf | PythonTask]


class Suite:
    """Loads the tasks of some objectives and orders their documents.

    Args:
        objectives: At least one.
        settings: How tasks are evaluated.
        tokenizer: Folder of the tokenizer, usually that of a source model.

    Attributes:
        tracks: One per objective, in order.
        prompter: Tokenises prompts.

    Raises:
        TaskError: A task or metric cannot be used; the message says why.
        CheckpointError: There is no tokenizer in the folder.
    """

    def __init__(
        self, objectives: Sequence[Objective], settings: EvaluationSettings, tokenizer: Path
    ) -> None:
        # It brings torch along, which a light import of this module must not.
        from auto_merge.evaluation.lm_harness import quiet

        self.settings = settings
        wanted = _wanted(objectives, settings)
        distinct = {entry.key: entry for entry in wanted}
        members = dict(zip(distinct, self._load(list(distinct.values()), tokenizer), strict=True))
        with quiet():
            # A document may belong to several tasks; held out in one, it is held out in all.
            proof = {d.key for m in members.values() for x in m.leaves for d in x.parts.heldout}
            self.tracks = tuple(
                _track(objective, members[entry.key], proof)
                for objective, entry in zip(objectives, wanted, strict=True)
            )
        for track in self.tracks:
            counts = [len(track.slots[split]) for split in ("search", "heldout")]
            log.info("task %s: %d search and %d held-out documents", track.objective.task, *counts)

    def _load(self, wanted: Sequence[_Wanted], tokenizer: Path) -> list[_Members]:
        """Loads tasks and functions, then the tokenizer; one result per entry, in order."""
        from auto_merge.evaluation.lm_harness import load_tasks, quiet

        settings = self.settings
        functions = {
            entry.key: PythonTask(entry.task, entry.function, settings.seed)
            for entry in wanted
            if entry.function is not None
        }
        harness = [entry for entry in wanted if entry.function is None]
        loaded = load_tasks(
            [(entry.task, entry.overrides) for entry in harness],
            include_path=settings.include_path,
            cache_dir=settings.cache_dir,
            allow_code_execution=settings.allow_code_execution,
        )
        by_key = {entry.key: task for entry, task in zip(harness, loaded, strict=True)}
        with quiet():
            self.prompter = _prompter(tokenizer, settings)
            return [
                _Members(None, [functions[entry.key]])
                if entry.key in functions
                else self._members(by_key[entry.key], entry.overrides)
                for entry in wanted
            ]

    def _members(self, task: LoadedTask, overrides: Mapping[str, object]) -> _Members:
        from auto_merge.evaluation.lm_harness_leaf import Leaf, PromptSettings

        settings = self.settings
        prompts = PromptSettings(
            num_fewshot=settings.num_fewshot,
            seed=settings.seed,
            chat_template=_chat_template(self.prompter.tokenizer, settings),
            fewshot_as_multiturn=settings.fewshot_as_multiturn,
            system_instruction=settings.system_instruction,
        )
        leaves = [
            Leaf(
                leaf,
                task.sources[name],
                self.prompter,
                prompts,
                fixed_fewshot="num_fewshot" in overrides,
                holdout_split=settings.holdout_split,
            )
            for name, leaf in task.tasks.items()
        ]
        return _Members(task.by_size, leaves)

    def take(self, track: Track, fidelity: int, split: Split) -> tuple[Slot, ...]:
        """The first ``fidelity`` documents of a task, fewer if it has fewer."""
        slots = track.slots[split]
        return slots[: clamp(fidelity, len(slots), self.settings.limit)]

    def line_up(self, fidelity: int, split: Split) -> list[Slot]:
        """All documents of all tasks at a fidelity, in scoring order, without repetitions.

        Tasks take turns, so that the line of a smaller fidelity is a prefix of a larger one's, and
        chunks of the line hold the same documents at every fidelity.
        """
        lines = [self.take(track, fidelity, split) for track in self.tracks]
        seen: set[tuple[str, str]] = set()
        line = []
        for position in range(max(len(slots) for slots in lines)):
            for slots in lines:
                if position >= len(slots):
                    continue
                slot = slots[position]
                key = (slot.leaf.digest, slot.document.key)
                if key not in seen:
                    seen.add(key)
                    line.append(slot)
        return line


def _wanted(objectives: Sequence[Objective], settings: EvaluationSettings) -> list[_Wanted]:
    overrides = settings.overrides or ({},) * len(objectives)
    functions = settings.functions or (None,) * len(objectives)
    entries = zip(objectives, overrides, functions, strict=True)
    return [_Wanted(objective.task, extra, function) for objective, extra, function in entries]


def _track(objective: Objective, members: _Members, proof: Set[str]) -> Track:
    task, leaves = objective.task, members.leaves
    for leaf in leaves:
        leaf.check_metric(objective.metric)
    by_size = True
    if members.by_size is not None:
        if objective.metric not in members.by_size:
            known = ", ".join(sorted(members.by_size)) or "nothing"
            raise TaskError(
                f"task group {task!r} has no mean of {objective.metric!r} over its tasks; "
                f"its aggregate_metric_list gives: {known}"
            )
        by_size = members.by_size[objective.metric]
    search = [[d for d in leaf.parts.search if d.key not in proof] for leaf in leaves]
    if not any(search):
        raise TaskError(
            f"every search document of task {task!r} is held out in another configured task; "
            "leave one of them out"
        )
    slots: dict[Split, tuple[Slot, ...]] = {
        "search": _mixed(leaves, search, by_size),
        "heldout": _mixed(leaves, [leaf.parts.heldout for leaf in leaves], by_size),
    }
    return Track(objective, by_size, slots)


def _mixed(
    leaves: Sequence[Leaf | PythonTask], parts: Sequence[Sequence[Document]], by_size: bool
) -> tuple[Slot, ...]:
    """Documents of all leaves in one order whose every prefix follows the group's weighting."""
    sizes = [len(part) for part in parts]
    sources = [iter(part) for part in parts]
    order = interleave(sizes, sizes if by_size else [1.0] * len(sizes))
    return tuple(Slot(leaves[i], next(sources[i])) for i in order)


def _prompter(folder: Path, settings: EvaluationSettings) -> Prompter:
    from transformers import AutoTokenizer

    from auto_merge.errors import CheckpointError

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        text = " ".join(str(error).split())
        raise CheckpointError(f"no tokenizer can be loaded from {folder}: {text}") from error
    length = settings.max_length or resolve_max_length(folder, tokenizer)
    return Prompter(tokenizer, length)


def _chat_template(
    tokenizer: PreTrainedTokenizerBase, settings: EvaluationSettings
) -> ChatTemplate | None:
    if not settings.apply_chat_template:
        return None
    if not tokenizer.chat_template:
        raise TaskError(
            "evaluation.apply_chat_template is set, but the tokenizer has no chat template"
        )

    def render(messages: list[dict[str, str]], *, add_generation_prompt: bool = True) -> str:
        return str(
            tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    return render
