"""Finding a model's files, and what they contain."""

from __future__ import annotations

import os
from pathlib import Path

from llmlaunch.errors import LlmlaunchError, ModelError
from llmlaunch.manifest.types import Source
from llmlaunch.models.facts import ModelFacts
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.errors import StartupError
from llmlaunch.worker.loading.types import ReportProgress


def locate(config: WorkerConfig, progress: ReportProgress) -> tuple[ModelFacts, Path]:
    """Find the model and download what is missing; return its facts and its folder (or GGUF file).

    Raises StartupError if the model does not exist, another LlmlaunchError if a retry may help (a network failure).
    """
    from llmlaunch.models import inspect
    from llmlaunch.models.sources.fetch import fetch
    from llmlaunch.models.sources.huggingface import UNREACHABLE

    try:
        facts = inspect.inspect(
            config.model, source=Source(config.source), revision=config.revision, env=os.environ
        )
    except ModelError as error:
        if error.code == UNREACHABLE:
            raise  # the hub may be reachable on the next attempt
        raise StartupError(error.message, hint=error.hint, code=error.code) from error
    if facts.local:
        return facts, Path(facts.path)
    try:
        return facts, fetch(facts, progress)
    except ModelError:
        raise
    except OSError as error:
        raise LlmlaunchError(f"{config.model} could not be downloaded: {error}") from error
