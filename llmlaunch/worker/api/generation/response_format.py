"""Which structured output a request asks for: response_format, structured_outputs or one of the guided_* fields."""

from __future__ import annotations

from typing import Any

from llmlaunch.worker.api.protocol import GenerationBody
from llmlaunch.worker.engine.structured_output import StructuredOutputRequest
from llmlaunch.worker.errors import BadRequest

_COMPACT = "disable_any_whitespace"
"""vLLM's option beside the form: JSON without whitespace between its tokens."""


def is_requested(body: GenerationBody) -> bool:
    """Return whether ``body`` asks for structured output at all, or has tools."""
    return bool(_fields(body)) or _format(body) not in (None, "text") or _has_tools(body)


def _has_tools(body: GenerationBody) -> bool:
    return bool(getattr(body, "tools", None) or getattr(body, "functions", None))


def _format(body: GenerationBody) -> str | None:
    kind = (body.response_format or {}).get("type")
    return None if kind is None else str(kind)


def _fields(body: GenerationBody) -> dict[str, tuple[str, Any]]:
    """vLLM's parameters: kind → (parameter, value)."""
    found: dict[str, tuple[str, Any]] = {}
    for kind in ("json", "regex", "choice", "grammar"):
        value = getattr(body, f"guided_{kind}")
        if value is not None:
            found[kind] = (f"guided_{kind}", value)
    for kind, value in (body.structured_outputs or {}).items():
        if value is not None and value is not False and kind != _COMPACT:
            found[kind] = ("structured_outputs", value)
    return found


def requested(body: GenerationBody) -> StructuredOutputRequest | None:
    """Return the structured output that ``body`` asks for, or None. Raises BadRequest if there are several."""
    found = _fields(body)
    kind = _format(body)
    if kind not in (None, "text"):
        found[f"response_format {kind}"] = ("response_format", body.response_format)
    if len(found) > 1:
        names = ", ".join(sorted({param for param, _ in found.values()}))
        raise BadRequest(f"only one of {names} can constrain an answer", param=names.split(",")[0])
    compact = _is_compact(body)
    for kind, (param, value) in found.items():
        return StructuredOutputRequest(kind, param, value, compact)
    return None


def _is_compact(body: GenerationBody) -> bool:
    wanted = (body.structured_outputs or {}).get(_COMPACT)
    if wanted is not None and not isinstance(wanted, bool):
        raise BadRequest(f"structured_outputs.{_COMPACT} must be true or false", param="structured_outputs")
    return bool(wanted)


def imposes_json(body: GenerationBody) -> bool:
    """Whether the answer has to be JSON: any, or JSON of a schema."""
    return "json" in _fields(body) or "json_object" in _fields(body) or _format(body) not in (None, "text")
