"""The endpoints below /v1/messages."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llmlaunch.worker.api.bodies import LONG, RequestBodies
from llmlaunch.worker.api.generation.respond import ResponseWriter, respond
from llmlaunch.worker.api.http import CompactJsonResponse, Handler
from llmlaunch.worker.api.messages.prepare import PreparedMessage, count_tokens, prepare
from llmlaunch.worker.api.messages.protocol import MessagesBody
from llmlaunch.worker.api.messages.response import full_response, stream_error, stream_response
from llmlaunch.worker.api.protocol import RequestBody
from llmlaunch.worker.api.service import Service
from llmlaunch.worker.loading.types import LoadedGenerator

WRITER: ResponseWriter[PreparedMessage] = ResponseWriter(full_response, stream_response, stream_error)


class MessageRoutes:
    """The handlers. Their docstrings are the descriptions in /openapi.json."""

    def __init__(self, service: Service, bodies: RequestBodies) -> None:
        self._service = service
        self._bodies = bodies

    def table(self) -> list[tuple[str, str, Handler, type[RequestBody] | None]]:
        """Return the method, path and handler of every endpoint, and the body it takes."""
        return [
            ("POST", "/v1/messages", self.create_message, MessagesBody),
            ("POST", "/v1/messages/count_tokens", self.count_tokens, MessagesBody),
        ]

    async def create_message(self, request: Request) -> Response:
        """An answer to a conversation, as in Anthropic's API."""
        body, size = await self._bodies.read(request, MessagesBody)
        loaded = self._service.loaded_as(LoadedGenerator, body.model)
        size = LONG if body.output_config else size  # it may hold a schema
        prepared = await self._bodies.prepare(request, size, prepare, body, loaded)
        return await respond(request, self._service, prepared, WRITER, stream=bool(body.stream))

    async def count_tokens(self, request: Request) -> Response:
        """The number of tokens of a conversation, as in Anthropic's API."""
        body, size = await self._bodies.read(request, MessagesBody)
        loaded = self._service.loaded_as(LoadedGenerator, body.model)
        return CompactJsonResponse(await self._bodies.count(request, size, count_tokens, body, loaded))
