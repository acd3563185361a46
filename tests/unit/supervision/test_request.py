"""What becomes of an answer that is not one, in words, and what probes and the registrar make of good and bad servers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmlaunch.planning.types import Component
from llmlaunch.supervision import registrar
from llmlaunch.supervision.core.reconcile import Slot
from llmlaunch.supervision.core.restart import Policy
from llmlaunch.supervision.core.types import Phase, Probed, Progressed, Record, Stage
from llmlaunch.supervision.health import probe
from llmlaunch.supervision.registrar import Registrar
from llmlaunch.supervision.request import RequestFailed, request
from tests.support.ports import free_port
from tests.unit.supervision.histories import spec


@contextlib.asynccontextmanager
async def server(answer: Callable[[str, Any], bytes | None]) -> AsyncIterator[str]:
    """``answer`` gets the request's first line and JSON body; None: it never answers."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            (int(x[16:]) for x in head.split("\r\n") if x.lower().startswith("content-length: ")), 0
        )
        body = await reader.readexactly(length)
        reply = answer(head.split("\r\n")[0], json.loads(body) if body else None)
        if reply is None:
            await reader.read()
        else:
            writer.write(reply)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
        writer.close()

    port = free_port()
    running = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        running.close()
        await running.wait_closed()


def ok(body: Any, status: int = 200) -> bytes:
    data = json.dumps(body).encode()
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (None, "no answer within 0.2 s"),
        (b"", "the connection was closed"),
        (b"HTTP/1.1 200", "the connection was closed"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "the response is not HTTP"),
        (b"HTTP/1.1 abc X\r\n\r\n", "the response is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "the response is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000, "the connection was closed"),
    ],
)
def test_bad_servers_are_told_in_words(reply: bytes | None, words: str) -> None:
    async def run() -> None:
        async with server(lambda line, body: reply) as url:
            with pytest.raises(RequestFailed, match=words):
                await request("GET", url, timeout_s=0.2)

    asyncio.run(run())


def test_nobody_listens() -> None:
    with pytest.raises(RequestFailed, match="connection refused"):
        asyncio.run(request("GET", f"http://127.0.0.1:{free_port()}/health"))


def test_a_question_and_its_answer() -> None:
    async def run() -> None:
        async with server(lambda line, body: ok([line, body])) as url:
            response = await request("POST", url + "/x?y=1", {"b": 2})
            assert response.json() == ["POST /x?y=1 HTTP/1.1", {"b": 2}]
        async with server(lambda line, body: ok("y" * (2 << 20))) as url:
            assert len((await request("GET", url)).body) == 1 << 20, "a long page is cut, not refused"

    asyncio.run(run())


async def nobody_counts() -> None:
    return None


def test_probes_tell_progress_readiness_and_health(tmp_path: Path) -> None:
    replies = [
        ok({"progress": "1 of 2"}, 503),
        ok({"progress": "1 of 2"}, 503),
        ok({"progress": {"done_bytes": 31 << 20, "total_bytes": 98 << 20, "text": "converting"}}, 503),
        ok({"progress": {"done_bytes": 0, "total_bytes": 0, "text": "warming up"}}, 503),
        ok({"progress": {}, "note": "waiting for the controller"}, 503),
        ok([], 503),
        ok({"warning": "requests run one at a time"}),
        ok({}, 500),
        None,
    ]
    policy = Policy(probe_every_s=0.01, probe_timeout_s=0.4)
    seen: list[Any] = []

    async def run() -> None:
        done = asyncio.Event()

        def note(event: Probed | Progressed) -> None:
            seen.append(event)
            if len(seen) == 8:
                done.set()

        async with server(lambda line, body: replies.pop(0) if replies else None) as url:
            watch = probe.ProcessProbe(
                spec(address=url), 1, tmp_path / "log", policy, note, lambda: 0.0, nobody_counts
            )
            task = asyncio.create_task(watch.run(ready=False))
            await asyncio.wait_for(done.wait(), 10)
            task.cancel()

    asyncio.run(run())
    assert seen == [
        Probed(1, False, "status 503"),
        Progressed(1, "1 of 2"),
        Progressed(1, "converting 31 of 98 MiB"),
        Progressed(1, "warming up"),
        Progressed(1, "waiting for the controller"),
        Probed(1, True, "requests run one at a time"),
        Probed(1, False, "status 500"),
        Probed(
            1, False, "no answer within 0.4 s; raise `probe_timeout:` to allow more", unanswered=True, cpu=0.0
        ),
    ]


def test_the_registrar_beats_and_registers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller that forgot a worker says so at the next heartbeat."""
    monkeypatch.setattr(registrar, "HEARTBEAT_S", 0.05)
    calls: list[tuple[str, Any]] = []
    known: set[str] = set()

    def controller(line: str, body: Any) -> bytes:
        path = line.split()[1]
        calls.append((path, body))
        name = body.get("worker_name")
        if path == "/register_worker":
            known.add(name)
        if path == "/receive_heart_beat":
            exist = name in known
            known.discard(name)
            return ok({"exist": exist})
        return ok(None)

    def paths() -> list[str]:
        return [path for path, _ in calls]

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)

    async def run() -> None:
        async with server(controller) as url:
            ready = Record(phase=Phase.READY, incarnation=1)
            main = Slot(ready, spec("controller", component=Component.CONTROLLER, address=url))
            worker = Slot(ready, spec("w", address="http://127.0.0.1:9", names=("n",)))
            own = Slot(ready, spec("own", address="http://127.0.0.1:8", self_registering=True))
            told = Registrar("secret")
            task = asyncio.create_task(told.run())
            told.follow({"c": main, "w": worker, "own": own}, ("n",))
            await until(lambda: paths().count("/register_worker") >= 2)
            assert calls[0] == ("/set_expected", {"names": ["n"]})
            assert {body["worker_name"] for path, body in calls if path == "/register_worker"} == {
                "http://127.0.0.1:9"
            }
            stopping = replace(ready, phase=Phase.STOPPING)
            drains = Slot(replace(stopping, stage=Stage.DRAIN), worker.spec)
            told.follow({"c": main, "w": drains, "own": Slot(stopping, own.spec)}, ("n",))
            await until(lambda: "/unregister_worker" in paths())
            gone = [body["worker_name"] for path, body in calls if path == "/unregister_worker"]
            assert gone == ["http://127.0.0.1:8"], "who drains stays in the table, who is dead does not"
            task.cancel()

    asyncio.run(run())
