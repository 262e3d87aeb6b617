"""Scores one model on the documents of a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from auto_merge.config.models import Model, resolve_location
from auto_merge.config.run_config import RunConfig
from auto_merge.errors import UserError, nearest
from auto_merge.recipe.model import Recipe
from auto_merge.reports.progress import SearchProgress
from auto_merge.search.candidates import Workbench
from auto_merge.search.results import Scored
from auto_merge.search.scoring import build_evaluator, heldout_fidelity, resolve_device
from auto_merge.search.setup import Opened, open_alone
from auto_merge.search.stopping import StopRequest, stop_on_signals
from auto_merge.trial import TaskScore, scalar_cost

Documents = Literal["search", "heldout"]


class Examination:
    """Scores recipes in full on the tasks of a configuration; resumable like a search.

    Args:
        opened: Models and tasks.
        quiet: Whether to show no progress.
    """

    def __init__(self, opened: Opened, *, quiet: bool) -> None:
        self._opened = opened
        self._quiet = quiet
        device = resolve_device(opened.config.evaluation.device)
        limit = opened.config.evaluation.limit
        self._evaluator = build_evaluator(opened, device, limit=limit)
        self._workbench = Workbench(
            opened.checkpoints,
            device=device,
            dtype=opened.cast.dtype,
            in_memory=opened.config.evaluation.in_memory,
            scratch=opened.config.cache_dir / "scratch",
            cast=opened.cast,
        )

    def examine(self, subject: str, recipe: Recipe, kinds: Sequence[Documents]) -> Scored:
        """Scores all documents of each kind.

        Raises:
            Interrupted: Asked to stop; what was scored so far is in the ledger.
        """
        request = StopRequest()
        candidate = self._workbench.candidate(recipe)
        scores: dict[str, Sequence[TaskScore]] = {}
        progress = SearchProgress(max_trials=None, quiet=self._quiet)
        with progress, stop_on_signals(request):
            for kind in kinds:
                progress.phase(f"{subject}: {kind} documents")
                scores[kind] = self._evaluator.evaluate(
                    candidate,
                    self._fidelity(kind),
                    split=kind,
                    should_stop=request,
                    on_progress=progress.documents,
                )
        objectives = self._opened.objectives
        means = {kind: 1.0 - scalar_cost(objectives, found) for kind, found in scores.items()}
        return Scored(subject, scores, means)

    def _fidelity(self, kind: Documents) -> int:
        if kind == "search":
            return self._evaluator.max_fidelity
        return heldout_fidelity(self._opened, self._evaluator)


def kind_of(documents: str) -> Documents:
    """Parses ``--documents``.

    Raises:
        UserError: It is neither kind.
    """
    kinds: tuple[Documents, ...] = ("search", "heldout")
    for kind in kinds:
        if kind == documents:
            return kind
    raise UserError(f"--documents {documents!r}: unknown{nearest(documents, kinds)}")


def evaluate_folder(path: str, config: RunConfig, documents: str, *, quiet: bool) -> Scored:
    """Scores any model folder on the tasks of a configuration, with the same documents.

    Args:
        path: Folder, hub name or ``zoo:NAME``.
        config: Names the tasks.
        documents: ``search`` or ``heldout``.
        quiet: Whether to show no progress.

    Raises:
        UserError: The folder or a task cannot be used.
    """
    kind = kind_of(documents)
    opened = open_alone(config, Model("model", path, resolve_location(path)))
    recipe = opened.cast.single_model("model")
    return Examination(opened, quiet=quiet).examine(path, recipe, (kind,))
