"""Translates what shapes an answer: ``options``, ``format`` and ``think``. Pure.

The names and defaults are those of Ollama's ``api/types.go``. Options that say how a model is loaded (``num_ctx``, ``num_gpu``)
are ignored: the manifest says so here. So are samplers that OpenAI's API has no name for (``mirostat``, ``typical_p``).
"""

from __future__ import annotations

from typing import Any

from llmlaunch.gateway.ollama.fields import mapping, number, whole_number
from llmlaunch.gateway.payload.model_field import InvalidBody

_NUMBERS = {
    "temperature": ("temperature",),
    "top_p": ("top_p",),
    "min_p": ("min_p",),
    "presence_penalty": ("presence_penalty",),
    "frequency_penalty": ("frequency_penalty",),
    # Most engines use vLLM's name; llama.cpp has its own. Each ignores the other.
    "repeat_penalty": ("repetition_penalty", "repeat_penalty"),
}
_THINKING_LEVELS = ("low", "medium", "high", "max")


def sampling(body: dict[str, Any]) -> dict[str, Any]:
    """The parameters for what ``options`` has, ``max_tokens`` among them. Raises InvalidBody."""
    given = {name: value for name, value in mapping(body, "options").items() if value is not None}
    found: dict[str, Any] = {}
    for name, targets in _NUMBERS.items():
        if name in given:
            found |= dict.fromkeys(targets, number(given[name], f"options.{name}"))
    if "top_k" in given:
        found["top_k"] = whole_number(given["top_k"], "options.top_k")
    # Below 0 the seed is random, and up to 0 the length has no limit.
    if "seed" in given and (seed := whole_number(given["seed"], "options.seed")) >= 0:
        found["seed"] = seed
    if "num_predict" in given and (most := whole_number(given["num_predict"], "options.num_predict")) > 0:
        found["max_tokens"] = most
    if "stop" in given and (stops := _stop(given["stop"])):
        found["stop"] = stops
    return found


def _stop(value: object) -> list[str]:
    strings = [value] if isinstance(value, str) else value
    if not isinstance(strings, list) or not all(isinstance(item, str) for item in strings):
        raise InvalidBody("options.stop must be a string or a list of strings.", "options.stop")
    return [item for item in strings if item]


def response_format(body: dict[str, Any]) -> dict[str, Any]:
    """The parameter for ``format``: ``json``, or a JSON schema. Raises InvalidBody."""
    wanted = body.get("format")
    if wanted is None or wanted == "":
        return {}
    if wanted == "json":
        return {"response_format": {"type": "json_object"}}
    if isinstance(wanted, dict):
        schema = {"name": "answer", "schema": wanted}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    raise InvalidBody('format must be "json" or a JSON schema.', "format")


def thinking(body: dict[str, Any]) -> dict[str, Any]:
    """The parameters for ``think``: true, false, or how much. Raises InvalidBody.

    Templates know the switch under one of two names: Qwen's ``enable_thinking``, or DeepSeek's and Granite's ``thinking``.
    """
    think = body.get("think")
    if think is None or think == "":
        return {}
    if isinstance(think, bool):
        return {"chat_template_kwargs": {"enable_thinking": think, "thinking": think}}
    if think in _THINKING_LEVELS:
        switches = {"enable_thinking": True, "thinking": True}
        return {"reasoning_effort": think, "chat_template_kwargs": switches}
    levels = ", ".join(f'"{level}"' for level in _THINKING_LEVELS)
    raise InvalidBody(f"think must be true, false, {levels[:-7]} or {levels[-5:]}.", "think")


def logprobs(body: dict[str, Any]) -> dict[str, Any]:
    """The parameters for ``logprobs`` and ``top_logprobs`` of a chat. Raises InvalidBody."""
    if not body.get("logprobs"):
        return {}
    found: dict[str, Any] = {"logprobs": True}
    if body.get("top_logprobs") is not None:
        found["top_logprobs"] = whole_number(body["top_logprobs"], "top_logprobs")
    return found
