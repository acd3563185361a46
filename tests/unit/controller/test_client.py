"""The worker's loop as a history: what the controller answers, and what the worker then does, pauses included."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmlaunch.common.backoff import delay
from llmlaunch.controller.client import (
    RETRY_FIRST_S,
    RETRY_MOST_S,
    ControllerClient,
    ControllerUnreachable,
    keep_registered,
)
from llmlaunch.controller.wire import RegisterWorker

NAME = "http://127.0.0.1:9"
DOWN = ControllerUnreachable("nobody there")


class Scripted(ControllerClient):
    """Answers from a list; cancels the worker when it is used up. ``did`` holds calls, and pauses in seconds."""

    def __init__(self, answers: list[Any]) -> None:
        self.base_url = "http://controller"
        self.answers = answers
        self.did: list[str | float] = []

    def _next(self, call: str) -> Any:
        if not self.answers:
            raise asyncio.CancelledError
        self.did.append(call)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def register(self, registration: RegisterWorker) -> None:
        self._next("register")

    async def heartbeat(self, worker_name: str, queue_length: int) -> bool:
        return bool(self._next("heartbeat"))

    async def unregister(self, worker_name: str) -> None:
        self.did.append("unregister")


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(*answers: Any) -> tuple[list[str | float], list[bool]]:
        client, told = Scripted(list(answers)), []

        async def sleep(seconds: float) -> None:
            client.did.append(seconds)

        monkeypatch.setattr(asyncio, "sleep", sleep)
        monkeypatch.setattr("random.random", lambda: 1.0)
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(
                keep_registered(
                    client,
                    lambda: RegisterWorker(worker_name=NAME),
                    lambda: 0,
                    heartbeat_s=5.0,
                    on_state=lambda registered, _: told.append(registered),
                )
            )
        return client.did, told

    return run


def test_register_then_heartbeat_then_say_goodbye(history: Any) -> None:
    did, told = history(None, True, True)
    assert did == ["register", 5.0, "heartbeat", 5.0, "heartbeat", 5.0, "unregister"]
    assert told == [True]


def test_a_forgotten_worker_registers_without_a_pause(history: Any) -> None:
    did, told = history(None, False, None)
    assert did == ["register", 5.0, "heartbeat", "register", 5.0, "unregister"]
    assert told == [True, False, True]


def test_pauses_between_tries_grow_to_their_limit_and_start_over(history: Any) -> None:
    did, told = history(*[DOWN] * 7, None, DOWN, True)
    pauses = [step for step in did if isinstance(step, float)]
    growing = [delay(n, RETRY_FIRST_S, RETRY_MOST_S) for n in range(1, 8)]
    assert growing[-1] == RETRY_MOST_S
    assert pauses == [*growing, 5.0, RETRY_FIRST_S, 5.0]
    assert told == [False, True, False, True]


def test_a_missed_heartbeat_is_sent_again_before_anything_else(history: Any) -> None:
    """The controller may only have restarted its network, and still know the worker."""
    did, _ = history(None, DOWN, True)
    assert [step for step in did if isinstance(step, str)] == [
        "register",
        "heartbeat",
        "heartbeat",
        "unregister",
    ]


def test_a_register_that_may_have_arrived_is_taken_back(history: Any) -> None:
    assert history(DOWN)[0][-1] == "unregister"
