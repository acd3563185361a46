"""The worker's HTTP endpoints."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llmlaunch.worker.api import chat, completions, embeddings, json_shape, rerank, responses
from llmlaunch.worker.api.http import (
    CompactJsonResponse,
    EventStream,
    Handler,
    body_of,
    guarded,
    refusal,
    while_connected,
)
from llmlaunch.worker.api.inflight import InflightRequests
from llmlaunch.worker.api.prompts import known_tokens, plain_messages
from llmlaunch.worker.api.protocol import (
    ChatBody,
    CompletionBody,
    CountBody,
    DetokenizeBody,
    EmbeddingBody,
    NamedEmbeddingBody,
    RequestBody,
    RerankBody,
    ResponsesBody,
    ScoreBody,
    TokenCheckBody,
    TokenizeBody,
    parse,
)
from llmlaunch.worker.api.response_format import asked
from llmlaunch.worker.api.service import Service
from llmlaunch.worker.errors import ApiError, BadRequest, MethodNotAllowed, NotFound
from llmlaunch.worker.loading.types import Loaded, LoadedEmbedder, LoadedGenerator, LoadedReranker
from llmlaunch.worker.tokenization.tokenizer import SHORT

Body = TypeVar("Body", bound=RequestBody)
Value = TypeVar("Value")
LONG = SHORT + 1
"""Size in bytes given to requests whose preparation is slow at any length: grammars to compile, conversations to continue."""


def application(service: Service) -> Starlette:
    """The ASGI application of one worker."""
    routes = WorkerRoutes(service)
    return Starlette(
        routes=[
            Route(path, guarded(handler), methods=[method]) for method, path, handler, _ in routes.table()
        ],
        exception_handlers={HTTPException: _http_error},
    )


async def _http_error(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    where = f"{request.method} {request.url.path}"
    known: ApiError = NotFound(f"{where} does not exist")
    if status == 405:
        known = MethodNotAllowed(f"{where}: this method is not allowed here")
    return refusal(known)


def token_report(pieces: Iterable[list[int]], context: int) -> bytes:
    """The response to /tokenize as JSON, written piece by piece: there may be millions of tokens."""
    count, written = 0, []
    for piece in pieces:
        count += len(piece)
        written.append(",".join(map(str, piece)))
    tokens = ",".join(filter(None, written))
    return f'{{"count":{count},"max_model_len":{context},"tokens":[{tokens}]}}'.encode()


class WorkerRoutes:
    def __init__(self, service: Service) -> None:
        self.service = service
        self.turns = responses.ResponseStore(service.config.address)
        self._described: dict[str, Any] | None = None

    def table(self) -> list[tuple[str, str, Handler, type[RequestBody] | None]]:
        """Method, path, handler, and the body it takes."""
        return [
            ("GET", "/health", self.health, None),
            ("GET", "/ready", self.ready, None),
            ("GET", "/metrics", self.metrics, None),
            ("GET", "/openapi.json", self.openapi, None),
            ("GET", "/v1/models", self.models, None),
            ("GET", "/v1/models/{name:path}", self.model, None),
            ("POST", "/v1/chat/completions", self.chat, ChatBody),
            ("POST", "/v1/completions", self.completions, CompletionBody),
            ("POST", "/v1/responses", self.respond, ResponsesBody),
            ("GET", "/v1/responses/{id}", self.response, None),
            ("DELETE", "/v1/responses/{id}", self.forget_response, None),
            ("POST", "/v1/embeddings", self.embeddings, EmbeddingBody),
            ("POST", "/v1/engines/{name:path}/embeddings", self.embeddings, NamedEmbeddingBody),
            *(("POST", path, self.rerank, RerankBody) for path in ("/v1/rerank", "/v2/rerank", "/rerank")),
            *(("POST", path, self.score, ScoreBody) for path in ("/v1/score", "/score")),
            ("POST", "/tokenize", self.tokenize, TokenizeBody),
            ("POST", "/detokenize", self.detokenize, DetokenizeBody),
            ("POST", "/count_token", self.count_token, CountBody),
            ("POST", "/api/v1/token_check", self.token_check, TokenCheckBody),
            ("POST", "/worker_get_status", self.worker_get_status, None),
            ("POST", "/model_details", self.model_details, None),
        ]

    # -- status --------------------------------------------------------------------------------------------------

    async def health(self, _: Request) -> Response:
        """200 as long as the process serves HTTP, even while the model is loading."""
        return CompactJsonResponse(self.service.report())

    async def ready(self, _: Request) -> Response:
        """200 if requests are served, 503 otherwise."""
        return CompactJsonResponse(self.service.report(), 200 if self.service.state.ready else 503)

    async def metrics(self, _: Request) -> Response:
        # The first import takes a tenth of a second; streams go on meanwhile.
        await asyncio.to_thread(import_module, "prometheus_client")
        return Response(
            self.service.metrics.text(self.service.config.names[0], self.service.load()),
            media_type="text/plain; version=0.0.4",
        )

    async def openapi(self, _: Request) -> Response:
        """This description of all endpoints."""
        if self._described is None:
            self._described = await asyncio.to_thread(self._describe)
        return CompactJsonResponse(self._described)

    def _describe(self) -> dict[str, Any]:
        from llmlaunch import __version__
        from llmlaunch.worker.api.openapi import RouteDescription, describe

        return describe([RouteDescription(*row) for row in self.table()], __version__)

    async def worker_get_status(self, _: Request) -> Response:
        return CompactJsonResponse(self.service.worker_status())

    async def models(self, _: Request) -> Response:
        cards = [self.service.card(name) for name in self.service.config.names]
        return CompactJsonResponse({"object": "list", "data": cards})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        self.service.check_name(name)
        return CompactJsonResponse(self.service.card(name))

    async def model_details(self, _: Request) -> Response:
        return CompactJsonResponse({"context_length": self.service.loaded().context})

    # -- generation, embeddings, reranking -----------------------------------------------------------------------

    async def _read(self, request: Request, kind: type[Body]) -> tuple[Body, int]:
        """The body of a request, and its size in bytes. Raises BadRequest, TooLarge, ClientDisconnect."""
        given = await body_of(request)
        if json_shape.suspect(given) and await self._apart(request, len(given), json_shape.too_many, given):
            raise BadRequest(f"the body has more than {json_shape.MOST:,} objects and arrays")
        return parse(kind, given), len(given)

    async def _apart(
        self,
        request: Request,
        size: int,
        work: Callable[..., Value],
        *arguments: Any,
        at_any_length: bool = False,
    ) -> Value:
        """``work(*arguments)``; if ``size`` bytes make it slow, in a thread, for as long as the client waits."""
        if size <= SHORT:
            return work(*arguments)
        where = self.service.counting if at_any_length else self.service.preparing
        return await while_connected(request, where.run(size, work, *arguments))

    async def chat(self, request: Request) -> Response:
        body, size = await self._read(request, ChatBody)
        loaded = self.service.serving(LoadedGenerator, body.model)
        work = LONG if asked(body) else size
        call = await self._apart(request, work, chat.prepare, body, loaded)
        return await self._answer(request, call, chat, bool(body.stream))

    async def completions(self, request: Request) -> Response:
        body, size = await self._read(request, CompletionBody)
        loaded = self.service.serving(LoadedGenerator, body.model)
        work = LONG if asked(body) else size
        call = await self._apart(request, work, completions.prepare, body, loaded)
        return await self._answer(request, call, completions, bool(body.stream))

    async def _answer(self, request: Request, call: Any, kind: Any, stream: bool) -> Response:
        ending = contextlib.ExitStack()
        try:
            ending.enter_context(self.service.call())
            inflight = InflightRequests(self.service.engine, call.requests, self.service.metrics)
            ending.callback(inflight.close)
            if not stream:
                return CompactJsonResponse(await while_connected(request, kind.whole(call, inflight)))
            # As long as nothing has been sent, an error can still have its own status code.
            first = await while_connected(request, inflight.next())
            return EventStream(kind.events(call, inflight, first), on_end=ending.pop_all().close)
        finally:
            ending.close()

    async def respond(self, request: Request) -> Response:
        body, size = await self._read(request, ResponsesBody)
        loaded = self.service.serving(LoadedGenerator, body.model)
        before = None
        if body.previous_response_id is not None:
            before = self.turns.get(body.previous_response_id)
            if before is None:
                raise BadRequest(
                    f"previous_response_id: {body.previous_response_id!r} was not found (it may have expired)",
                    param="previous_response_id",
                    code="previous_response_not_found",
                )
        work = LONG if before or body.text or asked(body) else size
        call = await self._apart(request, work, responses.prepare, body, loaded, before, self.turns)
        return await self._answer(request, call, responses, bool(body.stream))

    async def response(self, request: Request) -> Response:
        name = request.path_params["id"]
        turn = self.turns.get(name)
        if turn is None:
            raise NotFound(f"response {name!r} was not found (it may have expired)")
        return CompactJsonResponse(turn.response)

    async def forget_response(self, request: Request) -> Response:
        name = request.path_params["id"]
        if not self.turns.remove(name):
            raise NotFound(f"response {name!r} was not found (it may have expired)")
        return CompactJsonResponse({"id": name, "object": "response", "deleted": True})

    async def embeddings(self, request: Request) -> Response:
        """Also at OpenAI's old path, which names the model and overrides the body, as in FastChat."""
        body: EmbeddingBody
        name = request.path_params.get("name")
        body, size = await self._read(request, EmbeddingBody if name is None else NamedEmbeddingBody)
        body.model = body.model if name is None else name
        loaded = self.service.serving(LoadedEmbedder, body.model)
        return CompactJsonResponse(
            await while_connected(request, embeddings.answer(body, loaded, self.service, size))
        )

    async def rerank(self, request: Request) -> Response:
        body, size = await self._read(request, RerankBody)
        loaded = self.service.serving(LoadedReranker, body.model)
        return CompactJsonResponse(
            await while_connected(request, rerank.rerank(body, loaded, self.service, size))
        )

    async def score(self, request: Request) -> Response:
        body, size = await self._read(request, ScoreBody)
        loaded = self.service.serving(LoadedReranker, body.model)
        return CompactJsonResponse(
            await while_connected(request, rerank.score(body, loaded, self.service, size))
        )

    # -- tokens --------------------------------------------------------------------------------------------------

    async def tokenize(self, request: Request) -> Response:
        body, size = await self._read(request, TokenizeBody)
        loaded = self._named(body.model)
        if (body.prompt is None) == (body.messages is None):
            raise BadRequest("exactly one of prompt and messages is required", param="prompt")

        def work() -> bytes:
            if body.prompt is not None:
                tokens = loaded.tokenizer.pieces(body.prompt, special=body.add_special_tokens is not False)
            else:
                text = loaded.tokenizer.render(
                    plain_messages(body.messages or []),
                    add_generation_prompt=body.add_generation_prompt is not False,
                )
                tokens = loaded.tokenizer.pieces(text, special=False)
            return token_report(tokens, loaded.context)

        report = await self._apart(request, size, work, at_any_length=True)
        return Response(report, media_type="application/json")

    async def detokenize(self, request: Request) -> Response:
        body, size = await self._read(request, DetokenizeBody)
        loaded = self._named(body.model)

        def work() -> str:
            tokens = known_tokens(body.tokens, loaded.tokenizer, "tokens")
            return loaded.tokenizer.decode(tokens, skip_special=False)

        return CompactJsonResponse({"prompt": await self._apart(request, size, work, at_any_length=True)})

    async def count_token(self, request: Request) -> Response:
        body, size = await self._read(request, CountBody)
        loaded = self._named(body.model)
        count = await self._apart(request, size, loaded.tokenizer.count, body.prompt, at_any_length=True)
        return CompactJsonResponse({"count": count, "error_code": 0})

    async def token_check(self, request: Request) -> Response:
        """FastChat's check whether prompts and their answers fit the context."""
        body, size = await self._read(request, TokenCheckBody)
        for item in body.prompts:
            self.service.check_name(item.model)
        loaded = self.service.loaded()

        def work() -> list[int]:
            return [loaded.tokenizer.count(item.prompt) for item in body.prompts]

        counts = await self._apart(request, size, work, at_any_length=True)
        checked = [
            {
                "fits": count + item.max_tokens <= loaded.context,
                "tokenCount": count,
                "contextLength": loaded.context,
            }
            for item, count in zip(body.prompts, counts, strict=True)
        ]
        return CompactJsonResponse({"prompts": checked})

    def _named(self, name: str | None) -> Loaded:
        if name is not None:
            self.service.check_name(name)
        return self.service.loaded()
