"""The context length of an engine that does not register itself, as the engine says it.

vLLM and SGLang name it in ``/v1/models`` (``max_model_len``), others under other names. llama.cpp's list has the length that the model
was trained with; ``/props`` has what one of its slots holds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from llmlaunch.planning.types import ProcessSpec
from llmlaunch.supervision.request import RequestFailed, request

_FIELDS = ("max_model_len", "context_length", "context_window", "max_context_length")


async def ask_context_length(spec: ProcessSpec, key: str = "") -> int | None:
    """Return the tokens that ``spec``'s process says it takes; None if it does not say. ``key``: what it requires of callers."""
    entry = _entry(await _get(spec, "/v1/models", key), (spec.engine_model, *spec.names, spec.model))
    length = next((found for field in _FIELDS if (found := _length(entry.get(field)))), None)
    if length is None and isinstance(entry.get("meta"), dict):
        props = await _get(spec, "/props", key)
        settings = props.get("default_generation_settings") if isinstance(props, dict) else None
        length = _length(settings.get("n_ctx")) if isinstance(settings, dict) else None
    return length


async def _get(spec: ProcessSpec, path: str, key: str) -> Any:
    try:
        response = await request("GET", spec.address + path, token=key)
        return response.json() if response.ok else None
    except (RequestFailed, ValueError):
        return None


def _entry(models: Any, names: Collection[str]) -> Mapping[str, Any]:
    """The model of one of these names in the list ``models``, or its only one; empty if there is none."""
    entries = models.get("data") if isinstance(models, dict) else None
    entries = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    named = [entry for entry in entries if entry.get("id") in names]
    return named[0] if named else entries[0] if len(entries) == 1 else {}


def _length(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
