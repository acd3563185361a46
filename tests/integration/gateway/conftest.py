"""One gateway process for all tests of this folder that need nothing special of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.gateway.fakes import Bench, running


@pytest.fixture(scope="session")
def shared_bench() -> Iterator[Bench]:
    with running("--max-body-bytes", "200000", "--cors-origin", "https://app.example") as bench:
        yield bench


@pytest.fixture
def bench(shared_bench: Bench) -> Iterator[Bench]:
    yield shared_bench
    shared_bench.clear()
