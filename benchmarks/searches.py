"""A search without its conclusion, for scripts that compare what searches find."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from auto_merge.config.run_config import RunConfig
from auto_merge.reports.progress import SearchProgress
from auto_merge.runs import reader
from auto_merge.runs.store import RunStore
from auto_merge.runs.view import RunView
from auto_merge.search.manifest import limits_of, manifest
from auto_merge.search.run import Session
from auto_merge.search.scoring import build_evaluator
from auto_merge.search.setup import prepare
from auto_merge.search.stopping import StopRequest


@contextmanager
def searched(loaded: RunConfig) -> Iterator[tuple[Session, SearchProgress, RunView]]:
    """Runs a search without its conclusion."""
    setup = prepare(loaded)
    evaluator = build_evaluator(setup, "cpu")
    folder = loaded.output_path
    if RunStore.exists(folder):
        store = RunStore(folder)
    else:
        store = RunStore.create(folder, manifest(setup, evaluator, "cpu"))
    with store.lock():
        session = Session(setup, store, evaluator, "cpu", StopRequest(), quiet=True)
        progress = SearchProgress(max_trials=loaded.search.max_trials, quiet=True)
        session.fix_reference_point(progress)
        session.search(limits_of(loaded), progress)
        yield session, progress, reader.view(store)
