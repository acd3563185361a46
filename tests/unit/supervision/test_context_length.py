"""How many tokens an engine takes, as each kind of engine says it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmlaunch.planning.types import Component
from llmlaunch.supervision.context_length import ask_context_length
from llmlaunch.supervision.core.reconcile import Slot
from llmlaunch.supervision.core.types import Phase, Record
from llmlaunch.supervision.registrar import Registrar
from tests.support.ports import free_port
from tests.unit.supervision.histories import spec
from tests.unit.supervision.test_request import ok, server


def models(*entries: Any) -> dict[str, Any]:
    return {"object": "list", "data": list(entries)}


LLAMACPP = models({"id": "n", "meta": {"n_ctx_train": 131072, "n_vocab": 5}})
SAYS: dict[str, tuple[dict[str, Any], int | None]] = {
    "vLLM, SGLang": ({"/v1/models": models({"id": "n", "max_model_len": 4096})}, 4096),
    "another name": ({"/v1/models": models({"id": "n", "context_length": 2048})}, 2048),
    "its own name": ({"/v1/models": models({"id": "/models/x.gguf", "max_model_len": 512})}, 512),
    "one of several": (
        {"/v1/models": models({"id": "other", "max_model_len": 1}, {"id": "n", "max_model_len": 8})},
        8,
    ),
    "several, none of them ours": (
        {"/v1/models": models({"id": "x", "max_model_len": 1}, {"id": "y", "max_model_len": 8})},
        None,
    ),
    "llama.cpp": (
        {
            "/v1/models": LLAMACPP,
            "/props": {"default_generation_settings": {"n_ctx": 4096}, "total_slots": 4},
        },
        4096,
    ),
    "llama.cpp without /props": ({"/v1/models": LLAMACPP}, None),
    "llama.cpp with odd /props": ({"/v1/models": LLAMACPP, "/props": [1]}, None),
    "nothing": ({"/v1/models": models({"id": "n"})}, None),
    "no list": ({}, None),
    "not a length": (
        {"/v1/models": models({"id": "n", "max_model_len": "4096", "context_length": -1})},
        None,
    ),
    "not a list": ({"/v1/models": {"data": {"n": 1}}}, None),
    "not objects": ({"/v1/models": models("n", 5)}, None),
}


@pytest.mark.parametrize("engine", SAYS)
def test_an_engine_says_its_context_length(engine: str) -> None:
    answers, length = SAYS[engine]

    def answer(line: str, body: Any) -> bytes:
        path = line.split()[1]
        return ok(answers[path]) if path in answers else ok({"detail": "Not Found"}, 404)

    async def run() -> None:
        async with server(answer) as url:
            assert await ask_context_length(spec("w", address=url, names=("n",))) == length

    asyncio.run(run())


@pytest.mark.parametrize(
    "reply", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{"], ids=["closed", "cut"]
)
def test_an_engine_that_cannot_be_asked_says_nothing(reply: bytes) -> None:
    async def run() -> None:
        async with server(lambda line, body: reply) as url:
            assert await ask_context_length(spec("w", address=url, names=("n",))) is None
        nobody = f"http://127.0.0.1:{free_port()}"
        assert await ask_context_length(spec("w", address=nobody, names=("n",))) is None

    asyncio.run(run())


def test_it_is_registered_unless_the_manifest_knows_better() -> None:
    told: dict[str, int | None] = {}

    def controller(line: str, body: Any) -> bytes:
        if line.split()[1] == "/register_worker":
            told[body["component"]] = body["max_model_len"]
        return ok(None)

    def engine(line: str, body: Any) -> bytes:
        return ok(models({"id": "n", "max_model_len": 4096}))

    async def run() -> None:
        async with server(controller) as url, server(engine) as asked, server(engine) as known:
            ready = Record(phase=Phase.READY, incarnation=1)
            registrar = Registrar("secret")
            task = asyncio.create_task(registrar.run())
            slots = (
                Slot(ready, spec("controller", component=Component.CONTROLLER, address=url)),
                Slot(ready, spec("asked", address=asked, names=("n",))),
                Slot(ready, spec("known", address=known, names=("n",), max_model_len=2048)),
            )
            registrar.follow({slot.spec.name: slot for slot in slots}, ("n",))
            async with asyncio.timeout(10):
                while len(told) < 2:
                    await asyncio.sleep(0.005)
            task.cancel()
        assert told == {"asked": 4096, "known": 2048}

    asyncio.run(run())
