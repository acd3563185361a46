"""Reads the bodies of requests, and does slow work on them apart from the event loop, for as long as the client waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from starlette.requests import Request

from llmlaunch.worker.api import json_shape
from llmlaunch.worker.api.http import body_coding, read_body, unpacked, while_connected
from llmlaunch.worker.api.protocol import RequestBody, parse
from llmlaunch.worker.api.service import Service
from llmlaunch.worker.background import BackgroundThreads
from llmlaunch.worker.errors import BadRequest
from llmlaunch.worker.tokenization.tokenizer import SHORT_CHARS

Body = TypeVar("Body", bound=RequestBody)
Value = TypeVar("Value")
LONG = SHORT_CHARS + 1
"""Size in bytes given to requests whose preparation is slow at any length: grammars to compile, conversations to continue."""


class RequestBodies:
    """The bodies of one worker's requests."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def read(self, request: Request, kind: type[Body]) -> tuple[Body, int]:
        """Return the body of a request, and its size in bytes, unpacked.

        Raises BadRequest, RequestTooLarge, UnsupportedEncoding, ClientDisconnect.
        """
        coding = body_coding(request)
        body = await read_body(request)
        if coding and body:
            body = await self.prepare(request, len(body), unpacked, body, coding)
        if json_shape.may_have_too_many(body) and await self.prepare(
            request, len(body), json_shape.has_too_many, body
        ):
            raise BadRequest(f"the body has more than {json_shape.MAX_CONTAINERS:,} objects and arrays")
        return parse(kind, body), len(body)

    async def prepare(
        self, request: Request, size: int, work: Callable[..., Value], *arguments: Any
    ) -> Value:
        """Return ``work(*arguments)``; if ``size`` bytes make it slow, it runs in a thread."""
        return await self._run(self._service.preparing, request, size, work, *arguments)

    async def count(self, request: Request, size: int, work: Callable[..., Value], *arguments: Any) -> Value:
        """The same for texts of any length, apart from requests that generate."""
        return await self._run(self._service.counting, request, size, work, *arguments)

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
