"""What a streaming client gets before the first token, and while none comes."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from llmlaunch.worker.api import http
from llmlaunch.worker.api.generation import respond
from tests.unit.worker.scripted import FAULT, Script, Served, served

COMMENT = b": keep-alive\n\n"
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/responses": {"input": "Hi"},
}
paths = pytest.mark.parametrize("path", BODIES)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (http, respond):
        monkeypatch.setattr(module, "KEEP_ALIVE_S", 0.02)


class Call:
    """One streaming request, and what its client has got."""

    def __init__(self, made: Served, path: str) -> None:
        self.status = 0
        self.written = b""
        self._body = json.dumps({"model": "m", "stream": True, **BODIES[path]}).encode()
        self._scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": [(b"content-type", b"application/json")], "server": ("worker", 80), "scheme": "http",
        }  # fmt: skip
        self._changed = asyncio.Event()
        self._task = asyncio.ensure_future(made.app(self._scope, self._receive, self._send))

    async def _receive(self) -> Any:
        body, self._body = self._body, b""
        if not body:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": body, "more_body": False}

    async def _send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.written += message.get("body", b"")
        self._changed.set()

    async def until_comments(self, count: int) -> None:
        """Wait for so many comments."""
        async with asyncio.timeout(30):
            while self.written.count(COMMENT) < count:
                self._changed.clear()
                await self._changed.wait()

    async def end(self) -> None:
        async with asyncio.timeout(30):
            await self._task


def play(path: str, text: str, before: int, comments: int) -> tuple[Call, bytes]:
    """A call whose engine takes ``before`` steps, and the others after so many comments; and what had come by then."""

    async def main() -> tuple[Call, bytes]:
        async with served(text) as made:
            hold(made.script, before)
            call = Call(made, path)
            await call.until_comments(comments)
            early = call.written
            release(made.script)
            await call.end()
            return call, early

    return asyncio.run(main())


def hold(script: Script, before: int) -> None:
    script.steps = threading.Semaphore(before)


def release(script: Script) -> None:
    script.steps = None


@paths
def test_while_no_token_comes_comments_do_and_then_the_stream_begins(path: str) -> None:
    call, early = play(path, "ok", before=0, comments=3)
    assert call.status == 200
    assert early.replace(COMMENT, b"") == b""
    events = call.written.replace(COMMENT, b"")
    assert events.startswith((b"data: {", b"event: response.created\n"))
    assert events.endswith((b"data: [DONE]\n\n", b"}\n\n"))


@paths
def test_comments_come_in_later_silences_too(path: str) -> None:
    call, early = play(path, "ok", before=1, comments=2)
    assert call.status == 200
    assert b"data: {" in early
    assert call.written.rstrip(b"\n").endswith((b"data: [DONE]", b"}"))


@paths
def test_a_failure_before_the_head_has_its_own_status(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(respond, "KEEP_ALIVE_S", 30.0)
    call, _ = play(path, FAULT, before=1, comments=0)
    assert call.status == 500
    assert json.loads(call.written)["error"]["code"] == "engine_error"


@paths
def test_a_failure_after_the_head_is_an_event(path: str) -> None:
    call, _ = play(path, FAULT, before=0, comments=2)
    assert call.status == 200
    last = call.written.replace(COMMENT, b"").removesuffix(b"data: [DONE]\n\n").split(b"data: ")[-1]
    event = json.loads(last)
    assert "the engine failed" in json.dumps(event)
    assert "error" in event or event["type"] == "response.failed"
