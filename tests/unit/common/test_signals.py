from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from llmlaunch.common import signals

FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}
Handler = Callable[[int, FrameType | None], object] | int


@pytest.fixture
def handle() -> Iterator[Callable[[int, Handler], None]]:
    """Install a handler for the time of the test."""
    before: dict[int, Any] = {}

    def install(number: int, handler: Handler) -> None:
        before.setdefault(number, signal.signal(number, handler))

    yield install
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_that_is_ignored_is_left_out(handle: Callable[[int, Handler], None]) -> None:
    handle(signal.SIGHUP, signal.SIG_IGN)
    handle(signal.SIGINT, signal.SIG_IGN)
    handle(signal.SIGQUIT, signal.SIG_DFL)
    assert signals.not_ignored(signals.ENDING) == (signal.SIGTERM, signal.SIGQUIT)


def test_every_signal_that_ends_a_process_without_a_word_is_meaningless(
    handle: Callable[[int, Handler], None],
) -> None:
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM):
        handle(number, signal.SIG_DFL)
    wanted = {signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGXCPU, signal.SIGIO, signal.SIGRTMIN}
    assert wanted <= set(signals.unhandled())


def test_faults_and_signals_with_a_meaning_are_left_alone(handle: Callable[[int, Handler], None]) -> None:
    handle(signal.SIGUSR1, lambda *_: None)
    handle(signal.SIGUSR2, signal.SIG_IGN)
    found = set(signals.unhandled())
    assert not found & (FAULTS | set(signals.ENDING))
    assert not found & {signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD, signal.SIGWINCH, signal.SIGKILL}


def test_names() -> None:
    assert signals.name(signal.SIGXCPU) == "SIGXCPU"
    assert signals.name(int(signal.SIGRTMIN) + 3) == f"signal {int(signal.SIGRTMIN) + 3}"
