"""Requests that overlap at one controller, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx

from llmlaunch.controller.app import Controller

TOKEN = "t" * 40
A = "http://10.0.0.1:21002"


def test_names_that_arrive_slowly_undo_nothing_that_happens_meanwhile() -> None:
    async def history() -> list[str]:
        transport = httpx.ASGITransport(Controller(token=TOKEN).app())
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://controller", headers=headers
        ) as http:

            async def names() -> AsyncIterator[bytes]:
                yield b'{"names": '
                status = {"model_names": ["m"]}
                worker = {"worker_name": A, "worker_status": status, "verified": True}
                assert (await http.post("/register_worker", json=worker)).status_code == 200
                yield b'["m"]}'

            assert (await http.post("/set_expected", content=names())).status_code == 200
            return (await http.post("/list_models")).json()["models"]  # type: ignore[no-any-return]

    assert asyncio.run(history()) == ["m"]
