"""The made-up runs as fixtures; building the large ones costs a moment, so each is built once."""

from __future__ import annotations

from collections.abc import Callable
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
