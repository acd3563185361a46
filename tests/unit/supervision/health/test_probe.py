"""What a probe makes of servers that are slow, busy, ill or gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmlaunch.gateway.multiprocess.shared_counters import SharedCounters
from llmlaunch.gateway.observe.metrics import GatewayMetrics, render
from llmlaunch.planning.types import Component, ProcessSpec
from llmlaunch.supervision.core.reconcile import Slot
from llmlaunch.supervision.core.restart import Policy
from llmlaunch.supervision.core.types import Phase, Probed, Progressed, Record
from llmlaunch.supervision.health import probe
from llmlaunch.supervision.health.answer_counts import AnswerCounts, count
from tests.support.outcomes import outcome
from tests.support.ports import free_port
from tests.unit.supervision.histories import spec

Answer = Callable[[str], Awaitable[bytes]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def status(code: int) -> bytes:
    return f"HTTP/1.1 {code} X\r\nContent-Length: 0\r\n\r\n".encode()


@contextlib.asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[ProcessSpec]:
    """A spec whose probes ``answer`` gets by their path."""

    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            serving.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            writer.write(await answer(head.split(" ")[1]))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    port = free_port()
    running = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield spec(address=f"http://127.0.0.1:{port}", port=port)
    finally:
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving)
        running.close()
        await running.wait_closed()


async def nobody_counts() -> None:
    return None


async def never(path: str) -> bytes:
    await asyncio.Event().wait()
    return b""


def events(
    answer: Answer | None,
    count: int,
    log: Path,
    *,
    ready: bool = True,
    cpu: Callable[[], float] = lambda: 0.0,
    answered: Callable[[], Awaitable[int | None]] = nobody_counts,
    moved: Callable[[], int] = lambda: 0,
    **changes: Any,
) -> list[Probed | Progressed]:
    """The first ``count`` events of a watch; ``answer`` None: nobody listens."""
    policy = Policy(probe_every_s=0.01, probe_timeout_s=20.0)
    if answer is never:
        changes = {"probe_timeout_s": 0.1} | changes
    seen: list[Probed | Progressed] = []

    async def run() -> None:
        enough = asyncio.Event()

        def note(event: Probed | Progressed) -> None:
            seen.append(event)
            if len(seen) >= count:
                enough.set()

        async with server(answer or never) as found:
            if answer is None:
                found = replace(found, address=f"http://127.0.0.1:{free_port()}")
            watch = probe.ProcessProbe(
                replace(found, **changes), 1, log, policy, note, cpu, answered, moved_bytes=moved
            )
            task = asyncio.create_task(watch.run(ready))
            await asyncio.wait_for(enough.wait(), 20)
            task.cancel()
            await asyncio.wait({task})

    asyncio.run(run())
    return seen[:count]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def working() -> Callable[[], float]:
    """A process tree that uses a thousand seconds of CPU time between two looks."""
    looks = iter(range(0, 1_000_000, 1000))
    return lambda: float(next(looks))


def test_a_server_that_is_slow_to_answer_becomes_ready(log: Path) -> None:
    """A multiple of the time that a probe may take later on: a start is not judged by it."""

    async def slow(path: str) -> bytes:
        await asyncio.sleep(0.2)
        return OK

    assert events(slow, 1, log, ready=False, probe_timeout_s=0.05, start_timeout_s=40.0) == [Probed(1, True)]


def test_the_log_tells_progress_while_a_probe_waits(log: Path) -> None:
    log.write_text("shard 1\n")
    seen = events(never, 1, log, ready=False, progress_patterns=("shard",))
    assert seen == [Progressed(1, "shard 1")]


def test_bytes_that_are_moved_are_progress_whatever_the_log_says(log: Path) -> None:
    moved = iter(range(0, 1 << 40, 1 << 30))
    seen = events(never, 1, log, ready=False, moved=lambda: next(moved), start_timeout_s=1.0)
    assert seen == [Progressed(1, "1,024 MiB read and written so far", counted=True)]


def test_silence_says_what_the_process_did_meanwhile(log: Path) -> None:
    (hung,) = events(never, 1, log)
    assert isinstance(hung, Probed)
    assert (hung.ok, hung.unanswered, hung.cpu) == (False, True, 0.0)
    (busy,) = events(never, 1, log, cpu=working())
    assert isinstance(busy, Probed)
    assert busy.unanswered
    assert busy.cpu is not None
    assert busy.cpu > 1


def test_what_it_answered_meanwhile_is_counted_from_one_unanswered_probe_to_the_next(log: Path) -> None:
    counts = iter([70, 73, None, 74, 2, 2, 2])

    async def answered() -> int | None:
        return next(counts)

    seen = [event for event in events(never, 5, log, answered=answered) if isinstance(event, Probed)]
    assert [event.answered for event in seen] == [0, 3, 0, 0, 0]


def page() -> bytes:
    """A real gateway's /metrics after some requests."""
    board = SharedCounters()
    counted = GatewayMetrics(board)
    chat, embeddings = "/v1/chat/completions", "/v1/embeddings"
    for path, model, replica, status in [
        *[(chat, "m", "http://h:1", 200)] * 40,
        *[(embeddings, 'a"} 9', "http://h:1", 201)] * 2,
        (chat, "m", "http://h:1", 499),
        (chat, "m", "http://h:1", 502),
        *[(chat, "m", "http://h:11", 200)] * 7,
        (chat, "m", "", 503),
    ]:
        counted.ended(outcome(path, model, replica, "key", status))
    return render([board])


def test_the_gateways_count_of_a_replicas_answers() -> None:
    assert count(page(), "http://h:1") == 42
    assert count(page(), "http://h:2") == count(b"nonsense", "http://h:1") == 0


def test_nobody_can_tell_without_a_gateway_or_from_one_that_is_ill() -> None:
    async def ask(answer: Answer | None) -> int | None:
        async with server(answer or never) as found:
            counts = AnswerCounts()
            if answer:
                gateway = replace(found, component=Component.API)
                counts.follow({"api": Slot(Record(phase=Phase.READY), gateway)})
            return await counts.by(spec(address="http://h:1"))

    async def well(path: str) -> bytes:
        assert path == "/metrics"
        return b"HTTP/1.1 200 OK\r\n\r\n" + page()

    async def ill(path: str) -> bytes:
        return status(500)

    assert asyncio.run(ask(well)) == 42
    assert asyncio.run(ask(ill)) is None
    assert asyncio.run(ask(None)) is None


@pytest.mark.parametrize(("code", "unanswered"), [(500, False), (404, False), (503, True), (429, True)])
def test_a_server_that_is_ill_and_one_that_has_no_time(log: Path, code: int, unanswered: bool) -> None:
    async def says(path: str) -> bytes:
        return status(code)

    (seen,) = events(says, 1, log, cpu=working())
    assert isinstance(seen, Probed)
    assert (seen.ok, seen.detail, seen.unanswered) == (False, f"status {code}", unanswered)
    assert (seen.cpu is not None) is unanswered


def test_a_connection_that_breaks_may_be_one_of_too_many(log: Path) -> None:
    async def hangs_up(path: str) -> bytes:
        return b""

    (seen,) = events(hangs_up, 1, log)
    assert seen == Probed(1, False, "the connection was closed", unanswered=True, cpu=0.0)


def test_where_nobody_listens_nobody_is_busy(log: Path) -> None:
    (seen,) = events(None, 1, log, cpu=working())
    assert seen == Probed(1, False, "connection refused")


def test_an_answer_in_time_costs_no_look_at_the_process(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_SLOW_S", 5.0)

    async def well(path: str) -> bytes:
        return OK

    def looked() -> float:
        raise AssertionError("nobody has to know")

    assert events(well, 3, log, cpu=looked) == [Probed(1, True)] * 3


def test_the_two_probes_have_their_own_paths(log: Path) -> None:
    asked = []

    async def well(path: str) -> bytes:
        asked.append(path)
        return OK

    events(well, 2, log, ready=False, ready_path="/ready?deep=1", live_path="/live")
    assert asked[:2] == ["/ready?deep=1", "/live"]


def test_without_a_probe_it_is_ready_when_its_port_takes_connections_and_nobody_asks_again(log: Path) -> None:
    async def run() -> list[Probed | Progressed]:
        seen: list[Probed | Progressed] = []
        port = free_port()
        silent = spec(address=f"http://127.0.0.1:{port}", port=port, ready_path="", live_path="")
        watch = probe.ProcessProbe(silent, 1, log, Policy(), seen.append, lambda: 0.0, nobody_counts)
        task = asyncio.create_task(watch.run(ready=False))
        async with asyncio.timeout(20):
            while not seen:
                await asyncio.sleep(0.01)
            listening = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", port)
            await task
            listening.close()
        return seen

    assert asyncio.run(run()) == [Probed(1, False, "connection refused"), Probed(1, True)]


@pytest.mark.parametrize("component", list(Component))
def test_a_timeout_names_the_key_that_allows_more_where_there_is_one(log: Path, component: Component) -> None:
    (seen,) = events(never, 1, log, component=component)
    assert isinstance(seen, Probed)
    hint = "; raise `probe_timeout:` to allow more" if component is Component.WORKER else ""
    assert seen.detail == "no answer within 0.1 s" + hint


def test_how_long_an_answer_may_take_is_the_components_own(log: Path) -> None:
    (seen,) = events(never, 1, log, probe_timeout_s=0.2)
    assert isinstance(seen, Probed)
    assert seen.detail.startswith("no answer within 0.2 s")


def test_cpu_time_of_a_tree() -> None:
    import os
    import time

    from llmlaunch.supervision.processes.procs import cpu_seconds

    before, began = cpu_seconds(os.getpid()), time.process_time()
    while time.process_time() - began < 0.1:
        pass
    assert cpu_seconds(os.getpid()) - before >= 0.08
    assert cpu_seconds(0x7FFFFFF) == 0.0, "it has gone meanwhile"
