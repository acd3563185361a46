"""The worker's HTTP endpoints: which path is answered by what."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llmlaunch.worker.api import embeddings, rerank, tokenize
from llmlaunch.worker.api.bodies import LONG, RequestBodies
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
    MethodDispatch,
    error_response,
    while_connected,
)
from llmlaunch.worker.api.messages.routes import MessageRoutes
from llmlaunch.worker.api.protocol import RequestBody
from llmlaunch.worker.api.rerank import RerankBody, ScoreBody
from llmlaunch.worker.api.responses.routes import ResponseRoutes
from llmlaunch.worker.api.service import Service
from llmlaunch.worker.api.tokenize import CountBody, DetokenizeBody, TokenCheckBody, TokenizeBody
from llmlaunch.worker.errors import NotFound
from llmlaunch.worker.loading.types import Loaded, LoadedEmbedder, LoadedGenerator, LoadedReranker

CHAT: ResponseWriter[PreparedChat] = ResponseWriter(
    chat_response.full_response, chat_response.stream_response
)
COMPLETIONS: ResponseWriter[PreparedCompletion] = ResponseWriter(
    completion_response.full_response, completion_response.stream_response
)


def application(service: Service) -> Starlette:
    """Return the ASGI application of one worker."""
    by_path: dict[str, dict[str, Handler]] = {}
    for method, path, handler, _ in WorkerRoutes(service).table():
        by_path.setdefault(path, {})[method] = handler
    return Starlette(
        routes=[Route(path, MethodDispatch(handlers)) for path, handlers in by_path.items()],
        exception_handlers={HTTPException: _unknown_path},
    )


async def _unknown_path(request: Request, _: Exception) -> Response:
    path = request.url.path
    return error_response(NotFound(f"{request.method} {path} does not exist"), path)


class WorkerRoutes:
    """The handlers of all endpoints. Their docstrings are the descriptions in /openapi.json."""

    def __init__(self, service: Service) -> None:
        self.service = service
        bodies = RequestBodies(service)
        self._read, self._prepare, self._count = bodies.read, bodies.prepare, bodies.count
        self._responses = ResponseRoutes(service, bodies)
        self._messages = MessageRoutes(service, bodies)
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
            *self._responses.table(),
            *self._messages.table(),
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
