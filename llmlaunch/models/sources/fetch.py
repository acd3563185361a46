"""The download of a model that a plan found on a hub."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from llmlaunch.manifest.types import Source
from llmlaunch.models.facts import ModelFacts
from llmlaunch.models.sources.types import DownloadProgress


def fetch(
    facts: ModelFacts,
    progress: DownloadProgress,
    *,
    cache: Path | None = None,
    env: Mapping[str, str] = os.environ,
) -> Path:
    """Download what is missing and return the folder (or GGUF file) to load. What is local returns at once.

    ``progress`` is called from several threads, one call at a time. Raises ModelError.
    """
    if facts.local:
        return Path(facts.path)
    if facts.hub == Source.MODELSCOPE:
        from llmlaunch.models.sources import modelscope

        return modelscope.fetch(facts, progress, cache)
    from llmlaunch.models.sources import huggingface

    return huggingface.fetch(facts, progress, cache, env)
