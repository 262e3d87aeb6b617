"""Runs a configuration: a new search, or the rest of one that was stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from auto_merge.config.run_config import RunConfig, differing_keys
from auto_merge.errors import Interrupted, RunError
from auto_merge.evaluation.evaluator import HarnessEvaluator
from auto_merge.optimizers import build_optimizer
from auto_merge.optimizers.hyperband import HyperbandOptimizer
from auto_merge.optimizers.proposer import Observation
from auto_merge.recipe import files
from auto_merge.reports.progress import SearchProgress
from auto_merge.runs import reader
from auto_merge.runs.store import RunStore
from auto_merge.runs.view import Final, RunView
from auto_merge.search.candidates import Workbench
from auto_merge.search.conclude import Conclusion, Finalist, finalists
from auto_merge.search.deliver import deliver, delivered
from auto_merge.search.front import FrontConclusion, front_finalists
from auto_merge.search.loop import Limits, SearchLoop
from auto_merge.search.manifest import brackets, identity, limits_of, manifest
from auto_merge.search.scoring import build_evaluator, resolve_device
from auto_merge.search.setup import Setup, prepare
from auto_merge.search.stopping import StopRequest, stop_on_signals
from auto_merge.search.worker import LocalWorker
from auto_merge.trial import Outcome, Trial

ConclusionKind = TypeVar("ConclusionKind", bound=Conclusion)


def run(config: RunConfig, *, quiet: bool = False) -> RunView:
    """Searches until the limits of the configuration and concludes; resumes what is there.

    Args:
        config: The configuration.
        quiet: Whether to show no progress.

    Returns:
        The complete run.

    Raises:
        UserError: Something is wrong with configuration, models, tasks or folder.
        AutoMergeError: The run cannot go on.
        Interrupted: Somebody asked to stop; the same call goes on from there.
    """
    setup = prepare(config)
    store = _existing(setup)
    if store is not None and _nothing_left(store, config):
        return reader.view(store)
    device = resolve_device(config.evaluation.device)
    evaluator = build_evaluator(setup, device)
    if store is None:
        store = RunStore.create(config.output_path, manifest(setup, evaluator, device))
    _check_tasks(store, evaluator)
    request = StopRequest()
    with store.lock(), stop_on_signals(request):
        return Session(setup, store, evaluator, device, request, quiet).go()


def _existing(setup: Setup) -> RunStore | None:
    folder = setup.config.output_path
    if not RunStore.exists(folder):
        RunStore.check_free(folder)
        return None
    store = RunStore(folder)
    store.refuse_if_locked()
    mine, theirs = identity(setup), store.manifest["identity"]
    if mine != theirs:
        keys = ", ".join(differing_keys(theirs, mine))
        raise RunError(
            f"{folder}: holds a run with other settings ({keys}); choose another --output, "
            "or set these keys back to resume it"
        )
    return store


def _nothing_left(store: RunStore, config: RunConfig) -> bool:
    """Whether the run is complete and the configuration asks for no more than it had."""
    seen = reader.view(store)
    if seen.state != "complete" or not delivered(store.folder):
        return False
    wanted = limits_of(config)
    return _covers(seen.max_trials, wanted.max_trials) and _covers(
        seen.max_seconds, wanted.max_seconds
    )


def _check_tasks(store: RunStore, evaluator: HarnessEvaluator) -> None:
    """Refuses to go on with tasks whose documents or prompts are others than at the start."""
    then, now = store.manifest["tasks"], evaluator.tasks_digest()
    changed = sorted(task for task in now if then.get(task) != now[task])
    if changed:
        raise RunError(
            f"{store.folder}: task {', '.join(changed)} has changed since the run began (its "
            "documents, prompts or settings); choose another --output, or put the old files back"
        )


def _covers(had: float | None, wanted: float | None) -> bool:
    """Whether a limit that was reached lies at or above the wanted one; ``None`` is no limit."""
    return had is None or (wanted is not None and wanted <= had)


class Session:
    """One process's work on a locked run.

    Args:
        setup: The opened configuration.
        store: The run, locked by the caller.
        evaluator: Scores candidates.
        device: Where the merged model lives.
        request: Polled between chunks.
        quiet: Whether to show no progress.

    Attributes:
        setup: The opened configuration.
        evaluator: Scores candidates.
        workbench: Where candidates are merged.
    """

    def __init__(
        self,
        setup: Setup,
        store: RunStore,
        evaluator: HarnessEvaluator,
        device: str,
        request: StopRequest,
        quiet: bool,
    ) -> None:
        self.setup = setup
        self._store = store
        self.evaluator = evaluator
        self._request = request
        self._quiet = quiet
        self._multi_objective = bool(store.manifest["multi_objective"])
        config = setup.config
        self.workbench = Workbench(
            setup.checkpoints,
            device=device,
            dtype=setup.cast.dtype,
            in_memory=config.evaluation.in_memory,
            scratch=config.cache_dir / "scratch",
            cast=setup.cast,
        )

    def go(self) -> RunView:
        """Searches, concludes and writes the results."""
        limits = limits_of(self.setup.config)
        self._store.set_fact(reader.LIMITS_FACT, asdict(limits))
        seen = reader.view(self._store)
        progress = SearchProgress(
            max_trials=limits.max_trials,
            max_seconds=limits.max_seconds,
            rungs=tuple(self._store.manifest["rungs"]),
            trials_done=sum(row.outcome is not None for row in seen.trials),
            active_seconds=seen.active_seconds,
            quiet=self._quiet,
        )
        with progress:
            self.fix_reference_point(progress)
            self.search(limits, progress)
            final = self.conclude(progress)
            progress.phase("writing the merged model and the report")
            return deliver(self._store, self.workbench, final)

    def search(self, limits: Limits, progress: SearchProgress) -> None:
        """Runs trials until a limit is reached.

        Raises:
            Interrupted: Asked to stop.
        """
        optimizer = self._optimizer()
        worker = LocalWorker(
            self.workbench,
            self.evaluator,
            self.setup.objectives,
            trial_seconds=self.setup.config.evaluation.trial_seconds,
            max_layers=self.setup.strategy.max_layers,
            should_stop=self._request,
            on_progress=progress.documents,
        )
        loop = SearchLoop(
            self._store,
            self.setup.strategy,
            optimizer,
            worker,
            limits,
            _Recorder(self._store, self.setup, progress),
            self._request,
        )
        try:
            if not loop.run():
                raise Interrupted
        finally:
            optimizer.close()

    def _optimizer(self) -> HyperbandOptimizer:
        config, strategy = self.setup.config, self.setup.strategy
        space = strategy.space()
        points = list(strategy.initial_design())
        if config.search.random_init_points:
            space.seed(config.random_seed)
            extra = space.sample_configuration(config.search.random_init_points)
            points += [("random", dict(item)) for item in _listed(extra)]
        optimizer = build_optimizer(
            config.search.optimizer,
            space,
            config.random_seed,
            brackets(config, self._store.manifest["top_fidelity"]),
            points,
            self.setup.objectives if self._multi_objective else (),
            self._warm_start(),
        )
        optimizer.restore(
            ("ask", event.asked()) if event.kind == "ask" else ("tell", event.trial, event.told())
            for event in self._store.events()
        )
        return optimizer

    def _warm_start(self) -> list[Observation]:
        objectives = self.setup.objectives
        return [
            item.observation(-1 - number, objectives, self._multi_objective)
            for number, item in enumerate(self.setup.history)
        ]

    def finalists(self) -> list[Finalist]:
        """The trials that may win, with their recipes."""
        decode, view = self.setup.strategy.decode, reader.view(self._store)
        trials = front_finalists(view) if self._multi_objective else finalists(view)
        return [Finalist(trial, decode(trial.configuration)) for trial in trials]

    def conclusion(self, progress: SearchProgress) -> Conclusion:
        """What chooses the winner and compares it."""
        return self._conclusion(Conclusion, progress)

    def front_conclusion(self, progress: SearchProgress) -> FrontConclusion:
        """The same for a front."""
        return self._conclusion(FrontConclusion, progress)

    def _conclusion(self, kind: type[ConclusionKind], progress: SearchProgress) -> ConclusionKind:
        return kind(
            self.workbench,
            self.evaluator,
            self.setup.objectives,
            self.setup.cast,
            rungs=self._store.manifest["rungs"],
            heldout_fidelity=self._store.manifest["heldout_fidelity"],
            should_stop=self._request,
            announce=progress.phase,
            on_progress=progress.documents,
        )

    def conclude(self, progress: SearchProgress) -> Final:
        """Chooses the winner or the front, compares it and stores the result."""
        final = self._front(progress) if self._multi_objective else self._winner(progress)
        told = sum(event.kind == "tell" for event in self._store.events())
        self._store.set_fact(reader.FINAL_FACT, reader.final_to_data(final, told))
        return final

    def _winner(self, progress: SearchProgress) -> Final:
        conclusion = self.conclusion(progress)
        winner = conclusion.choose(self.finalists())
        digest = self.workbench.candidate(winner.recipe).digest
        return conclusion.conclude(winner, self._count_opening(digest))

    def _front(self, progress: SearchProgress) -> Final:
        conclusion = self.front_conclusion(progress)
        members = conclusion.choose_front(self.finalists())
        openings = self._count_opening(conclusion.signature(members))
        reference = self._store.fact(reader.REFERENCE_FACT)
        return conclusion.conclude_front(members, openings, reference)

    def fix_reference_point(self, progress: SearchProgress) -> None:
        """Scores the sources, whose worst costs bound every hypervolume of the run."""
        if self._multi_objective and self._store.fact(reader.REFERENCE_FACT) is None:
            point = self.front_conclusion(progress).reference_point()
            self._store.set_fact(reader.REFERENCE_FACT, point)

    def _count_opening(self, digest: str) -> int:
        """Notes, before the first look, that a result sees the held-out documents."""
        seen = self._store.fact(reader.OPENINGS_FACT, [])
        if digest not in seen:
            seen.append(digest)
            self._store.set_fact(reader.OPENINGS_FACT, seen)
        return len(seen)


class _Recorder:
    """Passes what happens on to the progress display and keeps the incumbent's recipe."""

    def __init__(self, store: RunStore, setup: Setup, progress: SearchProgress) -> None:
        self._store = store
        self._setup = setup
        self._progress = progress
        self._best = -1

    def trial_started(self, trial: Trial) -> None:
        self._progress.trial_started(trial)

    def trial_finished(
        self, trial: Trial, outcome: Outcome, incumbent: tuple[Trial, Outcome] | None
    ) -> None:
        if incumbent is not None and incumbent[0].index != self._best:
            self._best = incumbent[0].index
            recipe = self._setup.strategy.decode(incumbent[0].configuration)
            self._store.set_fact(reader.INCUMBENT_FACT, files.to_data(recipe))
        self._progress.trial_finished(trial, outcome, incumbent)


def _listed(sample: Any) -> Sequence[Any]:
    return sample if isinstance(sample, list) else [sample]
