"""/v1/completions: text in, text out; several prompts in one call, echo, token ids."""

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
from llmlaunch.worker.protocol import MOST_CHOICES, CompletionBody
from llmlaunch.worker.usage import Usage
from llmlaunch.worker.values import GenerationRequest, Piece, TokenLogprob


@dataclass(slots=True)
class Call:
    """One request for completions. Answer ``i`` is to prompt ``i // n``."""

    body: CompletionBody
    prompts: list[list[int]]
    requests: list[GenerationRequest]
    usage: Usage
    codec: Codec
    id: str = field(default_factory=lambda: prompts.new_id("cmpl"))
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def n(self) -> int:
        return self.body.n or 1

    def frame(self, **fields: Any) -> dict[str, Any]:
        frame = {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.body.model,
            "system_fingerprint": None,
        }
        return frame | fields

    def echoed(self, index: int) -> str:
        """What stands before answer ``index``."""
        return self.codec.decode(self.prompts[index // self.n]) if self.body.echo else ""


def prepare(body: CompletionBody, loaded: Loaded) -> Call:
    """Check ``body`` and turn it into tokens. Raises ApiError."""
    _refuse(body)
    found = prompts.token_lists(
        body.prompt, loaded.codec, "prompt", special=body.add_special_tokens is not False
    )
    count = body.n or 1
    if len(found) * count > MOST_CHOICES:
        raise BadRequest(
            f"{len(found)} prompts with n = {count} are more than {MOST_CHOICES} answers", param="prompt"
        )
    requests: list[GenerationRequest] = []
    for tokens in found:
        end = prompts.ending(
            body,
            loaded.codec,
            prompt=len(tokens),
            asked=16 if body.max_tokens is None else body.max_tokens,  # OpenAI's default here
            context=loaded.context,
            param="prompt",
        )
        requests += prompts.choices(body, loaded, tokens, end, logprobs=body.logprobs, count=count)
    return Call(body, found, requests, Usage(sum(map(len, found))), loaded.codec)


def _refuse(body: CompletionBody) -> None:
    if body.suffix:
        raise BadRequest("suffix is not supported by this engine", param="suffix", code="unsupported")
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise BadRequest(
            "best_of other than n is not supported by this engine", param="best_of", code="unsupported"
        )
    if body.max_tokens == 0:
        raise BadRequest("max_tokens: must be at least 1", param="max_tokens")
    if body.echo and body.logprobs is not None:
        raise BadRequest(
            "echo with logprobs is not supported by this engine", param="echo", code="unsupported"
        )


async def whole(call: Call, flight: Flight) -> dict[str, Any]:
    """The response object, when every answer is complete."""
    texts = [call.echoed(index) for index in range(len(call.requests))]
    tracks = [_Track(len(text)) for text in texts]
    lasts: dict[int, Piece] = {}
    async for index, piece in flight.pieces():
        call.usage.take(index, index // call.n, piece)
        texts[index] += piece.text
        tracks[index].take(call.codec, piece.logprobs)
        if piece.last:
            lasts[index] = piece
    answers = []
    for index, last in sorted(lasts.items()):
        answers.append(
            {
                "index": index,
                "text": texts[index],
                "logprobs": tracks[index].report() if call.body.logprobs is not None else None,
                "finish_reason": last.finish,
                "stop_reason": last.stop_reason,
            }
        )
    return call.frame(choices=answers, usage=call.usage.report())


async def events(call: Call, flight: Flight, first: tuple[int, Piece] | None) -> AsyncIterator[bytes]:
    """Server-sent events: what is echoed, the text as it comes; then the usage when it was asked for."""
    options = call.body.stream_options
    counted = options is not None and bool(options.include_usage)
    running = counted and options is not None and bool(options.continuous_usage_stats)
    tracks = [_Track(len(call.echoed(index))) for index in range(len(call.requests))]

    def chunk(index: int, text: str, piece: Piece | None = None) -> bytes:
        choice: dict[str, Any] = {
            "index": index, "text": text, "logprobs": None, "finish_reason": piece.finish if piece else None,
        }  # fmt: skip
        if piece is not None and call.body.logprobs is not None:
            tracks[index].take(call.codec, piece.logprobs)
            choice["logprobs"] = tracks[index].report(fresh=True)
        if piece is not None and piece.last:
            choice["stop_reason"] = piece.stop_reason
        usage = {"usage": call.usage.report() if running else None} if counted else {}
        return event(call.frame(choices=[choice], **usage))

    if call.body.echo:
        for index in range(len(call.requests)):
            yield chunk(index, call.echoed(index))
    item = first
    while item is not None:
        index, piece = item
        call.usage.take(index, index // call.n, piece)
        yield chunk(index, piece.text, piece)
        item = await flight.next()
    if counted:
        yield event(call.frame(choices=[], usage=call.usage.report()))
    yield DONE


class _Track:
    """Logprobs of one answer in the shape of completions: parallel lists, with offsets into the text."""

    def __init__(self, offset: int) -> None:
        self._offset = offset
        self._entries: list[tuple[str, float, dict[str, float], int]] = []
        self._reported = 0

    def take(self, codec: Codec, tokens: Sequence[TokenLogprob]) -> None:
        for entry in tokens:
            text = codec.token_text(entry.token)
            top = {codec.token_text(token): max(value, -9999.0) for token, value in entry.top}
            self._entries.append((text, max(entry.logprob, -9999.0), top, self._offset))
            self._offset += len(text)

    def report(self, *, fresh: bool = False) -> dict[str, Any]:
        """All so far; with ``fresh`` those that were not reported yet."""
        entries = self._entries[self._reported if fresh else 0 :]
        self._reported = len(self._entries)
        return {
            "tokens": [text for text, _, _, _ in entries],
            "token_logprobs": [logprob for _, logprob, _, _ in entries],
            "top_logprobs": [top for _, _, top, _ in entries],
            "text_offset": [offset for _, _, _, offset in entries],
        }
