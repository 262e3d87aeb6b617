"""Model cards: the README.md of an exported folder, in the form that the Hugging Face hub reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from auto_merge.reports.wording import (
    clean,
    interval,
    points,
    signed_points,
    task_label,
    task_score,
)
from auto_merge.runs.view import HeldoutRow
from auto_merge.trial import Objective, TaskScore


@dataclass(frozen=True)
class CardSource:
    """A model that went into the merge.

    Attributes:
        role: Name in the recipe.
        location: Folder, hub name or ``zoo:NAME`` as configured.
        fingerprint: Content fingerprint of its weights.
        hub_id: Name on the Hugging Face hub (``"org/name"``); ``None`` for a local model.
    """

    role: str
    location: str
    fingerprint: str
    hub_id: str | None = None


def model_card(
    *,
    name: str,
    recipe_yaml: str,
    sources: Sequence[CardSource],
    objectives: Sequence[Objective] = (),
    heldout: Sequence[HeldoutRow] = (),
    search_scores: Sequence[TaskScore] = (),
    headline: str = "",
) -> str:
    """Returns a model card with YAML front matter.

    Args:
        name: Name of the model, the title of the card.
        recipe_yaml: Recipe as YAML text; anyone can build the model again from it.
        sources: Models that went in, the base included.
        objectives: Objectives of the search, if there was one.
        heldout: Held-out comparison, the exported model first.
        search_scores: Scores on search documents, for a model that was not scored on held-out ones.
        headline: Result in a sentence.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Markdown is no HTML: names are escaped by the filter below.
    environment = Environment(
        loader=PackageLoader("auto_merge.reports"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["markdown"] = _markdown
    environment.filters["code"] = _code
    return environment.get_template("card.md.j2").render(
        front_matter=_front_matter(sources),
        name=name,
        headline=headline,
        tasks=[task_label(objective, tuple(objectives)) for objective in objectives],
        heldout=[_heldout_cells(objectives, row) for row in heldout],
        search=[
            (task_label(objective, tuple(objectives)), task_score(objective, score), score)
            for objective, score in zip(objectives, search_scores, strict=False)
        ],
        sources=sources,
        recipe=recipe_yaml.rstrip("\n"),
        fence=_fence(recipe_yaml),
    )


def _front_matter(sources: Sequence[CardSource]) -> str:
    data: dict[str, Any] = {"library_name": "transformers", "tags": ["merge", "auto_merge"]}
    hub_ids = list(dict.fromkeys(source.hub_id for source in sources if source.hub_id))
    if hub_ids:
        data["base_model"] = hub_ids
        data["base_model_relation"] = "merge"
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True).rstrip("\n")


def _heldout_cells(objectives: Sequence[Objective], row: HeldoutRow) -> list[str]:
    scores = [
        task_score(objective, score)
        for objective, score in zip(objectives, row.scores, strict=True)
    ]
    compared = row.comparison
    outcome = ["", ""]
    if compared is not None:
        difference = f"{signed_points(compared.difference)} ({interval(compared)})"
        outcome = [difference, compared.verdict]
    return [row.label, *(scores if len(scores) > 1 else []), points(row.mean), *outcome]


def _markdown(text: str) -> str:
    """Text that Markdown and HTML show as it is, in one line."""
    escaped = re.sub(r"([\\`*_{}\[\]#|~$])", r"\\\1", clean(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _code(text: str) -> str:
    """Inline code in a table: no backtick and no bar can end it early."""
    return f"`{clean(text).replace('`', chr(39)).replace('|', '¦')}`"


def _fence(text: str) -> str:
    """A code fence longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    return "`" * max(3, longest + 1)
