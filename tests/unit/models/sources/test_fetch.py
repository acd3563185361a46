"""The download of a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmlaunch.models.inspect import inspect
from llmlaunch.models.sources.fetch import fetch
from tests.support.model_files import llama_folder


def test_fetch_of_a_local_model_returns_at_once(tmp_path: Path) -> None:
    facts = inspect(str(llama_folder(tmp_path / "tiny")), env={})
    assert fetch(facts, lambda *_: pytest.fail("nothing to report")) == tmp_path / "tiny"
