"""A short run of every fuzzing target, always with the same inputs. ``python -m tests.fuzz`` goes on where it ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llmlaunch.gateway.http1 import request_parser
from tests.fuzz import machine, parsers, seeds
from tests.fuzz.mutate import mutations

INPUTS = 3000


@pytest.fixture(autouse=True)
def _callbacks_must_not_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_parser.log, "error", request_parser.log.error)
    parsers.raise_on_log()


@pytest.fixture
def target() -> Iterator[machine.Target]:
    made = machine.Target()
    yield made
    made.close()


def test_requests_mean_the_same_however_they_come_and_to_another_parser() -> None:
    for data in mutations(seeds.REQUESTS, INPUTS, seed=1):
        parsers.requests(data)


def test_answers_mean_the_same_however_they_come_and_to_another_parser() -> None:
    for data in mutations(seeds.ANSWERS, INPUTS, seed=1):
        parsers.answers(data)


def test_a_gateway_between_strangers_answers_in_order_and_keeps_nothing(target: machine.Target) -> None:
    for data in mutations(seeds.EXCHANGES, INPUTS, seed=1, head=machine.SCHEDULE):
        target(data)


FOUND = {
    "a stream of another name that ends with its connection": b"\1\0\xbd\x96\0\xfb\1\xbb"
    + seeds.EXCHANGES[len(seeds.ANSWERS) + 2].replace(b'"usage"', b'"usage#')
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_once(target: machine.Target, name: str) -> None:
    target(FOUND[name])
