"""One compilation of the native kernels for the whole test session, in a temporary folder."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from auto_merge.methods import native


@pytest.fixture(scope="session", autouse=True)
def _kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if "AUTO_MERGE_CACHE" in os.environ:
        yield
        return
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # shared by the workers: whoever comes first compiles for all
    os.environ["AUTO_MERGE_CACHE"] = str(folder / "cache")
    yield
    del os.environ["AUTO_MERGE_CACHE"]


@pytest.fixture
def kernels_built(_kernel_cache: None) -> None:
    """Skips the test where the native kernels cannot be compiled."""
    state = native.state()
    if state.library is None:
        pytest.skip(state.text)
