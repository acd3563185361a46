"""Calls to one FastChat worker. Its endpoints are those of ``fastchat/serve/base_model_worker.py`` (fschat 0.2.36).

Text is always requested as a stream, even if the client wants one document: only for a stream does the worker notice that
its client has left.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llmlaunch.common import http_client
from llmlaunch.gateway.failures import InvalidResponse
from llmlaunch.gateway.fastchat import conversation
from llmlaunch.gateway.fastchat.conversation import ConversationTemplate
from llmlaunch.gateway.fastchat.response_translation import WorkerError, check
from llmlaunch.gateway.payload.model_field import dump

CONNECT_S = 3.0
CALL_S = 60.0
"""Timeout of a small call in seconds: a worker answers nothing while it computes embeddings."""
SILENCE_S = 600.0
"""Seconds without a byte of a response. Requests wait inside the worker for one of its slots."""
DETAILS_CACHE_S = 30.0
"""Seconds for which the details of a model are cached."""
PIECE_LIMIT = 64 << 20
"""Bytes of one part of a stream, and of a small question's answer."""


@dataclass(frozen=True, slots=True)
class ModelDetails:
    """What a worker reports of one of its models."""

    template: ConversationTemplate
    context: int
    """The context length: tokens of prompt and answer together."""


class FastChatWorker:
    """A client of one worker. All methods raise OSError when it cannot be reached, InvalidResponse when it breaks the
    protocol, WorkerError when it refuses."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.counts_from_zero = False
        """The worker reports the number of the last token, counted from 0; known once one of its responses shows it."""
        self._details: dict[str, tuple[float, ModelDetails]] = {}
        """When the details of a model were fetched, and the details. A worker may have several models."""

    async def details(self, model: str) -> ModelDetails:
        """Template and context length of ``model``; cached for :data:`DETAILS_CACHE_S`."""
        found = self._details.get(model)
        if found is not None and time.monotonic() - found[0] < DETAILS_CACHE_S:
            return found[1]
        conv, size = await asyncio.gather(
            self._call("/worker_get_conv_template", {"model": model}),
            self._call("/model_details", {"model": model}),
        )
        context = size.get("context_length")
        if not isinstance(context, int):
            raise InvalidResponse("FastChat's worker does not report its context length")
        try:
            details = ModelDetails(conversation.parse(conv.get("conv")), context)
        except ValueError as error:
            raise WorkerError(501, f"FastChat's worker cannot be used: {error}", "template") from None
        self._details[model] = (time.monotonic(), details)
        return details

    async def count(self, model: str, text: str) -> int:
        """The number of tokens of ``text``, with those that the tokenizer adds."""
        count = (await self._call("/count_token", {"model": model, "prompt": text})).get("count")
        if not isinstance(count, int):
            raise InvalidResponse("FastChat's worker does not count tokens")
        return count

    async def embed(self, model: str, text: str) -> dict[str, Any]:
        """The worker's response for one text: ``embedding``, a list of vectors, and ``token_num``."""
        return await self._call("/worker_get_embeddings", {"model": model, "input": [text]}, SILENCE_S)

    async def _call(self, path: str, body: dict[str, Any], timeout_s: float = CALL_S) -> dict[str, Any]:
        with _as_upstream_errors():
            answer = await http_client.ask(
                self.host,
                self.port,
                "POST",
                path,
                timeout_s=timeout_s,
                body_limit=PIECE_LIMIT,
                content=dump(body),
            )
        _check_status(answer.status, path)
        return check(answer.json())

    async def generate(self, parameters: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the pieces of one response as they come. Raises ConnectionResetError if the response breaks off.

        Closing the iterator closes the connection, and then the worker stops generating.
        """
        path, rest = "/worker_generate_stream", b""
        try:
            with _as_upstream_errors():
                async with http_client.exchange(
                    self.host,
                    self.port,
                    "POST",
                    path,
                    connect_s=CONNECT_S,
                    read_s=SILENCE_S,
                    content=dump(parameters),
                ) as answer:
                    _check_status(answer.status, path)
                    while data := await answer.piece():
                        *pieces, rest = (rest + data).split(b"\0")
                        if len(rest) > PIECE_LIMIT:
                            raise InvalidResponse("a part of its response is too large")
                        for piece in filter(None, pieces):
                            yield check(_json(piece))
                    if answer.until_close:
                        raise ConnectionResetError("FastChat's worker broke off its response")
        except http_client.ConnectionBroke:
            raise ConnectionResetError("FastChat's worker broke off its response") from None


@contextmanager
def _as_upstream_errors() -> Iterator[None]:
    """Raise what the client raises as the gateway's connections to replicas would."""
    try:
        yield
    except http_client.CannotConnect as error:
        raise error.cause from None  # where nobody listens, no replica died of a request
    except http_client.InvalidAnswer as error:
        raise InvalidResponse(str(error)) from None


def _check_status(status: int, path: str) -> None:
    if status == 404:
        raise WorkerError(400, f"this kind of FastChat worker has no {path}", "unsupported")
    if status != 200:
        raise WorkerError(
            502, f"FastChat's worker answered {status} to {path}; its log says why", "bad_answer"
        )


def _json(piece: bytes) -> object:
    try:
        return json.loads(piece)
    except ValueError:
        raise InvalidResponse("a part of its response is not JSON") from None
