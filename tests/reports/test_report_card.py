"""Model cards: valid front matter, every number, nothing that a name could break."""

from __future__ import annotations

from typing import Any

import synthetic
import yaml

from auto_merge.recipe.files import from_data, to_yaml
from auto_merge.reports.card import CardSource, model_card
from auto_merge.runs.view import RunView
from auto_merge.trial import Objective, TaskScore

SOURCES = (
    CardSource("sort", "zoo:sort", "0123abcd"),
    CardSource("math", "org/math-7b", "4567", hub_id="org/math-7b"),
    CardSource("base", "org/base-7b", "89ab", hub_id="org/base-7b"),
)


def split(card: str) -> tuple[dict[str, Any], str]:
    empty, front, body = card.split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(front), body


def card(**values: Any) -> str:
    recipe = to_yaml(synthetic.recipe())
    return model_card(**{"name": "m", "recipe_yaml": recipe, "sources": SOURCES, **values})


def test_front_matter() -> None:
    front, _ = split(card())
    assert front == {
        "library_name": "transformers",
        "tags": ["merge", "auto_merge"],
        "base_model": ["org/math-7b", "org/base-7b"],
        "base_model_relation": "merge",
    }


def test_local_models_are_no_hub_names() -> None:
    front, body = split(card(sources=SOURCES[:1]))
    assert "base_model" not in front
    assert "A merge of 1 model," in body
    assert "| sort | `zoo:sort` | `0123abcd` |" in body


def test_recipe_can_be_read_back() -> None:
    _, body = split(card())
    text = body.split("```yaml\n")[1].split("\n```")[0]
    assert from_data(yaml.safe_load(text)).recipe == synthetic.recipe()


def test_scores_with_intervals(complete: RunView) -> None:
    assert complete.final is not None
    heldout = complete.final.heldout
    _, body = split(card(objectives=complete.objectives, heldout=heldout, headline="A result."))
    assert "A result." in body
    table = [line for line in body.splitlines() if line.startswith("|")]
    rows = table[2 : 2 + len(heldout)]
    assert len({line.count("|") for line in table[: 2 + len(heldout)]}) == 1
    for row, line in zip(heldout, rows, strict=True):
        assert f" {100 * row.mean:.1f} |" in line
        assert row.comparison is None or row.comparison.verdict in line


def test_search_scores_are_marked_as_such() -> None:
    scores = (TaskScore("t", "acc,none", 0.5, 60, 0.01),)
    _, body = split(card(objectives=(Objective("t", "acc,none"),), search_scores=scores))
    assert "| t | 50.0 | 60 |" in body
    assert "flatters" in body


def test_no_scores_no_section() -> None:
    assert "## Scores" not in card()


def test_hostile_names(hostile: RunView) -> None:
    assert hostile.final is not None
    sources = (CardSource(synthetic.HOSTILE, synthetic.HOSTILE, "`f|`", synthetic.HOSTILE),)
    text = card(
        name=synthetic.HOSTILE + "\n# other",
        sources=sources,
        objectives=hostile.objectives,
        heldout=hostile.final.heldout,
        recipe_yaml="```\nafter: fence\n````",
    )
    front, body = split(text)
    assert front["base_model"] == [synthetic.HOSTILE]
    outside_code = body.split("`````")[0]
    assert "<script" not in outside_code.replace("`<script", "")
    assert "\n# other" not in body
    assert "`````yaml\n```\nafter: fence\n````\n`````" in body
    table = [line for line in body.splitlines() if line.startswith("|")]
    heldout_lines = table[: 2 + len(hostile.final.heldout)]
    assert len({line.replace("\\|", "").count("|") for line in heldout_lines}) == 1
