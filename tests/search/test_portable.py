"""A recipe that leaves a run stands for the same model outside of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from world import make_world

from auto_merge.config import load_config
from auto_merge.merging.plan import build_plan
from auto_merge.recipe.model import Recipe, Slice, Source
from auto_merge.search.candidates import Workbench
from auto_merge.search.setup import prepare


@pytest.mark.parametrize("base", ["base", None])
@pytest.mark.parametrize("dtype", ["bfloat16", None])
@pytest.mark.parametrize("first", ["left", "right"])
def test_it_gives_the_same_model(
    tmp_path: Path, base: str | None, dtype: str | None, first: str
) -> None:
    setup = prepare(load_config(make_world(tmp_path)))
    bench = Workbench(setup.checkpoints, device="cpu", dtype=setup.cast.dtype, cast=setup.cast)
    given = Recipe((Slice("passthrough", (Source(first, (0, 2)),)),), base, dtype)
    portable = bench.portable(given)
    alone = build_plan(portable, setup.checkpoints)
    assert alone.digest == bench.plan(given).digest
    assert replace(portable, base=base, dtype=dtype, tokens=()) == given
