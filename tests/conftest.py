"""Fixtures every test may use."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from llmlaunch import paths

# Its limit of 200 ms an example is a timing assert, and a busy machine breaks it.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

pytest_plugins = ("tests.support.nvml.fixtures",)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A LLMLAUNCH_HOME of the test's own. Converted models are shared: they depend on nothing but the model."""
    monkeypatch.setenv("LLMLAUNCH_CACHE", str(paths.cache_root()))
    path = Path(tempfile.mkdtemp(prefix="llmlaunch-test-"))
    monkeypatch.setenv("LLMLAUNCH_HOME", str(path))
    yield path
    shutil.rmtree(path, ignore_errors=True)
