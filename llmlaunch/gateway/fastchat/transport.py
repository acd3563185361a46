"""A connection to a FastChat worker that looks to the gateway like one to a worker with OpenAI's API.

::

    Exchange ── UpstreamConnection ── TranslatingTransport ── FastChatWorker ── HTTP ── FastChat's worker
                   (as always)        (this module)

A :class:`TranslatingTransport` takes the place of the socket's transport. It parses the request that is written to it, calls the
worker, and hands back the bytes of an HTTP response. So admission, retries, cancelling, draining, metrics and limits work
as for other workers, and requests to those cost nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from llmlaunch.gateway import errors
from llmlaunch.gateway.failures import InvalidResponse
from llmlaunch.gateway.fastchat import request_translation, response_translation
from llmlaunch.gateway.fastchat.request_translation import (
    EmbeddingRequest,
    TextGenerationRequest,
    TokenCheckRequest,
    UnsupportedRequest,
)
from llmlaunch.gateway.fastchat.response_translation import (
    ChoiceDelta,
    ChoiceState,
    ResponseShape,
    WorkerError,
)
from llmlaunch.gateway.fastchat.worker import FastChatWorker
from llmlaunch.gateway.http1.upstream import EmptyResponse
from llmlaunch.gateway.payload import model_field as body
from llmlaunch.gateway.payload.model_field import InvalidBody, dump

if TYPE_CHECKING:
    from llmlaunch.gateway.http1.upstream import UpstreamConnection

log = logging.getLogger(__name__)

_EVENTS = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
)
_READERS: dict[
    bytes, Callable[[dict[str, Any]], TextGenerationRequest | EmbeddingRequest | TokenCheckRequest]
] = {
    b"/v1/chat/completions": request_translation.chat,
    b"/v1/completions": request_translation.completion,
    b"/v1/embeddings": request_translation.embedding,
    b"/api/v1/token_check": request_translation.check,
}


class TranslatingTransport(asyncio.Transport):
    """The transport of one request and its response."""

    def __init__(self, connection: UpstreamConnection, worker: FastChatWorker) -> None:
        super().__init__()
        self._connection = connection
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._began = False
        """Bytes of a response were handed over."""
        self._closing = False
        self._wanted = asyncio.Event()
        """Reading is not paused."""
        self._wanted.set()

    # -- the methods of asyncio.Transport that UpstreamConnection uses

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Begin to answer ``data``, a complete request with head and body."""
        self._task = self._loop.create_task(self._serve(bytes(data)))

    def pause_reading(self) -> None:
        """Hold back further events."""
        self._wanted.clear()

    def resume_reading(self) -> None:
        """Hand over events again."""
        self._wanted.set()

    def is_closing(self) -> bool:
        """Whether the connection is closed or closing."""
        return self._closing

    def close(self) -> None:
        """Close the connection without an error."""
        self._lose(None)

    def abort(self) -> None:
        """Cancel the calls to the worker, and close."""
        if self._task is not None:
            self._task.cancel()
        self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._connection.connection_lost, error)

    # -- the request

    async def _serve(self, request: bytes) -> None:
        head, _, content = request.partition(b"\r\n\r\n")
        path = head.split(b" ", 2)[1].partition(b"?")[0]
        try:
            await self._answer(path, content)
        except (UnsupportedRequest, InvalidBody) as error:
            status = error.status if isinstance(error, UnsupportedRequest) else 400
            code = error.code if isinstance(error, UnsupportedRequest) else None
            self._refuse(status, error.message, error.param, code)
        except WorkerError as error:
            self._refuse(error.status, f"{error.message}.", None, error.code)
        except InvalidResponse as error:
            self._refuse(502, f"FastChat's worker sent an invalid response: {error}.", None, "bad_answer")
        except TimeoutError:
            self._lose(TimeoutError("it timed out"))
        except OSError as error:
            self._lose(error)
        except Exception:
            log.exception(
                "an answer of FastChat's worker at %s could not be translated", self._connection.key
            )
            self._refuse(500, "Internal error of the gateway; see its log.", None, None)

    async def _answer(self, path: bytes, content: bytes) -> None:
        reader = _READERS.get(path)
        if reader is None:
            raise UnsupportedRequest(
                f"This model's worker (FastChat's) does not serve {path.decode('latin-1')}.",
                code="unsupported",
                status=404,
            )
        request = reader(body.parse(content))
        if isinstance(request, EmbeddingRequest):
            await self._embed(request)
        elif isinstance(request, TokenCheckRequest):
            await self._check(request)
        else:
            await self._generate(request)

    async def _embed(self, request: EmbeddingRequest) -> None:
        """Embed one text per call: in a batch, the worker's padding would change the vectors of shorter texts."""
        rows: list[list[float]] = []
        tokens = 0
        for text in request.inputs:
            found, took = response_translation.vectors(await self._worker.embed(request.model, text))
            rows += found
            tokens += took
        if len(rows) != len(request.inputs):
            raise InvalidResponse("it does not have one vector for each input")
        self.reply(response_translation.embeddings(request.model, rows, tokens, in_base64=request.base64))

    async def _check(self, request: TokenCheckRequest) -> None:
        context = (await self._worker.details(request.model)).context
        rows = []
        for text, answer in request.prompts:
            count = await self._worker.count(request.model, text)
            rows.append({"fits": count + answer <= context, "tokenCount": count, "contextLength": context})
        self.reply({"prompts": rows})

    async def _generate(self, request: TextGenerationRequest) -> None:
        worker = self._worker
        details = await worker.details(request.model)
        texts = request.texts(details.template)
        counts = await asyncio.gather(*(worker.count(request.model, text) for text in texts))
        param = "messages" if request.chat else "prompt"
        budgets = [
            request_translation.answer_budget(details.context, count, request.max_tokens, param)
            for count in counts
        ]
        choices = [
            ChoiceState(i * request.n + k, i, budgets[i], from_zero=worker.counts_from_zero)
            for i in range(len(texts))
            for k in range(request.n)
        ]
        name = ("chatcmpl-" if request.chat else "cmpl-") + os.urandom(12).hex()
        shape = ResponseShape(name, int(time.time()), request.model, request.chat, request.include_usage)
        answer = _ResponseWriter(self, shape, request.stream)
        bodies = [request.parameters(details.template, texts[c.prompt], c.max_tokens) for c in choices]
        await _all(answer.follow(worker, c, body) for c, body in zip(choices, bodies, strict=True))
        worker.counts_from_zero = worker.counts_from_zero or any(c.from_zero for c in choices)
        uncounted = [
            await worker.count(request.model, c.text) if c.completion_tokens is None and c.text else 0
            for c in choices
        ]
        answer.end(choices, response_translation.usage(choices, counts, uncounted))

    # -- the answer

    async def event(self, *values: object) -> None:
        """Hand over server-sent events, as soon as reading is not paused."""
        await self._wanted.wait()
        self.events(*values)

    def events(self, *values: object, end: bool = False) -> None:
        """Hand over server-sent events as one chunk, even while reading is paused. ``end``: they are the last."""
        data = b"".join(b"data: %b\n\n" % (v if isinstance(v, bytes) else dump(v)) for v in values)
        chunk = b"%x\r\n%b\r\n" % (len(data), data) + (b"0\r\n\r\n" if end else b"")
        if not self._began:
            self._began = True
            chunk = _EVENTS + chunk
        self._give(chunk)

    def reply(self, value: object) -> None:
        """Answer 200 with ``value`` as JSON."""
        self._reply(200, dump(value))

    def _refuse(self, status: int, message: str, param: str | None, code: str | None) -> None:
        if self._began:
            self._lose(ConnectionResetError(message.rstrip(".")))
            return
        kind = "rate_limit_error" if status == 429 else errors.SERVER if status >= 500 else errors.INVALID
        self._reply(status, errors.envelope(message, kind, param, code))

    def _reply(self, status: int, content: bytes) -> None:
        again = b"retry-after: 1\r\n" if status in (429, 503) else b""
        self._began = True
        self._give(
            b"HTTP/1.1 %d \r\ncontent-type: application/json\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b"
            % (status, len(content), again, content)
        )

    def _give(self, data: bytes) -> None:
        if not self._closing:
            self._connection.data_received(data)


class _ResponseWriter:
    """Writes one response: events as they come, or one document at the end."""

    def __init__(self, out: TranslatingTransport, shape: ResponseShape, streams: bool) -> None:
        self._out, self._shape, self._streams = out, shape, streams

    async def follow(self, worker: FastChatWorker, choice: ChoiceState, body: dict[str, Any]) -> None:
        """Follow one choice to its end. Nothing is sent to the client before the worker's first piece without an error."""
        begun = False
        async with contextlib.aclosing(worker.generate(body)) as pieces:
            async for piece in pieces:
                delta = choice.take(piece)
                if self._streams and self._shape.chat and not begun:
                    await self._out.event(self._shape.role_event(choice.index))
                begun = True
                await self._send(choice, delta)
        if not begun:
            raise EmptyResponse("FastChat's worker sent an empty response")
        await self._send(choice, choice.end())

    async def _send(self, choice: ChoiceState, delta: ChoiceDelta) -> None:
        if self._streams and delta:
            await self._out.event(*self._shape.events(choice.index, delta))

    def end(self, choices: Sequence[ChoiceState], usage: dict[str, int]) -> None:
        if not self._streams:
            self._out.reply(self._shape.document(choices, usage))
            return
        last: list[object] = [self._shape.usage_event(usage)] if self._shape.include_usage else []
        self._out.events(*last, b"[DONE]", end=True)


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all of ``work`` at the same time. The first failure cancels the rest and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(one)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
