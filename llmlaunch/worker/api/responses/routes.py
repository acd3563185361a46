"""The endpoints below /v1/responses."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llmlaunch.worker.api.bodies import LONG, RequestBodies
from llmlaunch.worker.api.generation.respond import ResponseWriter, respond
from llmlaunch.worker.api.generation.response_format import is_requested
from llmlaunch.worker.api.http import CompactJsonResponse, Handler
from llmlaunch.worker.api.protocol import RequestBody
from llmlaunch.worker.api.responses import compaction, input_items, items
from llmlaunch.worker.api.responses.prepare import Conversation, PreparedResponse, count_input, prepare
from llmlaunch.worker.api.responses.protocol import ResponsesBody
from llmlaunch.worker.api.responses.response import full_response, stream_response
from llmlaunch.worker.api.responses.store import ResponseStore, StoredTurn
from llmlaunch.worker.api.service import Service
from llmlaunch.worker.errors import BadRequest, NotFound
from llmlaunch.worker.loading.types import LoadedGenerator

WRITER: ResponseWriter[PreparedResponse] = ResponseWriter(full_response, stream_response)


class ResponseRoutes:
    """The handlers. Their docstrings are the descriptions in /openapi.json."""

    def __init__(self, service: Service, bodies: RequestBodies) -> None:
        self._service = service
        self._bodies = bodies
        self._store = ResponseStore(service.config.address)

    def table(self) -> list[tuple[str, str, Handler, type[RequestBody] | None]]:
        """Return the method, path and handler of every endpoint, and the body it takes."""
        return [
            ("POST", "/v1/responses", self.create_response, ResponsesBody),
            ("POST", "/v1/responses/input_tokens", self.count_input_tokens, ResponsesBody),
            ("POST", "/v1/responses/compact", self.compact, ResponsesBody),
            ("GET", "/v1/responses/{id}", self.get_response, None),
            ("DELETE", "/v1/responses/{id}", self.delete_response, None),
            ("GET", "/v1/responses/{id}/input_items", self.list_input_items, None),
            ("POST", "/v1/responses/{id}/cancel", self.cancel_response, None),
        ]

    async def create_response(self, request: Request) -> Response:
        """A response, which may continue an earlier one, as in OpenAI's Responses API."""
        body, size = await self._bodies.read(request, ResponsesBody)
        loaded = self._service.loaded_as(LoadedGenerator, body.model)
        conversation = self._conversation(body)
        size = LONG if conversation.earlier or body.text or is_requested(body) else size
        prepared = await self._bodies.prepare(request, size, prepare, body, loaded, conversation, self._store)
        return await respond(request, self._service, prepared, WRITER, stream=bool(body.stream))

    async def count_input_tokens(self, request: Request) -> Response:
        """The number of tokens that a response would be made from, as in OpenAI's Responses API."""
        body, size = await self._bodies.read(request, ResponsesBody)
        loaded = self._service.loaded_as(LoadedGenerator, body.model)
        conversation = self._conversation(body)
        size = LONG if conversation.earlier else size
        count = await self._bodies.count(request, size, count_input, body, loaded, conversation)
        return CompactJsonResponse({"object": "response.input_tokens", "input_tokens": count})

    def _conversation(self, body: ResponsesBody) -> Conversation:
        previous = self._previous_turn(body)
        given = items.as_items(body.input, optional=previous is not None)
        return Conversation(previous.items if previous else (), self._store.resolved(given))

    def _previous_turn(self, body: ResponsesBody) -> StoredTurn | None:
        if body.previous_response_id is None:
            return None
        previous = self._store.get(body.previous_response_id)
        if previous is None:
            raise BadRequest(
                f"previous_response_id: {body.previous_response_id!r} was not found (it may have expired)",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        return previous

    def _turn(self, request: Request) -> StoredTurn:
        name = request.path_params["id"]
        turn = self._store.get(name)
        if turn is None:
            raise NotFound(f"response {name!r} was not found (it may have expired)")
        return turn

    async def get_response(self, request: Request) -> Response:
        """A stored response, as in OpenAI's Responses API."""
        return CompactJsonResponse(self._turn(request).response)

    async def delete_response(self, request: Request) -> Response:
        """Deletes a stored response, as in OpenAI's Responses API."""
        name = self._turn(request).response["id"]
        self._store.remove(name)
        return CompactJsonResponse({"id": name, "object": "response", "deleted": True})

    async def list_input_items(self, request: Request) -> Response:
        """The items that a stored response was made from, as in OpenAI's Responses API: page by page, the newest first."""
        return CompactJsonResponse(input_items.page(self._turn(request).input, request.query_params))

    async def cancel_response(self, request: Request) -> Response:
        """Refused, as in OpenAI's Responses API for responses that do not run in the background: none here does."""
        name = self._turn(request).response["id"]
        raise BadRequest(
            f"response {name!r} has already ended: only background responses can be cancelled, and this engine has none. "
            "To stop a response while it is made, close its connection",
            code="unsupported",
        )

    async def compact(self, request: Request) -> Response:
        """A conversation made shorter, as in OpenAI's Responses API: the user's messages, and a summary of the rest."""
        body, _ = await self._bodies.read(request, ResponsesBody)
        loaded = self._service.loaded_as(LoadedGenerator, body.model)
        conversation = self._conversation(body)
        asked = compaction.as_compaction_request(body, conversation, loaded.context)
        prepared = await self._bodies.prepare(request, LONG, prepare, asked[0], loaded, asked[1], self._store)
        return await respond(request, self._service, prepared, compaction.writer(conversation), stream=False)
