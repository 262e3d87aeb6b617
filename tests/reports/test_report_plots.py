"""Plots: well-formed, deterministic, complete; heat map values worked by hand."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest
import synthetic

from auto_merge.recipe.model import Entry, Recipe, Slice, Source
from auto_merge.reports import plots
from auto_merge.reports.heatmap import REST, recipe_cells, recipe_heatmap
from auto_merge.reports.svg import PALETTE, drawing, palette_css
from auto_merge.runs.view import RunView
from auto_merge.statistics import Importance, Share


def every_plot(view: RunView) -> dict[str, str]:
    heldout = view.final.heldout if view.final is not None else ()
    recipe = view.incumbent_recipe
    return {
        "documents": plots.best_so_far(view, "documents"),
        "seconds": plots.best_so_far(view, "seconds"),
        "forest": plots.forest(heldout),
        "tasks": plots.task_scores(view.objectives, heldout),
        "recipe": "" if recipe is None else recipe_heatmap(recipe),
    }


def texts(svg: str) -> list[str]:
    return [
        element.text or ""
        for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    ]


def titles(svg: str) -> list[str]:
    return [
        element.text or ""
        for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}title")
    ]


class TestSvg:
    def test_every_plot_is_well_formed_and_self_contained(self, any_run: RunView) -> None:
        for name, svg in every_plot(any_run).items():
            if not svg:
                continue
            root = ElementTree.fromstring(svg)
            assert root.tag == "{http://www.w3.org/2000/svg}svg", name
            ids = [element.get("id") for element in root.iter() if element.get("id")]
            assert len(ids) == len(set(ids)), name
            targets = {element.get("href") for element in root.iter() if element.get("href")}
            assert targets <= {f"#{identifier}" for identifier in ids}, name
            assert svg.count("http") == 1, name  # the namespace

    def test_same_picture_same_bytes(self, complete: RunView) -> None:
        assert complete.final is not None
        rows = complete.final.heldout
        assert plots.task_scores(complete.objectives, rows) == plots.task_scores(
            synthetic.objectives(), rows
        )
        assert plots.best_so_far(complete, "seconds") == plots.best_so_far(complete, "seconds")

    def test_colours_are_variables_with_fallback(self, complete: RunView) -> None:
        svg = plots.forest(complete.final.heldout if complete.final else ())
        assert f"var(--blue, {PALETTE['blue'][0]})" in svg
        assert "--blue: #63b0ea;" in palette_css(1)

    def test_palette_colours_can_be_told_apart(self) -> None:
        for place in (0, 1):
            assert len({colours[place] for colours in PALETTE.values()}) == len(PALETTE)

    def test_palette_has_contrast(self) -> None:
        def luminance(colour: str) -> float:
            parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
            linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
            return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

        for place in (0, 1):
            paper = luminance(PALETTE["paper"][place])
            for name in ("blue", "orange", "green", "purple", "amber", "grey"):
                ends = sorted((paper, luminance(PALETTE[name][place])))
                assert (ends[1] + 0.05) / (ends[0] + 0.05) >= 3.0, (name, place)

    def test_dollars_and_control_characters(self) -> None:
        with drawing("odd", "a <b> & c", 2, 1) as picture:
            picture.axes.set_title("$x^2$ <i> 日本")
        assert "$x^2$ <i> 日本" in texts(picture.svg)
        assert titles(picture.svg) == ["a <b> & c"]


class TestHistory:
    def test_nothing_without_success(self, empty: RunView, failed: RunView) -> None:
        for view in (empty, failed):
            assert every_plot(view)["documents"] == ""

    def test_one_tooltip_per_successful_trial(self, complete: RunView) -> None:
        assert len(titles(plots.best_so_far(complete, "documents"))) == 1 + 112

    def test_single_trial(self, single: RunView) -> None:
        svg = plots.best_so_far(single, "seconds")
        assert "trial 0: " in svg
        assert "active seconds" in texts(svg)


class TestHeldout:
    def test_forest_names_models_and_intervals(self, complete: RunView) -> None:
        assert complete.final is not None
        found = texts(plots.forest(complete.final.heldout))
        assert "vs uniform average" in found
        assert "close ones, magnified" in found
        assert any(text.startswith("+24.4 (") for text in found)

    def test_no_magnified_panel_where_all_are_close(self, complete: RunView) -> None:
        assert complete.final is not None
        winner, *others = complete.final.heldout
        assert "close ones, magnified" not in texts(plots.forest((winner, *others[:4])))

    def test_forest_without_rivals(self, complete: RunView) -> None:
        assert complete.final is not None
        assert plots.forest(complete.final.heldout[:1]) == ""
        assert plots.task_scores(complete.objectives, ()) == ""

    def test_many_models_keep_distinct_marks(self, complete: RunView) -> None:
        assert complete.final is not None
        winner, *others = complete.final.heldout
        many = [replace(others[0], label=f"source: {number}") for number in range(12)]
        found = texts(plots.task_scores(complete.objectives, (winner, *many)))
        assert {"best", "source: 0", "source: 11"} <= set(found)


class TestImportance:
    def test_bars(self) -> None:
        names = [
            "layer_selection_method_3",
            "model_a_b_layer_0_paramset_mlp_method_ties_param_weights",
            "layer_1_paramset_base_method_slerp_param_slerp_t",
            "x" * 80,
        ]
        shares = tuple(Share(name, 0.4 - 0.1 * n, 0.05) for n, name in enumerate(names))
        found = texts(plots.importance_bars(Importance(shares, 0.5, 60)))
        assert "group 3: method" in found
        assert "group 0 mlp: ties weights of a_b" in found
        assert "group 1 rest: slerp slerp t" in found
        assert any(len(text) == 60 and "…" in text for text in found)

    def test_top_fifteen(self) -> None:
        shares = tuple(Share(f"p{n:02}", 0.5 - 0.01 * n, 0.0) for n in range(30))
        found = texts(plots.importance_bars(Importance(shares, 0.5, 60)))
        assert [text for text in found if text.startswith("p")] == [f"p{n:02}" for n in range(15)]

    def test_nothing_to_show(self) -> None:
        assert plots.importance_bars(None) == ""
        assert plots.importance_bars(Importance((Share("a", -0.1, 0.0),), 0.0, 20)) == ""


class TestHeatmap:
    def test_effective_weights_by_hand(self) -> None:
        def source(model: str, *entries: Entry) -> Source:
            return Source(model, (0, 2), {"weight": entries} if entries else {})

        recipe = Recipe(
            (
                Slice("linear", (source("a", Entry(3.0, "mlp"), Entry(1.0)), source("b"))),
                Slice(
                    "task_arithmetic",
                    (source("a", Entry(0.5)), source("b", Entry(2.0))),
                    {"scale": (Entry(0.5),)},
                ),
                Slice(
                    "ties",
                    (source("a", Entry(1.0)), source("b", Entry(3.0))),
                    {"scale": (Entry(2.0),), "density": (Entry(0.3, "mlp"), Entry(0.6))},
                ),
                Slice("slerp", (source("b"), source("a")), {"t": (Entry(0.25),)}),
                Slice("passthrough", (source("b"),)),
            ),
            base="base",
        )
        cells = recipe_cells(recipe)
        by_row = {(cell.slice_index, cell.group): cell for cell in cells}
        assert by_row[0, "mlp"].weights == {"a": 0.75, "b": 0.25}
        assert by_row[0, REST].weights == {"a": 0.5, "b": 0.5}
        assert by_row[1, "mlp"].weights == {"a": 0.25, "b": 1.0}
        assert by_row[2, "mlp"].weights == {"a": 0.5, "b": 1.5}
        assert (by_row[2, "mlp"].detail, by_row[2, REST].detail) == ("density 0.3", "density 0.6")
        assert by_row[3, REST].weights == {"b": 0.75, "a": 0.25}
        assert by_row[4, REST].weights == {"b": 1.0}
        assert by_row[4, REST].layers == (8, 10)

    def test_zero_weights_and_a_source_used_twice(self) -> None:
        zero = {"weight": (Entry(0.0),)}
        recipe = Recipe((Slice("linear", (Source("a", (0, 1), zero), Source("b", (0, 1), zero))),))
        assert recipe_cells(recipe)[0].weights == {"a": 0.0, "b": 0.0}
        twice = Recipe((Slice("linear", (Source("a", (0, 1)), Source("a", (1, 2)))),))
        assert recipe_cells(twice)[0].weights == {"a": 1.0}
        assert recipe_cells(twice)[0].group == ""

    def test_labels(self) -> None:
        found = texts(recipe_heatmap(synthetic.recipe()))
        assert {"self_attn", "mlp", "rest", "base", "reverse"} <= set(found)
        assert "layers 6 to 7 · slerp" in found
        assert sum(text.startswith("layers 2 to 3 · ties · density") for text in found) == 1

    @pytest.mark.parametrize("num_layers", [2, 80])
    def test_shallow_and_deep_models(self, num_layers: int) -> None:
        svg = recipe_heatmap(synthetic.recipe(num_layers))
        assert any(f"layers {num_layers - 2} to" in text for text in texts(svg))

    def test_negative_and_large_weights(self) -> None:
        source = Source("a", (0, 1), {"weight": (Entry(-2.5),)})
        svg = recipe_heatmap(Recipe((Slice("task_arithmetic", (source,)),), base="b"))
        assert "-2.50" in texts(svg)
        assert "layer 0 · task_arithmetic" in texts(svg)
