"""Facts about a model, wherever it is: the one call that a plan makes for each model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from llmlaunch.manifest.types import Source
from llmlaunch.models.facts import ModelFacts
from llmlaunch.models.reading.read import read_facts
from llmlaunch.models.sources.resolve import opened, resolve
from llmlaunch.models.sources.types import ModelLocation


def inspect(
    model: str,
    *,
    source: Source = Source.AUTO,
    revision: str | None = None,
    cache: Path | None = None,
    env: Mapping[str, str] = os.environ,
) -> ModelFacts:
    """Read the facts of ``model`` from its files' headers, without downloading weights and without torch.

    ``model`` is a folder, a GGUF file, ``package://MODULE[/path]``, or a hub id (``org/name``, ``org/name:Q4_K_M``
    or ``org/name/file.gguf``).
    A hub's model that is not in its cache is read from the hub; ``download_bytes`` then says what is still to come.
    Raises ModelError with the places that were looked at; a network that is down is noticed within seconds.
    """
    place = resolve(model, source=source, revision=revision, cache=cache, env=env)
    if place.local:
        return replace(local_facts(place), revision=revision)
    if place.hub == Source.MODELSCOPE:
        from llmlaunch.models.sources import modelscope

        return modelscope.inspect(place)
    from llmlaunch.models.sources import huggingface

    return huggingface.inspect(place, cache, env)


def local_facts(place: ModelLocation) -> ModelFacts:
    """Facts of a place on this machine. Raises ModelError."""
    files, choice = opened(place)
    path = str(place.folder / choice.weights[0]) if choice.format == "gguf" else place.path
    return read_facts(files, choice, source=place.model, path=path, local=True)
