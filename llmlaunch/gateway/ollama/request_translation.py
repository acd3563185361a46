"""Translates requests in Ollama's API to OpenAI's. Pure.

``keep_alive`` is ignored: models stay loaded. What cannot be honoured is refused: an own ``template``, and the ``context`` of an
earlier response (token ids; no response from here has one).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmlaunch.gateway.ollama import messages, options
from llmlaunch.gateway.ollama.fields import flag, items, text, whole_number
from llmlaunch.gateway.payload.model_field import InvalidBody

CHAT, COMPLETIONS, EMBEDDINGS = b"/v1/chat/completions", b"/v1/completions", b"/v1/embeddings"


@dataclass(frozen=True, slots=True)
class OpenAIRequest:
    """A request as a replica gets it."""

    path: bytes
    body: dict[str, Any]
    streams: bool = False


def needs_no_model(body: dict[str, Any], field: str) -> bool:
    """Whether a request only asks for the model to be loaded or unloaded: ``field`` (messages, prompt) is empty."""
    return not (body.get(field) or body.get("suffix") or body.get("images"))


def chat(body: dict[str, Any]) -> OpenAIRequest:
    """Translate a body for /api/chat. Raises InvalidBody."""
    said = messages.messages(items(body, "messages"))
    return _chat(body, said, messages.tools(body))


def generate(body: dict[str, Any]) -> OpenAIRequest:
    """Translate a body for /api/generate: a chat of one message, unless it is ``raw`` or has a ``suffix``.

    Raises InvalidBody.
    """
    if text(body, "template"):
        message = (
            "template cannot be set: the model's own is used. Send raw: true with a prompt that is complete."
        )
        raise InvalidBody(message, "template")
    if items(body, "context"):
        message = "context is not supported. Send the conversation to /api/chat instead."
        raise InvalidBody(message, "context")
    prompt, system, images = text(body, "prompt"), text(body, "system"), items(body, "images")
    if flag(body, "raw", False) or text(body, "suffix"):
        for name in ("images", "logprobs"):
            if body.get(name):
                raise InvalidBody(f"{name} cannot be combined with raw or suffix.", name)
        return _completion(body, prompt)
    said = [{"role": "system", "content": system}] if system else []
    return _chat(body, [*said, messages.user_message(prompt, images)], {})


def embed(body: dict[str, Any]) -> OpenAIRequest:
    """Translate a body for /api/embed. Raises InvalidBody."""
    given = body.get("input")
    inputs = [given] if isinstance(given, str) else given
    if not isinstance(inputs, list) or not all(isinstance(item, str) for item in inputs):
        raise InvalidBody("input must be a string or a list of strings.", "input")
    wanted: dict[str, Any] = {"model": text(body, "model"), "input": inputs, "encoding_format": "float"}
    if body.get("dimensions") is not None:
        wanted["dimensions"] = whole_number(body["dimensions"], "dimensions")
    if flag(body, "truncate", True):
        wanted["truncate_prompt_tokens"] = -1
    return OpenAIRequest(EMBEDDINGS, wanted)


def embeddings(body: dict[str, Any]) -> OpenAIRequest:
    """Translate a body for /api/embeddings, which takes one ``prompt``. Raises InvalidBody."""
    return embed({"model": body.get("model"), "input": text(body, "prompt")})


def _chat(body: dict[str, Any], said: list[dict[str, Any]], more: dict[str, Any]) -> OpenAIRequest:
    wanted = (
        {"model": text(body, "model"), "messages": said}
        | more
        | options.sampling(body)
        | options.response_format(body)
        | options.thinking(body)
        | options.logprobs(body)
    )
    return _streamed(CHAT, wanted, body)


def _completion(body: dict[str, Any], prompt: str) -> OpenAIRequest:
    # By default OpenAI's API ends after 16 tokens, and Ollama's at the end of the context.
    wanted = {"model": text(body, "model"), "prompt": prompt, "max_tokens": None, "n_predict": -1}
    wanted |= options.sampling(body) | options.response_format(body)
    if wanted["max_tokens"] is not None:
        del wanted["n_predict"]
    if suffix := text(body, "suffix"):
        wanted["suffix"] = suffix
    return _streamed(COMPLETIONS, wanted, body)


def _streamed(path: bytes, wanted: dict[str, Any], body: dict[str, Any]) -> OpenAIRequest:
    streams = flag(body, "stream", True)
    if streams:
        wanted |= {"stream": True, "stream_options": {"include_usage": True}}
    return OpenAIRequest(path, wanted, streams)
