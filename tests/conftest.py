"""Fixtures every test may use."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from llmlaunch import paths

# Its limit of 200 ms an example is a timing assert, and a busy machine breaks it.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# A shell without job control starts what it puts in the background with SIGINT and SIGQUIT ignored, and children inherit
# that: the Ctrl-C of tests would do nothing. A handler of our own becomes the default action in them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup: the tests go on after a hangup
    signal.signal(signal.SIGHUP, lambda *_: None)

pytest_plugins = ("tests.support.nvml.fixtures",)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A LLMLAUNCH_HOME of the test's own. Converted models are shared: they depend on nothing but the model."""
    monkeypatch.setenv("LLMLAUNCH_CACHE", str(paths.cache_root()))
    path = Path(tempfile.mkdtemp(prefix="llmlaunch-test-"))
    monkeypatch.setenv("LLMLAUNCH_HOME", str(path))
    yield path
    shutil.rmtree(path, ignore_errors=True)
