"""The worker's HTTP endpoints: which path is answered by what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llmlaunch.worker.api import embeddings, json_shape, rerank, tokenize
from llmlaunch.worker.api.chat import prepare as chat
from llmlaunch.worker.api.chat import response as chat_response
from llmlaunch.worker.api.chat.prepare import PreparedChat
from llmlaunch.worker.api.chat.protocol import ChatBody
from llmlaunch.worker.api.completions import prepare as completions
from llmlaunch.worker.api.completions import response as completion_response
from llmlaunch.worker.api.completions.prepare import PreparedCompletion
from llmlaunch.worker.api.completions.protocol import CompletionBody
from llmlaunch.worker.api.embeddings import EmbeddingBody, NamedEmbeddingBody
from llmlaunch.worker.api.generation.respond import ResponseWriter, respond
from llmlaunch.worker.api.generation.response_format import is_requested
from llmlaunch.worker.api.http import (
    CompactJsonResponse,
    Handler,
    error_response,
    read_body,
    while_connected,
    with_error_responses,
)
from llmlaunch.worker.api.protocol import RequestBody, parse
from llmlaunch.worker.api.rerank import RerankBody, ScoreBody
from llmlaunch.worker.api.responses import prepare as responses
from llmlaunch.worker.api.responses import response as responses_response
from llmlaunch.worker.api.responses.prepare import PreparedResponse
from llmlaunch.worker.api.responses.protocol import ResponsesBody
from llmlaunch.worker.api.responses.store import ResponseStore, StoredTurn
from llmlaunch.worker.api.service import Service
from llmlaunch.worker.api.tokenize import CountBody, DetokenizeBody, TokenCheckBody, TokenizeBody
from llmlaunch.worker.background import BackgroundThreads
from llmlaunch.worker.errors import ApiError, BadRequest, MethodNotAllowed, NotFound
from llmlaunch.worker.loading.types import Loaded, LoadedEmbedder, LoadedGenerator, LoadedReranker
from llmlaunch.worker.tokenization.tokenizer import SHORT_CHARS

Body = TypeVar("Body", bound=RequestBody)
Value = TypeVar("Value")
LONG = SHORT_CHARS + 1
"""Size in bytes given to requests whose preparation is slow at any length: grammars to compile, conversations to continue."""


CHAT: ResponseWriter[PreparedChat] = ResponseWriter(
    chat_response.full_response, chat_response.stream_response
)
COMPLETIONS: ResponseWriter[PreparedCompletion] = ResponseWriter(
    completion_response.full_response, completion_response.stream_response
)
RESPONSES: ResponseWriter[PreparedResponse] = ResponseWriter(
    responses_response.full_response, responses_response.stream_response
)


def application(service: Service) -> Starlette:
    """Return the ASGI application of one worker."""
    routes = WorkerRoutes(service)
    return Starlette(
        routes=[
            Route(path, with_error_responses(handler), methods=[method])
            for method, path, handler, _ in routes.table()
        ],
        exception_handlers={HTTPException: _http_error},
    )


async def _http_error(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    where = f"{request.method} {request.url.path}"
    known: ApiError = NotFound(f"{where} does not exist")
    if status == 405:
        known = MethodNotAllowed(f"{where}: this method is not allowed here")
    return error_response(known)


class WorkerRoutes:
    """The handlers of all endpoints. Their docstrings are the descriptions in /openapi.json."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.stored_responses = ResponseStore(service.config.address)
        self._openapi: dict[str, Any] | None = None

    def table(self) -> list[tuple[str, str, Handler, type[RequestBody] | None]]:
        """Return the method, path and handler of every endpoint, and the body it takes."""
        return [
            ("GET", "/health", self.health, None),
            ("GET", "/ready", self.ready, None),
            ("GET", "/metrics", self.metrics, None),
            ("GET", "/openapi.json", self.openapi, None),
            ("GET", "/v1/models", self.models, None),
            ("GET", "/v1/models/{name:path}", self.model, None),
            ("POST", "/v1/chat/completions", self.chat, ChatBody),
            ("POST", "/v1/completions", self.completions, CompletionBody),
            ("POST", "/v1/responses", self.create_response, ResponsesBody),
            ("GET", "/v1/responses/{id}", self.get_response, None),
            ("DELETE", "/v1/responses/{id}", self.delete_response, None),
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
        """The metrics in Prometheus' text format."""
        # The first import takes a tenth of a second; streams go on meanwhile.
        await asyncio.to_thread(import_module, "prometheus_client")
        return Response(
            self.service.metrics.text(self.service.config.names[0], self.service.load()),
            media_type="text/plain; version=0.0.4",
        )

    async def openapi(self, _: Request) -> Response:
        """This description of all endpoints."""
        if self._openapi is None:
            self._openapi = await asyncio.to_thread(self._describe)
        return CompactJsonResponse(self._openapi)

    def _describe(self) -> dict[str, Any]:
        from llmlaunch import __version__
        from llmlaunch.worker.api.openapi import RouteDescription, describe

        return describe([RouteDescription(*row) for row in self.table()], __version__)

    async def worker_get_status(self, _: Request) -> Response:
        """The served names and the number of requests in progress, as in FastChat."""
        return CompactJsonResponse(self.service.worker_status())

    async def models(self, _: Request) -> Response:
        """The served names, as in OpenAI's API."""
        cards = [self.service.model_card(name) for name in self.service.config.names]
        return CompactJsonResponse({"object": "list", "data": cards})

    async def model(self, request: Request) -> Response:
        """One served name, as in OpenAI's API."""
        name = request.path_params["name"]
        self.service.check_name(name)
        return CompactJsonResponse(self.service.model_card(name))

    async def model_details(self, _: Request) -> Response:
        """The length of the context in tokens, as in FastChat."""
        return CompactJsonResponse({"context_length": self.service.loaded().context})

    # -- bodies, and slow work -----------------------------------------------------------------------------------

    async def _read(self, request: Request, kind: type[Body]) -> tuple[Body, int]:
        """The body of a request, and its size in bytes. Raises BadRequest, RequestTooLarge, ClientDisconnect."""
        body = await read_body(request)
        if json_shape.may_have_too_many(body) and await self._prepare(
            request, len(body), json_shape.has_too_many, body
        ):
            raise BadRequest(f"the body has more than {json_shape.MAX_CONTAINERS:,} objects and arrays")
        return parse(kind, body), len(body)

    async def _prepare(
        self, request: Request, size: int, work: Callable[..., Value], *arguments: Any
    ) -> Value:
        """``work(*arguments)``; if ``size`` bytes make it slow, in a thread, for as long as the client waits."""
        return await self._run(self.service.preparing, request, size, work, *arguments)

    async def _count(self, request: Request, size: int, work: Callable[..., Value], *arguments: Any) -> Value:
        """The same for texts of any length, apart from requests that generate."""
        return await self._run(self.service.counting, request, size, work, *arguments)

    async def _run(
        self,
        threads: BackgroundThreads,
        request: Request,
        size: int,
        work: Callable[..., Value],
        *arguments: Any,
    ) -> Value:
        if size <= SHORT_CHARS:
            return work(*arguments)
        return await while_connected(request, threads.run(size, work, *arguments))

    # -- generation ----------------------------------------------------------------------------------------------

    async def chat(self, request: Request) -> Response:
        """An answer to a conversation, as in OpenAI's API."""
        body, size = await self._read(request, ChatBody)
        loaded = self.service.loaded_as(LoadedGenerator, body.model)
        size = LONG if is_requested(body) else size
        prepared = await self._prepare(request, size, chat.prepare, body, loaded)
        return await respond(request, self.service, prepared, CHAT, stream=bool(body.stream))

    async def completions(self, request: Request) -> Response:
        """Continuations of prompts, as in OpenAI's API."""
        body, size = await self._read(request, CompletionBody)
        loaded = self.service.loaded_as(LoadedGenerator, body.model)
        size = LONG if is_requested(body) else size
        prepared = await self._prepare(request, size, completions.prepare, body, loaded)
        return await respond(request, self.service, prepared, COMPLETIONS, stream=bool(body.stream))

    async def create_response(self, request: Request) -> Response:
        """A response, which may continue an earlier one, as in OpenAI's Responses API."""
        body, size = await self._read(request, ResponsesBody)
        loaded = self.service.loaded_as(LoadedGenerator, body.model)
        previous = self._previous_turn(body)
        size = LONG if previous or body.text or is_requested(body) else size
        prepared = await self._prepare(
            request, size, responses.prepare, body, loaded, previous, self.stored_responses
        )
        return await respond(request, self.service, prepared, RESPONSES, stream=bool(body.stream))

    def _previous_turn(self, body: ResponsesBody) -> StoredTurn | None:
        if body.previous_response_id is None:
            return None
        previous = self.stored_responses.get(body.previous_response_id)
        if previous is None:
            raise BadRequest(
                f"previous_response_id: {body.previous_response_id!r} was not found (it may have expired)",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        return previous

    async def get_response(self, request: Request) -> Response:
        """A stored response, as in OpenAI's Responses API."""
        name = request.path_params["id"]
        turn = self.stored_responses.get(name)
        if turn is None:
            raise NotFound(f"response {name!r} was not found (it may have expired)")
        return CompactJsonResponse(turn.response)

    async def delete_response(self, request: Request) -> Response:
        """Deletes a stored response, as in OpenAI's Responses API."""
        name = request.path_params["id"]
        if not self.stored_responses.remove(name):
            raise NotFound(f"response {name!r} was not found (it may have expired)")
        return CompactJsonResponse({"id": name, "object": "response", "deleted": True})

    # -- embeddings, reranking -----------------------------------------------------------------------------------

    async def embeddings(self, request: Request) -> Response:
        """Embeddings of texts, as in OpenAI's API. In its old path the name of the model overrides the body's, as in FastChat."""
        body: EmbeddingBody
        name = request.path_params.get("name")
        body, size = await self._read(request, EmbeddingBody if name is None else NamedEmbeddingBody)
        body.model = body.model if name is None else name
        loaded = self.service.loaded_as(LoadedEmbedder, body.model)
        return CompactJsonResponse(
            await while_connected(request, embeddings.answer(body, loaded, self.service, size))
        )

    async def rerank(self, request: Request) -> Response:
        """Documents ranked by their relevance to a query, as in Jina's and Cohere's APIs."""
        body, size = await self._read(request, RerankBody)
        loaded = self.service.loaded_as(LoadedReranker, body.model)
        return CompactJsonResponse(
            await while_connected(request, rerank.rerank(body, loaded, self.service, size))
        )

    async def score(self, request: Request) -> Response:
        """Scores of pairs of texts, as in vLLM."""
        body, size = await self._read(request, ScoreBody)
        loaded = self.service.loaded_as(LoadedReranker, body.model)
        return CompactJsonResponse(
            await while_connected(request, rerank.score(body, loaded, self.service, size))
        )

    # -- tokens --------------------------------------------------------------------------------------------------

    async def tokenize(self, request: Request) -> Response:
        """The token ids of a prompt or of messages, as in vLLM."""
        body, size = await self._read(request, TokenizeBody)
        loaded = self._loaded_for(body.model)
        tokenize.check_tokenize(body)
        report = await self._count(request, size, tokenize.tokenize, body, loaded)
        return Response(report, media_type="application/json")

    async def detokenize(self, request: Request) -> Response:
        """The text of token ids, as in vLLM."""
        body, size = await self._read(request, DetokenizeBody)
        loaded = self._loaded_for(body.model)
        return CompactJsonResponse(await self._count(request, size, tokenize.detokenize, body, loaded))

    async def count_token(self, request: Request) -> Response:
        """The number of tokens of a prompt, as in FastChat."""
        body, size = await self._read(request, CountBody)
        loaded = self._loaded_for(body.model)
        return CompactJsonResponse(await self._count(request, size, tokenize.count_tokens, body, loaded))

    async def token_check(self, request: Request) -> Response:
        """Whether prompts and their answers fit the context, as in FastChat."""
        body, size = await self._read(request, TokenCheckBody)
        for item in body.prompts:
            self.service.check_name(item.model)
        loaded = self.service.loaded()
        return CompactJsonResponse(await self._count(request, size, tokenize.check_lengths, body, loaded))

    def _loaded_for(self, name: str | None) -> Loaded:
        if name is not None:
            self.service.check_name(name)
        return self.service.loaded()
