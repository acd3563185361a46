"""/openapi.json describes what is served."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import httpx
import jsonschema
import pytest

from llmlaunch.worker.api.routes import WorkerRoutes, application
from llmlaunch.worker.api.service import Service
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.state import WorkerState


@pytest.fixture(scope="module")
def service() -> Service:
    return Service(WorkerConfig(model="m", names=("m",)), WorkerState(needs_controller=False))


@pytest.fixture(scope="module")
def document(service: Service) -> dict[str, Any]:
    async def get() -> dict[str, Any]:
        transport = httpx.ASGITransport(application(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://worker") as client:
            first, again = await client.get("/openapi.json"), await client.get("/openapi.json")
            assert first.status_code == 200
            assert first.json() == again.json()
            assert (await client.get("/docs")).status_code == 404
            return dict(first.json())

    return asyncio.run(get())


def test_every_address_is_described_with_its_body(service: Service, document: dict[str, Any]) -> None:
    for method, path, _handler, body in WorkerRoutes(service).table():
        described = document["paths"][path.replace(":path", "")][method.lower()]
        names = {parameter["name"] for parameter in described.get("parameters", ())}
        assert names == set(re.findall(r"{(\w+)", path))
        if body is None:
            assert "requestBody" not in described
        else:
            schema = described["requestBody"]["content"]["application/json"]["schema"]
            assert schema == {"$ref": f"#/components/schemas/{body.__name__}"}
        assert "422" not in described["responses"], "refusals are 400s in OpenAI's envelope"
    operations = [one["operationId"] for path in document["paths"].values() for one in path.values()]
    assert len(set(operations)) == len(operations)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for name in set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document))):
        assert name in document["components"]["schemas"]


@pytest.mark.parametrize(
    ("name", "body", "holds"),
    [
        ("ChatBody", {"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": 1}, True),
        ("ChatBody", {"model": "m", "messages": [{"role": "user", "content": "x"}], "more": 1}, True),
        ("ChatBody", {"model": "m", "messages": [], "temperature": 1}, False),
        ("ChatBody", {"model": "m", "messages": [{"role": "user"}], "temperature": 3}, False),
        ("CompletionBody", {"model": "m", "prompt": [[1, 2], [3]]}, True),
        ("CompletionBody", {"prompt": "x"}, False),
        ("NamedEmbeddingBody", {"input": "x"}, True),
        ("EmbeddingBody", {"input": "x"}, False),
    ],
)
def test_it_takes_what_is_served(document: dict[str, Any], name: str, body: Any, holds: bool) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    assert jsonschema.Draft202012Validator(schema).is_valid(body) == holds
