"""The made-up runs as fixtures; building the large ones costs a moment, so each is built once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import synthetic

from auto_merge.runs.view import RunView

RUNS: dict[str, Callable[[], RunView]] = {
    "complete": synthetic.complete_run,
    "running": synthetic.running_run,
    "empty": synthetic.empty_run,
    "failed": synthetic.failed_run,
    "single": synthetic.single_trial_run,
    "hostile": synthetic.hostile_run,
    "front of two tasks": synthetic.front_run,
    "front of five tasks": lambda: synthetic.front_run(5, 12),
    "front so far": lambda: replace(synthetic.front_run(), state="running", final=None),
}


@cache
def _build(name: str) -> RunView:
    return RUNS[name]()


@pytest.fixture(params=sorted(RUNS))
def any_run(request: pytest.FixtureRequest) -> RunView:
    return _build(request.param)


@pytest.fixture
def complete() -> RunView:
    return _build("complete")


@pytest.fixture
def running() -> RunView:
    return _build("running")


@pytest.fixture
def empty() -> RunView:
    return _build("empty")


@pytest.fixture
def failed() -> RunView:
    return _build("failed")


@pytest.fixture
def single() -> RunView:
    return _build("single")


@pytest.fixture
def hostile() -> RunView:
    return _build("hostile")


@pytest.fixture
def front() -> RunView:
    return _build("front of two tasks")


@pytest.fixture
def wide_front() -> RunView:
    return _build("front of five tasks")


@pytest.fixture
def front_so_far() -> RunView:
    return _build("front so far")
