"""A worker with a key: who is answered."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from llmlaunch.worker.api.auth import RequireKey
from llmlaunch.worker.api.routes import application
from llmlaunch.worker.api.service import Service
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.state import WorkerState

PATHS = [
    "/v1/models",
    "/v1/chat/completions",
    "/worker_get_status",
    "/openapi.json",
    "/nowhere",
    "/health/",
    "//health",
]


def status(path: str, headers: dict[str, str] | None = None) -> httpx.Response:
    service = Service(WorkerConfig(model="m", names=("m",)), WorkerState(needs_controller=False))

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(RequireKey(application(service), "the-key"))
        async with httpx.AsyncClient(transport=transport, base_url="http://worker") as client:
            return await client.post(path, headers=headers, json={"model": "m"})

    return asyncio.run(get())


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer other"},
        {"Authorization": "the-key"},
        {"Authorization": "Bearer the-key "[:-2]},
        {"X-API-Key": "other"},
        {"Authorization": "Bearer other", "X-API-Key": "the-key"},
        {"X-API-Key": "other", "API-Key": "the-key"},
    ],
)
def test_a_stranger_is_told_that_it_is_one(path: str, headers: dict[str, str]) -> None:
    answer = status(path, headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["x-should-retry"] == "false"
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
    assert "the deployment's endpoint" in error["message"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers", [{"Authorization": "Bearer the-key"}, {"X-API-Key": "the-key"}, {"API-Key": "the-key"}]
)
def test_the_deployment_is_answered(path: str, headers: dict[str, str]) -> None:
    assert status(path, headers).status_code != 401


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
def test_how_it_is_everybody_may_know(path: str) -> None:
    assert status(path).status_code == 405, "it takes GET, and asked for no key"
