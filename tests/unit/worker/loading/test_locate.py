"""Which faults of a model's place end a worker for good, and which may be tried again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmlaunch.errors import LlmlaunchError, ModelError
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.errors import StartupError
from llmlaunch.worker.loading.locate import locate
from tests.support.ports import free_port


def failure(model: str) -> LlmlaunchError:
    config = WorkerConfig(model=model, names=("m",))
    with pytest.raises(LlmlaunchError) as caught:
        locate(config, lambda *_: None)
    return caught.value


def test_a_hub_that_cannot_be_reached_may_answer_the_next_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub: dict[str, Any] = {
        "HF_ENDPOINT": f"http://127.0.0.1:{free_port()}",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_CACHE": str(tmp_path),
    }
    for name, value in hub.items():
        monkeypatch.setenv(name, value)
    error = failure("org/tiny")
    assert isinstance(error, ModelError)
    assert (error.code, error.exit_code) == ("hub_unreachable", 1)


def test_a_model_that_is_not_there_is_the_end(tmp_path: Path) -> None:
    error = failure(str(tmp_path / "nothing"))
    assert isinstance(error, StartupError)
    assert error.exit_code == 2
