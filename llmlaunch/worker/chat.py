"""/v1/chat/completions: a conversation in, an answer out, whole or in events."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmlaunch.worker import prompts
from llmlaunch.worker.codec import Codec
from llmlaunch.worker.errors import BadRequest
from llmlaunch.worker.flight import Flight
from llmlaunch.worker.http import DONE, event
from llmlaunch.worker.loader import Loaded
from llmlaunch.worker.protocol import ChatBody
from llmlaunch.worker.usage import Usage
from llmlaunch.worker.values import GenerationRequest, Piece, TokenLogprob


@dataclass(slots=True)
class Call:
    """One request for chat, checked and in tokens."""

    body: ChatBody
    requests: list[GenerationRequest]
    usage: Usage
    codec: Codec
    id: str = field(default_factory=lambda: prompts.new_id("chatcmpl"))
    created: int = field(default_factory=lambda: int(time.time()))

    def frame(self, kind: str, **fields: Any) -> dict[str, Any]:
        frame = {"id": self.id, "object": kind, "created": self.created, "model": self.body.model}
        return frame | fields


def prepare(body: ChatBody, loaded: Loaded) -> Call:
    """Check ``body`` and turn it into tokens. Raises ApiError."""
    _refuse(body)
    text = loaded.codec.render(
        prompts.plain_messages(body.messages),
        add_generation_prompt=_generates(body),
        continue_final_message=bool(body.continue_final_message),
        **_template_arguments(body),
    )
    tokens = loaded.codec.encode(text, special=False)  # the template writes its own special tokens
    if not tokens:
        raise BadRequest("the chat template wrote nothing for these messages", param="messages")
    end = prompts.ending(
        body,
        loaded.codec,
        prompt=len(tokens),
        asked=body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens,
        context=loaded.context,
        param="messages",
    )
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    requests = prompts.choices(body, loaded, tokens, end, logprobs=logprobs, count=body.n or 1)
    return Call(body, requests, Usage(len(tokens)), loaded.codec)


def _refuse(body: ChatBody) -> None:
    if body.top_logprobs is not None and not body.logprobs:
        raise BadRequest("top_logprobs needs logprobs: true", param="top_logprobs")
    if body.tools and body.tool_choice != "none":
        raise BadRequest("tools are not supported by this engine", param="tools", code="unsupported")
    if body.continue_final_message and body.add_generation_prompt:
        raise BadRequest(
            "continue_final_message and add_generation_prompt exclude each other",
            param="continue_final_message",
        )


def _generates(body: ChatBody) -> bool:
    if body.add_generation_prompt is not None:
        return body.add_generation_prompt
    return not body.continue_final_message


def _template_arguments(body: ChatBody) -> dict[str, Any]:
    given = dict(body.chat_template_kwargs or {})
    for name in ("tokenize", "return_dict", "return_tensors", "chat_template"):
        if name in given:
            raise BadRequest(
                f"chat_template_kwargs: {name} is not the client's", param="chat_template_kwargs"
            )
    return given


async def whole(call: Call, flight: Flight) -> dict[str, Any]:
    """The response object, when every answer is complete."""
    texts = [""] * len(call.requests)
    logprobs: list[list[TokenLogprob]] = [[] for _ in call.requests]
    lasts: dict[int, Piece] = {}
    async for index, piece in flight.pieces():
        call.usage.take(index, 0, piece)
        texts[index] += piece.text
        logprobs[index].extend(piece.logprobs)
        if piece.last:
            lasts[index] = piece
    answers = []
    for index, last in sorted(lasts.items()):
        answers.append(
            {
                "index": index,
                "message": {"role": "assistant", "content": texts[index], "refusal": None},
                "logprobs": _logprobs(call, logprobs[index]),
                "finish_reason": last.finish,
                "stop_reason": last.stop_reason,
            }
        )
    return call.frame("chat.completion", choices=answers, usage=call.usage.report(), system_fingerprint=None)


async def events(call: Call, flight: Flight, first: tuple[int, Piece] | None) -> AsyncIterator[bytes]:
    """Server-sent events: the role of each answer, its text, its end; then the usage when it was asked for."""
    options = call.body.stream_options
    counted = options is not None and bool(options.include_usage)
    running = counted and options is not None and bool(options.continuous_usage_stats)

    def chunk(index: int, delta: dict[str, Any], piece: Piece | None = None) -> bytes:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": _logprobs(call, piece.logprobs) if piece else None,
            "finish_reason": piece.finish if piece else None,
        }
        if piece is not None and piece.last:
            choice["stop_reason"] = piece.stop_reason
        usage = {"usage": call.usage.report() if running else None} if counted else {}
        return event(call.frame("chat.completion.chunk", choices=[choice], system_fingerprint=None, **usage))

    for index in range(len(call.requests)):
        yield chunk(index, {"role": "assistant", "content": ""})
    item = first
    while item is not None:
        index, piece = item
        call.usage.take(index, 0, piece)
        yield chunk(index, {"content": piece.text} if piece.text else {}, piece)
        item = await flight.next()
    if counted:
        usage = call.usage.report()
        yield event(call.frame("chat.completion.chunk", choices=[], usage=usage, system_fingerprint=None))
    yield DONE


def _logprobs(call: Call, tokens: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    if not call.body.logprobs:
        return None
    return {"content": [_entry(call.codec, token) for token in tokens], "refusal": None}


def _entry(codec: Codec, entry: TokenLogprob) -> dict[str, Any]:
    top = [_named(codec, token, logprob) for token, logprob in entry.top]
    return _named(codec, entry.token, entry.logprob) | {"top_logprobs": top}


def _named(codec: Codec, token: int, logprob: float) -> dict[str, Any]:
    # JSON has no infinity; OpenAI shows impossible tokens as -9999.
    shown = max(logprob, -9999.0)
    return {"token": codec.token_text(token), "logprob": shown, "bytes": codec.token_bytes(token)}
