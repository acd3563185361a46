"""Where the model's files are, and what they are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from llmlaunch.errors import LlmlaunchError, ModelError
from llmlaunch.manifest.types import Source
from llmlaunch.models.facts import ModelFacts
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.errors import CanNotServe

Progress = Callable[[int, int, str], None]


def locate(config: WorkerConfig, progress: Progress) -> tuple[ModelFacts, Path]:
    """Find the model, download what is missing, and return its facts and its folder (or GGUF file).

    Raises CanNotServe when there is no such model, another LlmlaunchError when a retry may help (the network is down).
    """
    from llmlaunch.models import inspect, source
    from llmlaunch.models.hub import UNREACHABLE

    try:
        facts = inspect.inspect(
            config.model, source=Source(config.source), revision=config.revision, env=os.environ
        )
    except ModelError as error:
        if error.code == UNREACHABLE:
            raise  # the hub may answer the next time
        raise CanNotServe(error.message, hint=error.hint, code=error.code) from error
    if facts.local:
        return facts, Path(facts.path)
    try:
        return facts, source.fetch(facts, progress)
    except ModelError:
        raise
    except OSError as error:
        raise LlmlaunchError(f"{config.model} could not be downloaded: {error}") from error
