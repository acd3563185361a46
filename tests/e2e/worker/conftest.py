"""Workers that several files of tests share: tiny models, so that requests cost milliseconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.worker.server import MINILM, Worker, started
from tests.unit.worker import tiny


@pytest.fixture(scope="session")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """Serves "tiny": random weights, a token for each byte, so any bytes at all may come of it, and marks to fill in the middle."""
    folder = tiny.save(
        tiny.fresh("Llama", vocab_size=259 + len(tiny.MARKS), max_position_embeddings=2048),
        tmp_path_factory.mktemp("writer"),
        marks=tiny.MARKS,
    )
    with started(str(folder), "--model-names", "tiny,other") as worker:
        yield worker


@pytest.fixture(scope="session")
def embedder() -> Iterator[Worker]:
    with started(MINILM, "--model-names", "minilm") as worker:
        yield worker
