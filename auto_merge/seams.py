"""The seams between rooms, on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from auto_merge.recipe.model import Recipe
from auto_merge.trial import Outcome, TaskScore, Trial, Value

if TYPE_CHECKING:
    from ConfigSpace import ConfigurationSpace
    from transformers import PreTrainedModel


class Strategy(Protocol):
    """A search space over recipes."""

    @property
    def max_layers(self) -> int | None:
        """Deeper recipes are infeasible and never evaluated; ``None`` for any depth."""

    def space(self) -> ConfigurationSpace:
        """Returns a fresh configuration space; a hyperparameter that does not act is inactive."""

    def decode(self, configuration: Mapping[str, Value]) -> Recipe:
        """Turns a configuration into a recipe. Total on the space and pure."""

    def encode(self, published: Mapping[str, Any]) -> dict[str, Value]:
        """Turns published key names into a configuration.

        Raises:
            RecipeError: A key or value does not fit this space; the message names it.
        """

    def initial_design(self) -> Sequence[tuple[str, dict[str, Value]]]:
        """Start points as ``(label, configuration)``, all legal in the space."""


class Optimizer(Protocol):
    """Proposes trials and learns from their outcomes."""

    def ask(self) -> Trial:
        """Returns the next trial. Legal while earlier trials are still untold."""

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Takes the outcome of an asked trial."""

    def incumbents(self) -> Sequence[Trial]:
        """Best trials at the top complete rung; empty before the first success."""


class Candidate(Protocol):
    """A merged model that exists only when somebody needs its weights."""

    @property
    def digest(self) -> str:
        """Digest of the weights: resolved steps, source fingerprints, dtype, tokenizer."""

    def model(self) -> PreTrainedModel:
        """Materialises the weights in the worker's resident model and returns it."""


class Evaluator(Protocol):
    """Scores candidates on the run's objectives."""

    def evaluate(self, candidate: Candidate, fidelity: int) -> Sequence[TaskScore]:
        """Scores ``fidelity`` search documents per task; only missing documents are run."""


class Worker(Protocol):
    """Runs trials one at a time."""

    def run(self, trial: Trial, recipe: Recipe) -> Outcome:
        """Merges and evaluates; a failure of the trial is a status with a traceback.

        Raises:
            Interrupted: Somebody asked to stop.
            RunError: The ledger cannot be read or written.
            CheckpointError: A source cannot be read any more.
        """
