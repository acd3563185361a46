"""Bodies with a Content-Encoding, sent to a worker directly: unpacked, or refused with the reason."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from typing import Any

import httpx
import pytest

from llmlaunch.common import content_coding
from llmlaunch.worker.api.http import MAX_BODY_BYTES
from llmlaunch.worker.api.routes import application
from llmlaunch.worker.api.service import Service
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.state import WorkerState

zstd = content_coding._zstd()
PACKERS: dict[str, Any] = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd.compress}
PATHS = ["/v1/completions", "/v1/chat/completions", "/v1/messages", "/v1/embeddings", "/tokenize"]


def answered(path: str, body: bytes, coding: str) -> httpx.Response:
    """Asks a worker that is still loading: 503 says that it has read the body."""
    service = Service(WorkerConfig(model="m", names=("m",)), WorkerState(needs_controller=False))

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(application(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://worker") as client:
            headers = {"content-type": "application/json", "content-encoding": coding}
            return await client.post(path, headers=headers, content=body)

    return asyncio.run(ask())


def body(words: str = "x") -> bytes:
    both = {"messages": [{"role": "user", "content": words}], "max_tokens": 2}
    return json.dumps({"model": "m", "prompt": words, "input": words} | both).encode()


@pytest.mark.parametrize("coding", PACKERS)
@pytest.mark.parametrize("path", PATHS)
def test_a_packed_body_is_unpacked_wherever_a_body_is_read(path: str, coding: str) -> None:
    assert answered(path, PACKERS[coding](body()), coding).status_code == 503
    assert answered(path, body(), "identity").status_code == 503


def test_a_long_one_is_unpacked_too() -> None:
    text = body(" ".join(map(str, range(500_000))))
    assert answered("/tokenize", gzip.compress(text, 1), "gzip").status_code == 503


@pytest.mark.parametrize(
    ("packed", "coding", "status", "code", "said"),
    [
        (body(), "br", 415, "unsupported_content_encoding", "'br' is not supported; supported: gzip, deflate, zstd"),
        (body(), "gzip, gzip", 415, "unsupported_content_encoding", "'gzip, gzip'"),
        (body(), "gzip", 400, "bad_content_encoding", "not valid gzip"),
        (zstd.compress(body())[:-3], "zstd", 400, "bad_content_encoding", "it ends too early"),
        (gzip.compress(bytes(MAX_BODY_BYTES + 1)), "gzip", 413, "request_too_large", "250 times"),
        (zstd.compress(b"x" * (64 << 20)), "zstd", 413, "request_too_large", "250 times"),
        (gzip.compress(bytes(range(256)) * (MAX_BODY_BYTES // 256 + 1), 1), "gzip", 413, "request_too_large", "32 MiB"),
        (gzip.compress(b"{}}"), "gzip", 400, None, "JSON"),
    ],
    ids=["br", "two codings", "not gzip", "cut", "gzip bomb", "zstd bomb", "too large", "no JSON in it"],
)  # fmt: skip
def test_what_cannot_be_unpacked_is_refused(
    packed: bytes, coding: str, status: int, code: str | None, said: str
) -> None:
    answer = answered("/v1/completions", packed, coding)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]
    assert answer.json()["error"]["code"] == code
    assert answer.headers.get("accept-encoding") == ("gzip, deflate, zstd" if status == 415 else None)
