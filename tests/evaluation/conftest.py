"""Fixtures of the evaluation tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from workshop import FakeCandidate, Workshop, build_model, build_tokenizer


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer().save_pretrained(folder)
    build_model().config.save_pretrained(folder)
    return folder


@pytest.fixture
def workshop(tmp_path: Path, tokenizer_folder: Path) -> Iterator[Workshop]:
    shop = Workshop(tmp_path, tokenizer_folder)
    yield shop
    for ledger in shop.ledgers:
        ledger.close()


@pytest.fixture
def candidate() -> FakeCandidate:
    return FakeCandidate("candidate-0", build_model())


@pytest.fixture
def make_candidate() -> Callable[[int], FakeCandidate]:
    return lambda seed: FakeCandidate(f"candidate-{seed}", build_model(seed))
