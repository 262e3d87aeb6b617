"""Which configuration is evaluated at which rung next: the state of all open brackets.

The schedule knows configurations by number only. It is deterministic: the same order of
:meth:`Schedule.take` and :meth:`Schedule.record` calls gives the same slots.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from auto_merge.optimizers.fidelity import Bracket
from auto_merge.statistics.pareto import ranked

Costs = float | tuple[float, ...]
"""Result of a trial: one cost, or one per objective; the same kind for all trials of a run."""


@dataclass(frozen=True)
class Slot:
    """A place to be filled by the next trial.

    Attributes:
        bracket: Bracket counter over the whole run, from 0.
        stage: Stage inside the bracket.
        fidelity: Documents per task.
        config_id: The configuration promoted into the slot; ``None`` asks for a new one.
    """

    bracket: int
    stage: int
    fidelity: int
    config_id: int | None


@dataclass
class _OpenStage:
    fidelity: int
    size: int
    free: int = 0
    waiting: deque[int] = field(default_factory=deque)
    untold: int = 0
    costs: dict[int, Costs] = field(default_factory=dict)
    ranked: bool = False

    def complete(self) -> bool:
        return self.free == 0 and not self.waiting and self.untold == 0

    def best_first(self) -> list[int]:
        """Numbers of the successful configurations, the first to be promoted first."""
        numbers = sorted(self.costs)
        points = [
            (cost,) if isinstance(cost, (int, float)) else cost
            for cost in (self.costs[number] for number in numbers)
        ]
        if points and len(points[0]) == 1:
            return [number for _, number in sorted(zip(points, numbers, strict=True))]
        return [numbers[place] for place in ranked(points)]


class Schedule:
    """Successive halving with the published batch rule, over an endless series of brackets.

    A stage is ranked when all its trials have results; the best ``size`` of the next stage, by cost
    and then by number, move up. With several objectives the order is by non-dominated rank, then by
    crowding distance, then by number, so that what moves up spreads over the front. A failed trial
    never moves up, so a stage may promote fewer. While a bracket waits for results, later brackets
    are served.

    Args:
        brackets: One Hyperband round, repeated for ever.
        first_stage: The lowest stage of the first bracket is widened to this many configurations
            when it would hold fewer, so that all start points are compared on the same documents.
    """

    def __init__(self, brackets: Sequence[Bracket], first_stage: int = 0) -> None:
        self._round = tuple(brackets)
        self._first_stage = first_stage
        self._num_opened = 0
        self._open: dict[int, list[_OpenStage]] = {}
        self._closed_to_new = False

    def next_slot(self) -> Slot | None:
        """Returns the slot that the next trial fills, without filling it.

        Older brackets come first and, inside a bracket, promotions before new configurations.

        Returns:
            ``None`` if no new configurations are allowed (see :meth:`close_to_new`) and no
            promotion is due.
        """
        for number, stages in self._open.items():
            for index, stage in enumerate(stages):
                if stage.waiting:
                    return Slot(number, index, stage.fidelity, stage.waiting[0])
                if stage.free:
                    return Slot(number, index, stage.fidelity, None)
        if self._closed_to_new:
            return None
        return Slot(self._num_opened, 0, self._template(self._num_opened)[0].fidelity, None)

    def take(self, slot: Slot) -> None:
        """Fills the slot that :meth:`next_slot` returned."""
        if slot.bracket == self._num_opened:
            self._open[slot.bracket] = self._template(slot.bracket)
            self._num_opened += 1
        stage = self._open[slot.bracket][slot.stage]
        if slot.config_id is None:
            stage.free -= 1
        else:
            stage.waiting.popleft()
        stage.untold += 1

    def record(self, bracket: int, stage: int, config_id: int, cost: Costs | None) -> None:
        """Takes the result of a filled slot; ``cost=None`` marks a failure."""
        place = self._open[bracket][stage]
        place.untold -= 1
        if cost is not None:
            place.costs[config_id] = cost
        self._advance(bracket, stage)

    def close_to_new(self) -> None:
        """Allows no further new configurations: the search space is exhausted."""
        self._closed_to_new = True
        for number in list(self._open):
            self._open[number][0].free = 0
            self._advance(number, 0)

    def _advance(self, bracket: int, index: int) -> None:
        """Promotes out of a stage if it has just become complete; drops finished brackets."""
        stages = self._open[bracket]
        stage = stages[index]
        if stage.ranked or not stage.complete():
            return
        stage.ranked = True
        if stage.costs and index + 1 < len(stages):
            stages[index + 1].waiting.extend(stage.best_first()[: stages[index + 1].size])
        else:
            del self._open[bracket]

    def _template(self, number: int) -> list[_OpenStage]:
        published = self._round[number % len(self._round)].stages
        stages = [_OpenStage(stage.fidelity, stage.size) for stage in published]
        stages[0].free = stages[0].size
        if number == 0:
            stages[0].free = max(stages[0].size, self._first_stage)
        return stages
