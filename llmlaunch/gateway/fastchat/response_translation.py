"""Translates the responses of a FastChat worker to OpenAI's. Pure.

Each piece of a worker's stream is a JSON object ``{"text", "error_code", "usage", "finish_reason", "logprobs"}`` whose
text is the whole answer so far. Errors are such pieces too, with status 200.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

UNFINISHED = "\ufffd"
"""The character that a tokenizer returns in place of an incomplete one."""
_OUT_OF_MEMORY = 50002
_FLOAT32_MOST = (2 - 2**-23) * 2.0**127
_MIN_LOGPROB = -9999.0
"""Stands for a logprob of minus infinity, which JSON cannot represent; the value is vLLM's."""
_ERROR_PREFIX = "**NETWORK ERROR DUE TO HIGH TRAFFIC. PLEASE REGENERATE OR REFRESH THIS PAGE.**"
"""FastChat puts this in front of every error message."""


class WorkerError(Exception):
    """The worker refused or failed. ``status`` is the client's HTTP status, ``code`` OpenAI's error code."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


def check(piece: object) -> dict[str, Any]:
    """Return ``piece`` if it is an object without an error, else raise WorkerError.

    FastChat's error codes (``fastchat/constants.py``) begin with an HTTP status, which does not always fit.
    """
    if not isinstance(piece, dict):
        raise WorkerError(502, "FastChat's worker did not send a JSON object", "bad_answer")
    number = piece.get("error_code", 0)
    if not number:
        return piece
    text = str(piece.get("text", "")).replace(_ERROR_PREFIX, "").strip()
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    message = f"FastChat's worker failed: {text or f'error {number}'}"
    if number == _OUT_OF_MEMORY:
        # Another replica, or this one in a moment, may have the memory.
        raise WorkerError(503, message, "out_of_memory")
    http_status = number // 100 if isinstance(number, int) else 0
    status = 429 if http_status == 429 else 400 if 400 <= http_status < 500 else 500
    raise WorkerError(status, message, f"fastchat_{number}")


@dataclass(slots=True)
class ChoiceDelta:
    """What one piece adds to a choice."""

    text: str = ""
    finish: str | None = None
    logprobs: dict[str, Any] | None = None

    def __bool__(self) -> bool:
        return bool(self.text or self.finish)


@dataclass(slots=True)
class ChoiceState:
    """One choice of a response while it is generated."""

    index: int
    prompt: int
    """The index of the prompt that it answers."""
    max_tokens: int
    """The largest number of tokens, as sent to the worker."""
    text: str = ""
    finish: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    logprobs: dict[str, Any] | None = None
    from_zero: bool = False
    """The worker reports the number of the last token, counted from 0, instead of how many there are."""
    _sent: int = 0
    _logprobs_sent: int = 0

    def take(self, piece: dict[str, Any]) -> ChoiceDelta:
        """Add ``piece`` and return what is new. Raises WorkerError if it has no text or wrong logprobs."""
        text = piece.get("text")
        if not isinstance(text, str):
            raise WorkerError(502, "FastChat's worker sent a piece without text", "bad_answer")
        self.text = text
        reported = piece.get("usage")
        if isinstance(reported, dict) and type(reported.get("completion_tokens")) is int:
            self.usage = reported
            self.from_zero = self.from_zero or reported["completion_tokens"] == 0
        if isinstance(piece.get("logprobs"), dict):
            self.logprobs = _logprobs(piece["logprobs"])
        if piece.get("finish_reason") is not None:
            self.finish = "length" if piece["finish_reason"] == "length" else "stop"
        # An incomplete last character may still change.
        return self._new(text if self.finish else text.rstrip(UNFINISHED))

    def end(self) -> ChoiceDelta:
        """The worker's stream has ended. Return what is new: workers of some models send no finish reason."""
        if self.finish is not None:
            return ChoiceDelta()
        self.finish = "stop"
        return self._new(self.text)

    def _new(self, text: str) -> ChoiceDelta:
        """The delta to ``text``. A text that became shorter, because it was cut at a stop string, adds nothing."""
        new, self._sent = text[self._sent :], max(self._sent, len(text))
        return ChoiceDelta(new, self.finish, self._new_logprobs() if new else None)

    def _new_logprobs(self) -> dict[str, Any] | None:
        if self.logprobs is None:
            return None
        at, self._logprobs_sent = self._logprobs_sent, len(self.logprobs["tokens"])
        return {name: values[at:] for name, values in self.logprobs.items()}

    @property
    def prompt_tokens(self) -> int | None:
        """Tokens of the prompt; None: the worker did not report them."""
        count = self.usage.get("prompt_tokens")
        return count if type(count) is int else None

    @property
    def completion_tokens(self) -> int | None:
        """Tokens of the answer; None: the worker did not report them."""
        count = self.usage.get("completion_tokens")
        if count is None:
            return None
        # If the first piece was held back as a possible stop string, a full answer shows how the worker counts.
        return count + (self.from_zero or (self.finish == "length" and count == self.max_tokens - 1))


def _logprobs(reported: dict[str, Any]) -> dict[str, list[Any]]:
    """The worker's logprobs in OpenAI's form. FastChat's workers do not report alternative tokens."""
    tokens = reported.get("tokens")
    values, offsets = reported.get("token_logprobs"), reported.get("text_offset")
    if not (isinstance(tokens, list) and isinstance(values, list) and len(values) == len(tokens)):
        raise WorkerError(502, "FastChat's worker sent logprobs that do not fit its tokens", "bad_answer")
    return {
        "tokens": [str(token) for token in tokens],
        "token_logprobs": [
            v if isinstance(v, int | float) and math.isfinite(v) else _MIN_LOGPROB for v in values
        ],
        "top_logprobs": [{} for _ in tokens],
        "text_offset": [x if type(x) is int else 0 for x in offsets] if isinstance(offsets, list) else [],
    }


@dataclass(frozen=True, slots=True)
class ResponseShape:
    """What all events of one response have in common."""

    identity: str
    created: int
    model: str
    chat: bool
    include_usage: bool = False

    def document(self, choices: Sequence[ChoiceState], usage: dict[str, int]) -> dict[str, Any]:
        """The response as one document."""
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._frame(kind), "choices": [self._finished(c) for c in choices], "usage": usage}

    def role_event(self, index: int) -> dict[str, Any]:
        """The first event of a chat's choice."""
        return self._event(index, {"delta": {"role": "assistant", "content": ""}}, None)

    def events(self, index: int, delta: ChoiceDelta) -> list[dict[str, Any]]:
        """The events that add ``delta`` to the choice ``index``."""
        events = []
        if delta.text:
            content = {"delta": {"content": delta.text}} if self.chat else {"text": delta.text}
            events.append(self._event(index, content, None, delta.logprobs))
        if delta.finish:
            events.append(self._event(index, {"delta": {}} if self.chat else {"text": ""}, delta.finish))
        return events

    def usage_event(self, usage: dict[str, int]) -> dict[str, Any]:
        """The event with the usage, for clients that asked for it."""
        return {**self._frame(self._kind), "choices": [], "usage": usage}

    @property
    def _kind(self) -> str:
        return "chat.completion.chunk" if self.chat else "text_completion"

    def _frame(self, kind: str) -> dict[str, Any]:
        return {"id": self.identity, "object": kind, "created": self.created, "model": self.model}

    def _event(
        self, index: int, content: dict[str, Any], finish: str | None, logprobs: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        choice = {"index": index, **content, "logprobs": logprobs, "finish_reason": finish}
        frame = self._frame(self._kind)
        return {**frame, "choices": [choice], **({"usage": None} if self.include_usage else {})}

    def _finished(self, choice: ChoiceState) -> dict[str, Any]:
        message = {"role": "assistant", "content": choice.text, "refusal": None}
        content = {"message": message} if self.chat else {"text": choice.text}
        logprobs = None if self.chat else choice.logprobs
        return {"index": choice.index, **content, "logprobs": logprobs, "finish_reason": choice.finish}


def usage(choices: Sequence[ChoiceState], counted: Sequence[int], texts: Sequence[int]) -> dict[str, int]:
    """OpenAI's ``usage``: each prompt counts once, however many choices it has.

    ``counted`` are the tokens of each prompt and ``texts`` those of each choice, for workers that do not report them.
    """
    prompts = dict(enumerate(counted))
    prompts |= {c.prompt: c.prompt_tokens for c in choices if c.prompt_tokens is not None}
    completion_tokens = sum(
        text if c.completion_tokens is None else c.completion_tokens
        for c, text in zip(choices, texts, strict=True)
    )
    prompt_tokens = sum(prompts.values())
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def vectors(answer: dict[str, Any]) -> tuple[list[list[float]], int]:
    """The vectors and the number of tokens in a response of /worker_get_embeddings. Raises WorkerError."""
    rows, tokens = answer.get("embedding"), answer.get("token_num")
    if (
        not isinstance(rows, list)
        or not isinstance(tokens, int)
        or not all(isinstance(row, list) and all(map(_is_float32, row)) for row in rows)
    ):
        raise WorkerError(502, "FastChat's worker sent invalid embeddings", "bad_answer")
    return rows, tokens


def _is_float32(x: object) -> bool:
    """Whether ``x`` is a finite float32. JSON has no NaN, although Python's json module reads and writes it."""
    return isinstance(x, int | float) and abs(x) <= _FLOAT32_MOST


def embeddings(
    model: str, rows: Sequence[Sequence[float]], tokens: int, *, in_base64: bool
) -> dict[str, Any]:
    """The response of /v1/embeddings. base64 encodes 32-bit little-endian floats, as OpenAI's clients expect."""
    data = [
        {"object": "embedding", "index": i, "embedding": _base64(row) if in_base64 else row}
        for i, row in enumerate(rows)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def _base64(row: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode()
