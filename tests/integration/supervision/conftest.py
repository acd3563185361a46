"""A world for each test, with a quick restart policy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.supervision.world import QUICK, World, world


@pytest.fixture
def lab(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("LLMLAUNCH_SUPERVISION", json.dumps(QUICK))
    with world(home) as box:
        yield box
