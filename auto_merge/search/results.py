"""Small results of commands: each is printed as lines for people or as JSON for machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from auto_merge.trial import TaskScore


@dataclass(frozen=True)
class Written:
    """A model folder was written.

    Attributes:
        folder: Where.
        digest: Digest of its weights.
        num_tensors: Number of tensors.
    """

    folder: str
    digest: str
    num_tensors: int

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Text for people."""
        return [f"wrote {self.folder} ({self.num_tensors} tensors, digest {self.digest[:12]})"]


@dataclass(frozen=True)
class Scored:
    """A model was scored.

    Attributes:
        subject: What was scored.
        scores: Kind of documents (``"search"``, ``"heldout"``) -> scores.
        means: Kind of documents -> weighted mean of the scaled scores, in [0, 1].
        written: Folder that was exported as well, if any.
        recipe: YAML text of the recipe that was rebuilt, if one was.
    """

    subject: str
    scores: Mapping[str, Sequence[TaskScore]]
    means: Mapping[str, float]
    written: Written | None = None
    recipe: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "subject": self.subject,
            "scores": {kind: [asdict(s) for s in scores] for kind, scores in self.scores.items()},
            "means": dict(self.means),
            "written": self.written.to_json() if self.written else None,
            "recipe": self.recipe,
        }

    def lines(self) -> list[str]:
        """Text for people."""
        lines = [*self.recipe.splitlines(), self.subject]
        for kind, scores in self.scores.items():
            lines.append(f"  {kind} documents: mean {100 * self.means[kind]:.1f}")
            lines += [
                f"    {score.task} {score.metric}: {score.mean:.4f} ± {score.standard_error:.4f} "
                f"({score.num_documents} documents)"
                for score in scores
            ]
        return lines + (self.written.lines() if self.written else [])
