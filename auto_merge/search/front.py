"""The end of a multi-objective search: a Pareto front instead of one winner.

The front, the baselines that it is compared with and the best source of each objective are chosen
on search documents alone. Then the held-out documents are opened once for all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from auto_merge.errors import AutoMergeError
from auto_merge.runs.view import Final, Front, FrontMember, HeldoutRow, RunView
from auto_merge.search.baselines import SINGLE_SCALES
from auto_merge.search.conclude import (
    NO_DIFFERENCE,
    Conclusion,
    Contender,
    Finalist,
    latest_successes,
)
from auto_merge.statistics import (
    Comparison,
    hypervolume_share,
    largest_subset,
    simultaneous_comparisons,
)
from auto_merge.statistics.pareto import front, ranked, thinned
from auto_merge.trial import Objective, TaskScore, Trial, objective_costs

FRONT_SIZE = 12
"""Largest number of members of a front."""
MOST_SEARCHED = FRONT_SIZE + FRONT_SIZE // 2 + len(SINGLE_SCALES)
"""Models at most that the conclusion scores on all search documents, beside the references."""


@dataclass(frozen=True)
class _Scored:
    """A model with its scores on all search documents and, once opened, on held-out ones."""

    item: Contender
    search: Sequence[TaskScore]
    heldout: Sequence[TaskScore] = ()


def front_finalists(view: RunView, count: int = FRONT_SIZE) -> list[Trial]:
    """The trials that may become members of the front.

    At the highest rung, where they have been scored on all search documents, the first ``count``
    by non-dominated rank and crowding; of those below it the first half as many. The one with the
    best weighted mean is always among them. A configuration whose latest trial failed is left out.

    Args:
        view: The run.
        count: Largest number at the highest rung; >= 1.

    Raises:
        AutoMergeError: No trial succeeded.
    """
    good = latest_successes(view)
    top = max(trial.fidelity for trial, _ in good)
    found: list[Trial] = []
    for above, most in ((True, count), (False, count // 2)):
        group = [pair for pair in good if (pair[0].fidelity == top) is above]
        points = [objective_costs(view.objectives, outcome.scores) for _, outcome in group]
        # Crowding drops the dense middle of a front, where the best mean as a rule is; the
        # successes come in the order of their means.
        order = dict.fromkeys([*range(min(1, len(group))), *ranked(points)])
        found += [group[place][0] for place in list(order)[:most]]
    return found


def front_value(
    objectives: Sequence[Objective],
    scores: Sequence[Sequence[TaskScore]],
    reference: Sequence[float],
) -> float:
    """Hypervolume of models with these scores, as a share of the box below the reference point.

    Args:
        objectives: The run's objectives.
        scores: Scores of each model, objective order.
        reference: Cost of the worst source of each objective, from
            :meth:`FrontConclusion.reference_point`.
    """
    return hypervolume_share([objective_costs(objectives, found) for found in scores], reference)


class FrontConclusion(Conclusion):
    """Scores a front and what it has to beat; arguments as for :class:`Conclusion`."""

    def reference_point(self) -> tuple[float, ...]:
        """The worst cost of a source in each objective, on all search documents; 1.0 without one.

        The conclusion needs these scores anyway, so a run may fix its reference point at its start.

        Raises:
            Interrupted: Asked to stop.
        """
        found = [
            objective_costs(self._objectives, scores)
            for item in self._sources()
            if (scores := self._attempt(item, "search")) is not None
        ]
        if not found:
            return (1.0,) * len(self._objectives)
        return tuple(max(column) for column in zip(*found, strict=True))

    def choose_front(self, finalists: Sequence[Finalist]) -> tuple[Finalist, ...]:
        """Scores every finalist on all search documents and drops those that another dominates.

        More than :data:`FRONT_SIZE` are thinned out where they are crowded, those that miss a floor
        first.

        Returns:
            Those that keep their floors there first, then by weighted mean: the first one is the
            winner.

        Raises:
            Interrupted: Asked to stop.
            AutoMergeError: None of them can be scored.
        """
        scored = self._on_search_documents(
            [Contender(f"trial {one.trial.index}", one.recipe) for one in finalists]
        )
        if not scored:
            raise AutoMergeError("none of the best trials can be scored on all search documents")
        members = [scored[place] for place in front(self._search_costs(scored))]
        missed = {id(one): self._num_missed(one.search) for one in members}
        kept: list[_Scored] = []
        for keeping in (True, False):
            group = [one for one in members if (missed[id(one)] == 0) is keeping]
            kept += self._thinned(group, FRONT_SIZE - len(kept))
        kept.sort(key=lambda one: (missed[id(one)], -self._mean(one.search)))
        by_label = {f"trial {one.trial.index}": one for one in finalists}
        return tuple(by_label[one.item.label] for one in kept)

    def signature(self, members: Sequence[Finalist]) -> str:
        """Digest of a front, to count how many different ones saw the held-out documents."""
        digests = sorted(self._workbench.candidate(one.recipe).digest for one in members)
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()

    def conclude_front(
        self, members: Sequence[Finalist], num_openings: int, reference: Sequence[float]
    ) -> Final:
        """Opens the held-out documents for the front and for what it has to beat.

        Those are the sources, the base, the uniform average, the best single scale, and more single
        scales where they help the baselines: of the members and of the baselines that no other
        baseline dominates, equally many are compared, those that cover most on search documents.

        Args:
            members: From :meth:`choose_front`.
            num_openings: How many fronts of this run saw the held-out documents, this one included.
            reference: From :meth:`reference_point`, the same throughout the run.

        Raises:
            Interrupted: Asked to stop; what was scored so far is in the ledger.
            AutoMergeError: The winner itself cannot be scored.
        """
        labels = [f"trial {one.trial.index}" for one in members]
        found = self._on_search_documents(
            [Contender(label, one.recipe) for label, one in zip(labels, members, strict=True)]
        )
        references = self._on_search_documents(self._unsearched())
        scales = self._scales()
        rivals = self._rivals(references)
        whole = [*references, *scales]
        baselines = [whole[place] for place in front(self._search_costs(whole))]
        size = min(len(found), len(baselines))
        compared = self._cut(found, size, reference)
        against = self._cut(baselines, size, reference)
        chosen = [one for one in scales if one in against or one.item.label.startswith("best")]
        self._announce("opening the held-out documents")
        found, references, chosen = map(self._on_heldout_documents, (found, references, chosen))
        if not found or found[0].item.label != labels[0]:
            raise AutoMergeError(f"{labels[0]} won but cannot be scored again")
        names = {one.item.label for one in (*compared, *against)}
        compared = [one for one in found if one.item.label in names]
        against = [one for one in (*references, *chosen) if one.item.label in names]
        # Some may have failed on the held-out documents.
        size = min(len(compared), len(against))
        compared, against = (self._cut(group, size, reference) for group in (compared, against))
        by_label = dict(zip(labels, members, strict=True))
        shown = self._members(found, by_label, rivals, references)
        return Final(
            trial=members[0].trial,
            recipe=members[0].recipe,
            heldout=self._table(found[0], [*references, *chosen]),
            num_openings=num_openings,
            left_out=tuple(dict.fromkeys(self._left_out)),
            floors=shown[0].floors,
            front=Front(
                members=shown,
                rivals=tuple("" if item is None else item.label for item in rivals),
                reference=tuple(reference),
                size=len(compared),
                baselines=tuple(one.item.label for one in against),
                hypervolume=self._value([one.heldout for one in compared], reference),
                baseline_hypervolume=self._value([one.heldout for one in against], reference),
                search_hypervolume=self._value([one.search for one in compared], reference),
            ),
        )

    def _sources(self) -> list[Contender]:
        return self._unsearched()[: len(self._cast.models)]

    def _scales(self) -> list[_Scored]:
        """Every single scale on all search documents; the one with the best mean is named so."""
        if self._cast.base is None:
            return []
        scored = self._on_search_documents(
            [
                Contender(f"single scale ({scale:g})", self._cast.single_scale(scale))
                for scale in SINGLE_SCALES
            ]
        )
        if scored:
            best = max(range(len(scored)), key=lambda place: self._mean(scored[place].search))
            item = scored[best].item
            named = replace(item, label=f"best {item.label}")
            scored[best] = replace(scored[best], item=named)
        return scored

    def _rivals(self, references: Sequence[_Scored]) -> list[Contender | None]:
        """The best source of each objective on search documents."""
        sources = [item.label for item in self._sources()]
        scored = [one for one in references if one.item.label in sources]
        if not scored:
            return [None] * len(self._objectives)
        return [
            max(scored, key=lambda one: objective.goodness(one.search[place].mean)).item
            for place, objective in enumerate(self._objectives)
        ]

    def _members(
        self,
        found: Sequence[_Scored],
        by_label: dict[str, Finalist],
        rivals: Sequence[Contender | None],
        references: Sequence[_Scored],
    ) -> tuple[FrontMember, ...]:
        winner, opened = found[0], [one.item for one in references]
        comparisons = self._against_rivals(found, rivals, opened)
        return tuple(
            FrontMember(
                trial=by_label[one.item.label].trial,
                recipe=one.item.recipe,
                row=self._row(one, None if one is winner else winner),
                search_scores=tuple(one.search),
                comparisons=differences,
                floors=self._floors(one.item, opened),
            )
            for one, differences in zip(found, comparisons, strict=True)
        )

    def _against_rivals(
        self,
        found: Sequence[_Scored],
        rivals: Sequence[Contender | None],
        opened: Sequence[Contender],
    ) -> list[tuple[Comparison | None, ...]]:
        """Members minus the best source, per objective; the intervals hold all at once."""
        places = [place for place, rival in enumerate(rivals) if rival in opened]
        tasks = [
            self._paired_tasks(place, one.item, rival)
            for one in found
            for place in places
            if (rival := rivals[place]) is not None
        ]
        results = iter(simultaneous_comparisons(tasks) if tasks else ())
        return [
            tuple(
                self._unless_one(one.item, rival, next(results)) if place in places else None
                for place, rival in enumerate(rivals)
            )
            for one in found
        ]

    def _unless_one(
        self, item: Contender, rival: Contender | None, comparison: Comparison
    ) -> Comparison:
        assert rival is not None, "places hold rivals"
        return NO_DIFFERENCE if self._are_one(item, rival) else comparison

    def _table(self, winner: _Scored, others: Sequence[_Scored]) -> tuple[HeldoutRow, ...]:
        best = replace(winner, item=replace(winner.item, label="best"))
        return (self._row(best, None), *(self._row(one, winner) for one in others))

    def _row(self, one: _Scored, winner: _Scored | None) -> HeldoutRow:
        return HeldoutRow(
            label=one.item.label,
            scores=tuple(one.heldout),
            mean=self._mean(one.heldout),
            search_mean=self._mean(one.search),
            comparison=None if winner is None else self._compare(winner.item, one.item),
        )

    def _on_search_documents(self, items: Sequence[Contender]) -> list[_Scored]:
        return [
            _Scored(item, found)
            for item in items
            if (found := self._attempt(item, "search")) is not None
        ]

    def _on_heldout_documents(self, group: Sequence[_Scored]) -> list[_Scored]:
        return [
            replace(one, heldout=found)
            for one in group
            if (found := self._attempt(one.item, "heldout")) is not None
        ]

    def _search_costs(self, group: Sequence[_Scored]) -> list[tuple[float, ...]]:
        return [objective_costs(self._objectives, one.search) for one in group]

    def _thinned(self, group: Sequence[_Scored], size: int) -> list[_Scored]:
        """At most ``size`` models that spread over the front, that of the best mean among them."""
        if len(group) <= size:
            return list(group)
        if size <= 0:
            return []
        best = max(group, key=lambda one: self._mean(one.search))
        others = [one for one in group if one is not best]
        places = thinned(self._search_costs(others), size - 1)
        return [best, *(others[place] for place in places)]

    def _cut(self, group: list[_Scored], size: int, reference: Sequence[float]) -> list[_Scored]:
        """The ``size`` models that cover most on search documents."""
        return [
            group[place] for place in largest_subset(self._search_costs(group), size, reference)
        ]

    def _value(self, scores: Sequence[Sequence[TaskScore]], reference: Sequence[float]) -> float:
        return front_value(self._objectives, scores, reference)
