"""Translates a Responses body into a chat body. Errors name the parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from llmlaunch.worker.api.chat.protocol import ChatBody, Message, ReasoningEffort
from llmlaunch.worker.api.protocol import GenerationBody
from llmlaunch.worker.api.responses.protocol import ResponsesBody
from llmlaunch.worker.api.responses.tools import OfferedTools
from llmlaunch.worker.errors import BadRequest

LOGPROBS_INCLUDED = "message.output_text.logprobs"


def chat_body(body: ResponsesBody, messages: Sequence[dict[str, Any]], offered: OfferedTools) -> ChatBody:
    """Return ``body`` as a chat body with ``messages`` and ``offered`` tools. Raises BadRequest."""
    shared = {name: getattr(body, name) for name in GenerationBody.model_fields}
    return ChatBody.model_validate(
        shared
        | {
            "stream_options": None,  # chat has others
            "messages": [Message.model_validate(message) for message in messages],
            "max_completion_tokens": body.max_output_tokens,
            "response_format": response_format(body),
            "tools": list(offered.tools) or None,
            "tool_choice": offered.choice,
            "parallel_tool_calls": body.parallel_tool_calls,
            "logprobs": wants_logprobs(body) or None,
            "top_logprobs": body.top_logprobs if wants_logprobs(body) else None,
            "reasoning_effort": _effort(body.reasoning or {}),
            "chat_template_kwargs": body.chat_template_kwargs,
        }
    )


def split_system(
    instructions: str | None, messages: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return ``instructions`` and all system and developer messages as one at most, and the other ``messages``.

    Most agents send several, and many chat templates refuse more than one, or one that is not the first.
    """
    texts = [instructions or ""]
    rest = []
    for message in messages:
        if message["role"] in ("system", "developer"):
            texts.append(message["content"])
        else:
            rest.append(message)
    text = "\n\n".join(filter(None, texts))
    return [{"role": "system", "content": text}] if text else [], rest


def wants_logprobs(body: ResponsesBody) -> bool:
    """Return whether ``body`` asks for logprobs, by either of OpenAI's two ways. 0 is their default."""
    return bool(body.top_logprobs) or LOGPROBS_INCLUDED in (body.include or ())


def check_supported(body: ResponsesBody) -> None:
    """Raises BadRequest for unsupported parameters."""
    verbosity = (body.text or {}).get("verbosity")
    if verbosity not in (
        None,
        "low",
        "medium",
        "high",
    ):  # it has no effect here, but comes back in the response
        raise BadRequest(
            f"text.verbosity must be low, medium or high, not {verbosity!r}", param="text.verbosity"
        )
    for name in ("background", "conversation", "prompt"):
        if getattr(body, name):
            raise BadRequest(f"{name} is not supported by this engine", param=name, code="unsupported")
    if (body.n or 1) > 1:
        raise BadRequest("n must be 1 in a response; use /v1/chat/completions for several answers", param="n")


def response_format(body: ResponsesBody) -> dict[str, Any] | None:
    """Return ``text.format`` as chat's response_format. Raises BadRequest."""
    given = (body.text or {}).get("format")
    if given is None:
        return body.response_format
    if not isinstance(given, dict):
        raise BadRequest("text.format must be an object with a type", param="text.format")
    if given.get("type") != "json_schema":
        return given
    return {"type": "json_schema", "json_schema": {k: v for k, v in given.items() if k != "type"}}


def _effort(reasoning: dict[str, Any]) -> str | None:
    effort = reasoning.get("effort")
    if effort is not None and effort not in get_args(ReasoningEffort):
        known = ", ".join(get_args(ReasoningEffort))
        raise BadRequest(f"reasoning.effort: {effort!r} is not one of {known}", param="reasoning")
    return effort
