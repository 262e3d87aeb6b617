"""The optimizer: Hyperband decides how far a configuration is evaluated, a proposer which."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from auto_merge.errors import RunError
from auto_merge.optimizers.fidelity import Bracket
from auto_merge.optimizers.proposer import (
    Observation,
    Proposal,
    Proposer,
    SpaceExhaustedError,
    configuration_key,
    plain_value,
)
from auto_merge.optimizers.schedule import Schedule, Slot
from auto_merge.statistics.pareto import front
from auto_merge.trial import Objective, Outcome, Status, Trial, Value, objective_costs

Event = tuple[Literal["ask"], Trial] | tuple[Literal["tell"], int, Outcome]
"""One recorded step: ``("ask", trial)`` or ``("tell", trial index, outcome)``."""


class HyperbandOptimizer:
    """Asks for trials along Hyperband's brackets; implements ``seams.Optimizer``.

    The start points fill the lowest rung of the first bracket (which grows to hold them all), then
    configurations come from the proposer, one by one. Every configuration is started exactly
    once, so no (configuration, fidelity) is ever asked twice.

    The state is a function of the order of asks and tells. ``ask`` and ``tell`` may be called from
    different threads; each waits for the other, so a caller that wants the same order in every run
    does not issue them at the same time.

    Args:
        brackets: One Hyperband round, from :func:`~auto_merge.optimizers.fidelity.hyperband_round`.
        initial_design: Start points as ``(label, configuration)``; repeated ones are dropped.
        proposer: Source of all other configurations.
        objectives: Objectives of a multi-objective run, in the order of the scores; configurations
            are then compared by their costs per objective. Empty for a run that compares them by
            the one cost of their outcomes.
    """

    def __init__(
        self,
        brackets: Sequence[Bracket],
        initial_design: Sequence[tuple[str, Mapping[str, Value]]],
        proposer: Proposer,
        objectives: Sequence[Objective] = (),
        warm_start: Sequence[Observation] = (),
    ) -> None:
        self._objectives = tuple(objectives)
        self._start_points = _start_points(initial_design)
        self._schedule = Schedule(brackets, first_stage=len(self._start_points))
        self._proposer = proposer
        self._warm_start = tuple(warm_start)
        self._trials: list[Trial] = []
        self._outcomes: dict[int, Outcome] = {}
        self._history: list[Observation] = []
        self._origins: list[str] = []
        self._lock = threading.Lock()

    def ask(self) -> Trial:
        """Returns the next trial; legal while earlier trials are untold.

        Raises:
            SpaceExhaustedError: Every configuration was proposed and no promotion is due. It may
                become due when the untold trials are told.
            AutoMergeError: The proposer failed.
        """
        with self._lock:
            slot = self._schedule.next_slot()
            proposal = None
            if slot is not None and slot.config_id is None:
                proposal = self._next_proposal()
                if proposal is None:
                    self._schedule.close_to_new()
                    slot = self._schedule.next_slot()
            if slot is None:
                raise SpaceExhaustedError(
                    f"all {len(self._history)} configurations of the search space were proposed "
                    "and none is due for promotion; the search is complete"
                )
            return self._commit(slot, proposal)

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Takes the outcome of an asked trial.

        Raises:
            RunError: The trial was not asked for, or was told already.
        """
        with self._lock:
            self._tell(trial.index, outcome)

    def incumbents(self) -> Sequence[Trial]:
        """Returns the best of the highest rung that has a success.

        One trial, by cost, then by number. With several objectives the Pareto front of that rung,
        in the same order: the first one is best in the weighted mean. Trials of lower rungs are
        left out, even where nothing dominates them: with fewer documents the luckiest of many
        estimates looks better than it is, and a front made of several rungs would fill up with
        them. (SMAC's rule ``highest_observed_budget`` mixes rungs; with several objectives it fails
        as soon as two incumbents sit on different ones.)

        Empty before the first success.
        """
        with self._lock:
            done = [
                (self._outcomes[trial.index], trial)
                for trial in self._trials
                if trial.index in self._outcomes
                and self._outcomes[trial.index].status is Status.SUCCESS
            ]
            top = max((trial.fidelity for _, trial in done), default=0)
            done = [pair for pair in done if pair[1].fidelity == top]
            done.sort(key=lambda pair: (pair[0].cost, pair[1].config_id))
            if not self._objectives:
                return [trial for _, trial in done[:1]]
            points = [objective_costs(self._objectives, outcome.scores) for outcome, _ in done]
            return [done[place][1] for place in front(points)]

    def untold(self) -> Sequence[Trial]:
        """Returns the trials that were asked for and have no outcome, in the order of asks."""
        with self._lock:
            return [trial for trial in self._trials if trial.index not in self._outcomes]

    def restore(self, events: Iterable[Event]) -> None:
        """Rebuilds the state of a recorded run without calling the proposer.

        Afterwards :meth:`ask` returns what the uninterrupted optimizer would have returned.

        Args:
            events: Asks and tells in the order in which they happened; to a fresh optimizer only.

        Raises:
            RunError: The record cannot stem from an optimizer with these settings.
        """
        with self._lock:
            if self._trials:
                raise RunError("restore needs a fresh optimizer; this one has trials already")
            for event in events:
                if event[0] == "tell":
                    self._tell(event[1], event[2])
                else:
                    self._replay(event[1])

    def close(self) -> None:
        """Releases the proposer's resources."""
        self._proposer.close()

    def _commit(self, slot: Slot, proposal: Proposal | None) -> Trial:
        """Fills a slot with its promoted configuration or with the given new one."""
        self._schedule.take(slot)
        if slot.config_id is not None:
            config_id = slot.config_id
            origin = self._origins[config_id]
        else:
            assert proposal is not None, "a slot for a new configuration needs one"
            config_id, origin = len(self._history), proposal.origin
            self._history.append(Observation(config_id, proposal.configuration))
            self._origins.append(origin)
        trial = Trial(
            index=len(self._trials),
            config_id=config_id,
            configuration=self._history[config_id].configuration,
            fidelity=slot.fidelity,
            bracket=slot.bracket,
            stage=slot.stage,
            origin=origin,
        )
        self._trials.append(trial)
        return trial

    def _tell(self, index: int, outcome: Outcome) -> None:
        if not 0 <= index < len(self._trials):
            raise RunError(f"trial {index} was told but never asked for")
        if index in self._outcomes:
            raise RunError(f"trial {index} was told twice")
        trial = self._trials[index]
        self._outcomes[index] = outcome
        success = outcome.status is Status.SUCCESS
        several = self._objectives and success
        costs = objective_costs(self._objectives, outcome.scores) if several else ()
        # A configuration climbs, so its latest outcome is the one with the most documents.
        self._history[trial.config_id] = Observation(
            trial.config_id,
            trial.configuration,
            outcome.cost,
            trial.fidelity,
            outcome.status,
            costs,
        )
        result = (costs or outcome.cost) if success else None
        self._schedule.record(trial.bracket, trial.stage, trial.config_id, result)

    def _next_proposal(self) -> Proposal | None:
        """Takes the next new configuration: a start point, else one from the proposer."""
        if len(self._history) < len(self._start_points):
            return self._start_points[len(self._history)]
        return self._proposer.propose((*self._warm_start, *self._history))

    def _replay(self, recorded: Trial) -> None:
        """Repeats a recorded ask: the same steps, with the recorded configuration."""
        promoted = recorded.config_id < len(self._history)
        slot = self._schedule.next_slot()
        if slot is not None and slot.config_id is None and promoted:
            # The run asked for a new configuration here and there was none.
            self._schedule.close_to_new()
            slot = self._schedule.next_slot()
        config_id = recorded.config_id if promoted else None
        place = Slot(recorded.bracket, recorded.stage, recorded.fidelity, config_id)
        if slot != place or recorded.index != len(self._trials):
            raise RunError(
                f"recorded trial {recorded.index} (bracket {recorded.bracket}, stage "
                f"{recorded.stage}, {recorded.fidelity} documents) does not fit the settings of "
                "this run; resume with the configuration that the run was started with"
            )
        self._commit(slot, Proposal(dict(recorded.configuration), recorded.origin))


def _start_points(
    initial_design: Sequence[tuple[str, Mapping[str, Value]]],
) -> tuple[Proposal, ...]:
    """Turns start points into proposals with plain values; drops repeated configurations."""
    points: dict[object, Proposal] = {}
    for label, configuration in initial_design:
        plain = {name: plain_value(value) for name, value in configuration.items()}
        origin = f"initial design: {label}"
        points.setdefault(configuration_key(plain), Proposal(plain, origin))
    return tuple(points.values())
