"""The ways to choose a replica, as clients meet them."""

from __future__ import annotations

import pytest

from tests.integration.gateway.fakes import Bench, chat


@pytest.fixture
def three(bench: Bench) -> list[str]:
    workers = [bench.worker() for _ in range(3)]
    bench.serve(*(worker.replica("m") for worker in workers), dispatch="round_robin")
    return [worker.url for worker in workers]


def asked(bench: Bench, *texts: str) -> str:
    """The worker that answered a conversation of ``texts``."""
    roles = ("user", "assistant")
    messages = [{"role": roles[at % 2], "content": text} for at, text in enumerate(texts)]
    return str(chat(bench.port, "m", messages=messages).json["worker"])


def test_round_robin_goes_round(bench: Bench, three: list[str]) -> None:
    found = [asked(bench, "Hi") for _ in range(6)]
    assert sorted(found[:3]) == sorted(three)
    assert found[3:] == found[:3]


def test_a_conversation_stays_at_its_replica(bench: Bench, three: list[str]) -> None:
    bench.serve(*bench.controller.routes["replicas"], dispatch="prefix")
    homes = {}
    for number in range(12):
        first = f"Question {number}"
        homes[first] = asked(bench, first)
        assert asked(bench, first, "Answer", "And then?") == homes[first]
    assert len(set(homes.values())) > 1
    # Whoever loses its replica finds another one; nobody else moves.
    gone = next(iter(homes.values()))
    left = [replica for replica in bench.controller.routes["replicas"] if replica["worker_name"] != gone]
    bench.serve(*left, dispatch="prefix")
    for first, home in homes.items():
        assert asked(bench, first, "Answer", "Go on.") in ({home} if home != gone else set(three) - {gone})
