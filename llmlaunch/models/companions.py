"""What the files are that an engine loads beside a model: mostly their size, and of a draft model its shape."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from llmlaunch.errors import ModelError
from llmlaunch.models.facts import Companion, CompanionRole, ModelFacts
from llmlaunch.models.inspect import inspect
from llmlaunch.models.reading import gguf_header
from llmlaunch.models.sources import huggingface_cache

_ADAPTERS = ("adapter_model*.safetensors", "adapter_model*.bin")


def companion_facts(
    companion: Companion, base: Path, env: Mapping[str, str] = os.environ
) -> ModelFacts | None:
    """Facts of ``companion``, a path relative to ``base`` or a hub id; None for what cannot be found or read.

    Only draft models are looked up on a hub.
    """
    try:
        place = base / Path(companion.source).expanduser()
        there = place.exists()
    except (OSError, RuntimeError, ValueError):
        return None
    try:
        if companion.role is CompanionRole.DRAFT:
            return inspect(str(place) if there else companion.source, env=env)
        if not there:
            cached = huggingface_cache.partial(companion.source, None, huggingface_cache.folder(env))
            return _adapter(companion, cached) if cached else None
        return _adapter(companion, place) if place.is_dir() else _file(companion, place)
    except (ModelError, OSError, ValueError):
        return None


def _file(companion: Companion, path: Path) -> ModelFacts:
    size = gguf_header.read(path).tensor_bytes if path.suffix == ".gguf" else path.stat().st_size
    return ModelFacts(companion.source, str(path), True, "gguf", weight_bytes=size)


def _adapter(companion: Companion, folder: Path) -> ModelFacts | None:
    sizes = [file.stat().st_size for pattern in _ADAPTERS for file in folder.glob(pattern)]
    if not sizes:
        return None
    return ModelFacts(companion.source, str(folder), True, "safetensors", weight_bytes=sum(sizes))
