from __future__ import annotations

import os
import queue
import signal
import time
from collections.abc import Iterator
from typing import cast

import pytest

from llmlaunch.cli.deploy.session import Interrupted, Session, SupervisorGone
from llmlaunch.cli.display.progress import StartProgress
from llmlaunch.control.client import ControlClient
from llmlaunch.control.types import ProgressEvent, StatusReport, SupervisorStatus
from llmlaunch.errors import DeadlineError, NotRunningError
from tests.support.waiting import wait_until
from tests.unit.cli.values import NOW, event, report, worker


class FakeClient:
    """A supervisor as the client shows it. ``None`` in the stream breaks it, as a network does."""

    def __init__(self) -> None:
        self.alive = True
        self.pid = 4700
        self.stream: queue.SimpleQueue[ProgressEvent | None] = queue.SimpleQueue()
        self.asked_since: list[int] = []

    def status(self) -> StatusReport:
        if not self.alive:
            raise NotRunningError("gone")
        return report(worker(phase="starting"), supervisor=SupervisorStatus(self.pid, NOW))

    def events(self, since: int = 0) -> Iterator[ProgressEvent]:
        self.asked_since.append(since)
        while (item := self.stream.get()) is not None:
            yield item


class Seen:
    def __init__(self) -> None:
        self.events: list[ProgressEvent] = []

    def change(self, event: ProgressEvent) -> None:
        self.events.append(event)


@pytest.fixture
def client() -> Iterator[FakeClient]:
    made = FakeClient()
    yield made
    made.alive = False
    made.stream.put(None)


def opened(client: FakeClient, since: int = 0, view: Seen | None = None) -> Session:
    progress = StartProgress(["smollm2-1"])
    session = Session(cast("ControlClient", client), progress, view or Seen(), since=since)
    session.open()
    return session


def test_waiting_ends_when_it_is_done(client: FakeClient) -> None:
    view = Seen()
    session = opened(client, view=view)
    client.stream.put(event(1, worker()))
    session.wait(lambda: not session.progress.missing(), time.monotonic() + 10, str)
    assert [e.seq for e in view.events] == [1]


def test_the_deadline_tells_what_was_missing(client: FakeClient) -> None:
    session = opened(client)
    with pytest.raises(DeadlineError, match="smollm2-1: starting"):
        session.wait(lambda: False, time.monotonic(), lambda: session.progress.reason("smollm2-1"))


def test_what_happened_before_is_not_shown(client: FakeClient) -> None:
    opened(client, since=5)
    wait_until(lambda: client.asked_since == [5])


def test_a_broken_stream_goes_on_where_it_was(client: FakeClient) -> None:
    session = opened(client)
    client.stream.put(event(7, worker(phase="starting")))
    client.stream.put(None)
    wait_until(lambda: client.asked_since == [0, 7])
    client.stream.put(event(8, worker()))
    session.wait(lambda: not session.progress.missing(), time.monotonic() + 10, str)


def test_a_supervisor_that_is_gone_is_told_again_and_again(client: FakeClient) -> None:
    session = opened(client)
    client.alive = False
    client.stream.put(None)
    for _ in range(2):
        with pytest.raises(SupervisorGone):
            session.wait(lambda: False, time.monotonic() + 10, str)


def test_another_supervisor_in_its_place_is_not_the_one_that_was_asked(client: FakeClient) -> None:
    session = opened(client)
    client.pid = 4800
    client.stream.put(None)
    with pytest.raises(SupervisorGone):
        session.wait(lambda: False, time.monotonic() + 10, str)


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGQUIT, 131)]
)
def test_signals_come_out_of_the_queue(client: FakeClient, signum: int, code: int) -> None:
    session = opened(client)
    before = signal.getsignal(signum)
    with session.signals():
        os.kill(os.getpid(), signum)
        with pytest.raises(Interrupted) as caught:
            session.wait(lambda: False, time.monotonic() + 10, str)
    assert caught.value.exit_code == code
    assert signal.getsignal(signum) is before


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_was_ignored_stays_ignored(client: FakeClient, signum: int) -> None:
    """SIGHUP under nohup, SIGINT of what a shell without job control puts into the background."""
    session = opened(client)
    before = signal.signal(signum, signal.SIG_IGN)
    try:
        with session.signals():
            assert signal.getsignal(signum) is signal.SIG_IGN
            os.kill(os.getpid(), signum)
            session.step(0.0)
        assert signal.getsignal(signum) is signal.SIG_IGN
    finally:
        signal.signal(signum, before)
