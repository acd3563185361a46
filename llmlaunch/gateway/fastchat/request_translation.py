"""Translates OpenAI's requests for a FastChat worker. Pure.

Requests that the worker cannot handle are refused here, because an unexpected exception costs the worker one of its slots
for good (``docs/explanation/fastchat.md``). A parameter that the worker would ignore is refused too, if it matters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmlaunch.gateway.fastchat import conversation
from llmlaunch.gateway.fastchat.conversation import ConversationTemplate

MAX_CHOICES = 128
"""The largest number of choices of one request, for all its prompts together."""
COMPLETION_TOKENS = 16
"""OpenAI's default for ``max_tokens`` of completions."""


class UnsupportedRequest(Exception):
    """The request cannot be answered. The client gets ``status``, and the rest in OpenAI's error envelope."""

    def __init__(
        self, message: str, param: str | None = None, *, code: str | None = None, status: int = 400
    ) -> None:
        super().__init__(message)
        self.message, self.param, self.code, self.status = message, param, code, status


@dataclass(frozen=True, slots=True)
class TextGenerationRequest:
    """A request for a chat or a completion."""

    model: str
    chat: bool
    prompts: tuple[str, ...] = ()
    """The prompts of a completion."""
    system: str | None = None
    """The system message of a chat; None: the template's own."""
    turns: tuple[tuple[bool, str], ...] = ()
    """The messages of a chat: (is the user's, message)."""
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    """Tokens of the answer; None: as many as the context has room for."""
    stops: tuple[str, ...] = ()
    logprobs: int | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Sampling parameters by the worker's names."""

    def texts(self, template: ConversationTemplate) -> tuple[str, ...]:
        """The prompts as the model gets them."""
        return (conversation.prompt(template, self.system, self.turns),) if self.chat else self.prompts

    def parameters(self, template: ConversationTemplate, prompt: str, max_new_tokens: int) -> dict[str, Any]:
        """The body of /worker_generate_stream for one answer to ``prompt``."""
        stops = self.stops + template.stops if self.chat else self.stops
        return {
            "model": self.model,
            "prompt": prompt,
            "max_new_tokens": max_new_tokens,
            "echo": False,
            "stop": list(dict.fromkeys(stops)),
            "stop_token_ids": list(template.stop_token_ids),
            "logprobs": self.logprobs,
            **self.sampling,
        }


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """A request for the embeddings of ``inputs``; ``base64`` is the encoding of the answer."""

    model: str
    inputs: tuple[str, ...]
    base64: bool


@dataclass(frozen=True, slots=True)
class TokenCheckRequest:
    """FastChat's request whether prompts fit into the context: (prompt, tokens of its answer)."""

    model: str
    prompts: tuple[tuple[str, int], ...]


_NUMBERS: dict[str, tuple[float, float, float | None]] = {
    "temperature": (0.0, 2.0, 1.0),
    "top_p": (0.0, 1.0, 1.0),
    "presence_penalty": (-2.0, 2.0, 0.0),
    "frequency_penalty": (-2.0, 2.0, 0.0),
    "repetition_penalty": (1.0, 10.0, None),
}
"""Minimum, maximum, and what is sent if the client sends none (None: nothing)."""
_NO_EFFECT: dict[str, tuple[object, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "logit_bias": ({},),
    "suffix": ("",),
    "dimensions": (),
    "min_p": (0, 0.0),
    "min_tokens": (0,),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "structured_outputs": (),
    "audio": (),
    "prediction": (),
}
"""Parameters that FastChat's protocol does not have, and their values without an effect, which are accepted."""


def chat(value: dict[str, Any]) -> TextGenerationRequest:
    """Translate the body of /v1/chat/completions. Raises UnsupportedRequest."""
    messages = value.get("messages")
    if not isinstance(messages, list) or not messages:
        raise UnsupportedRequest("messages must be a list with at least one message.", "messages")
    if value.get("logprobs"):
        raise UnsupportedRequest(
            "This model's worker (FastChat's) does not support logprobs in chats.", "logprobs"
        )
    systems: list[str] = []
    turns: list[tuple[bool, str]] = []
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        if not isinstance(message, dict):
            raise UnsupportedRequest(f"{where} must be an object.", "messages")
        role, content = message.get("role"), _content(message.get("content"), where)
        if role in ("system", "developer"):
            systems.append(content)
        elif role in ("user", "assistant") and not message.get("tool_calls"):
            turns.append((role == "user", content))
        else:
            raise UnsupportedRequest(
                f"{where}: this model's worker (FastChat's) supports only system, user and assistant messages, "
                "without tool calls.",
                "messages",
            )
    asked = value.get("max_completion_tokens")
    name = "max_tokens" if asked is None else "max_completion_tokens"
    return TextGenerationRequest(
        chat=True,
        system="\n".join(systems) if systems else None,
        turns=tuple(turns),
        max_tokens=_whole(value, name, 1),
        **_common(value, answers=1),
    )


def completion(value: dict[str, Any]) -> TextGenerationRequest:
    """Translate the body of /v1/completions. Raises UnsupportedRequest."""
    prompts = _texts(value.get("prompt"), "prompt")
    logprobs = _whole(value, "logprobs", 0, 5)
    if value.get("echo"):
        raise UnsupportedRequest("This model's worker (FastChat's) does not support echo.", "echo")
    if _whole(value, "best_of", 1) not in (None, value.get("n") or 1):
        raise UnsupportedRequest(
            "This model's worker (FastChat's) does not support a best_of other than n.", "best_of"
        )
    asked = _whole(value, "max_tokens", 1)
    return TextGenerationRequest(
        chat=False,
        prompts=prompts,
        max_tokens=COMPLETION_TOKENS if asked is None else asked,
        logprobs=logprobs,
        **_common(value, answers=len(prompts)),
    )


def embedding(value: dict[str, Any]) -> EmbeddingRequest:
    """Translate the body of /v1/embeddings. Raises UnsupportedRequest."""
    _refuse_unknown(value)
    form = value.get("encoding_format")
    if form not in (None, "float", "base64"):
        raise UnsupportedRequest("encoding_format must be float or base64.", "encoding_format")
    return EmbeddingRequest(value["model"], _texts(value.get("input"), "input"), form == "base64")


def check(value: dict[str, Any]) -> TokenCheckRequest:
    """Translate the body of /api/v1/token_check, whose prompts all name one model. Raises UnsupportedRequest."""
    prompts = []
    for item in value["prompts"]:
        text = item.get("prompt")
        if not isinstance(text, str):
            raise UnsupportedRequest("prompts: each must have a prompt that is a string.", "prompts")
        prompts.append((_encodable(text, "prompts"), _whole(item, "max_tokens", 0) or 0))
    return TokenCheckRequest(value["prompts"][0]["model"], tuple(prompts))


def _common(value: dict[str, Any], answers: int) -> dict[str, Any]:
    _refuse_unknown(value)
    form = value.get("response_format")
    if form is not None and form != {"type": "text"}:
        raise UnsupportedRequest(
            "This model's worker (FastChat's) supports only text as its response_format.", "response_format"
        )
    n = _whole(value, "n", 1, MAX_CHOICES) or 1
    if n * answers > MAX_CHOICES:
        raise UnsupportedRequest(
            f"The request asks for {n * answers} answers; the maximum is {MAX_CHOICES}.", "n"
        )
    options = value.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise UnsupportedRequest("stream_options must be an object.", "stream_options")
    return {
        "model": value["model"],
        "n": n,
        "stream": _flag(value, "stream"),
        "include_usage": _flag(options or {}, "include_usage"),
        "stops": _stops(value.get("stop")),
        "sampling": _sampling(value),
    }


def _refuse_unknown(value: dict[str, Any]) -> None:
    for name, idle in _NO_EFFECT.items():
        given = value.get(name)
        if given is not None and given not in idle:
            raise UnsupportedRequest(f"This model's worker (FastChat's) does not support {name}.", name)


def _sampling(value: dict[str, Any]) -> dict[str, Any]:
    sampling: dict[str, Any] = {}
    for name, (minimum, maximum, default) in _NUMBERS.items():
        given = value.get(name)
        if given is None:
            given = default
        elif isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
            raise UnsupportedRequest(f"{name} must be a number.", name)
        elif not minimum <= given <= maximum:
            raise UnsupportedRequest(f"{name} must be between {minimum:g} and {maximum:g}.", name)
        if given is not None:
            sampling[name] = float(given)
    top_k = _whole(value, "top_k", -1)
    sampling["top_k"] = top_k or -1
    return sampling


def _whole(value: dict[str, Any], name: str, minimum: int, maximum: int | None = None) -> int | None:
    given = value.get(name)
    if given is None:
        return None
    if type(given) is not int:
        raise UnsupportedRequest(f"{name} must be a whole number.", name)
    if given < minimum or (maximum is not None and given > maximum):
        bounds = f"at least {minimum}" if maximum is None else f"between {minimum} and {maximum}"
        raise UnsupportedRequest(f"{name} must be {bounds}.", name)
    return given


def _flag(value: dict[str, Any], name: str) -> bool:
    given = value.get(name)
    if given is not None and not isinstance(given, bool):
        raise UnsupportedRequest(f"{name} must be true or false.", name)
    return bool(given)


def _stops(given: object) -> tuple[str, ...]:
    stops = [given] if isinstance(given, str) else given or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise UnsupportedRequest("stop must be a string or a list of strings, none of them empty.", "stop")
    return tuple(_encodable(stop, "stop") for stop in stops)


def _texts(given: object, name: str) -> tuple[str, ...]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise UnsupportedRequest(f"{name} must be a string or a list of strings.", name)
    if not all(isinstance(text, str) for text in texts):
        raise UnsupportedRequest(
            f"{name} must be text: this model's worker (FastChat's) does not take token ids.", name
        )
    if not all(texts):
        raise UnsupportedRequest(f"{name} must not be empty.", name)
    if len(texts) > MAX_INPUTS:
        raise UnsupportedRequest(f"{name} has {len(texts)} texts; the maximum is {MAX_INPUTS}.", name)
    return tuple(_encodable(text, name) for text in texts)


MAX_INPUTS = 2048
"""The largest number of inputs in one request for embeddings; the limit is OpenAI's."""


def _content(given: object, where: str) -> str:
    if given is None:
        return ""
    if isinstance(given, str):
        return _encodable(given, "messages")
    if not isinstance(given, list):
        raise UnsupportedRequest(f"{where}.content must be a string or a list of parts.", "messages")
    return "\n".join(_part(part, where) for part in given)


def _part(part: object, where: str) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return _encodable(part["text"], "messages")
    raise UnsupportedRequest(
        f"{where}.content: this model's worker (FastChat's) accepts only text parts.", "messages"
    )


def _encodable(text: str, name: str) -> str:
    """``text``, without change. Refuses lone surrogates, which JSON can contain but a tokenizer cannot handle."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnsupportedRequest(
            f"{name} contains half of a surrogate pair, which is not a character.", name
        ) from None
    return text


def answer_budget(context: int, prompt: int, asked: int | None, param: str) -> int:
    """The largest number of tokens for the answer. Raises UnsupportedRequest when the prompt leaves no room.

    One token is kept free: a worker uses only the last ``context - answer - 1`` tokens of a prompt.
    """
    left = context - prompt - 1
    if prompt < 1:
        raise UnsupportedRequest("The prompt has no tokens.", param)
    if left < 1:
        raise UnsupportedRequest(
            f"This model's maximum context length is {context} tokens. However, your request has {prompt} "
            "in its prompt and needs at least 1 for the answer.",
            param,
            code="context_length_exceeded",
        )
    return left if asked is None else min(asked, left)
