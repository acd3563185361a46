"""A server that is slow to say that it is well, one that is busy, and one that hangs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.supervision.world import QUICK, World, component, engine, get, post, until_phase, world
from tests.support.waiting import wait_until

POLICY = QUICK | {"start_probe_timeout_s": 10.0, "busy_limit_s": 3.0}


@pytest.fixture
def lab(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("LLMLAUNCH_SUPERVISION", json.dumps(POLICY))
    with world(home) as box:
        yield box


def test_a_server_that_is_slow_to_answer_its_probe_becomes_ready_and_stays_so(lab: World) -> None:
    slow = engine("slow", "--health-delay", "0.5", probe_timeout_s=5.0)
    client = lab.up(slow)
    until_phase(client, "slow", "ready")
    wait_until(lambda: get(slow, "/seen")["probes"] >= 3, 10)
    assert component(client, "slow").incarnation == 1


def test_a_start_that_is_given_up_says_what_its_probe_came_to(
    lab: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMLAUNCH_SUPERVISION", json.dumps(POLICY | {"start_probe_timeout_s": 0.1}))
    client = lab.up(engine("slow", "--health-delay", "60", start_timeout_s=1.0, restart_max=1))
    cause = until_phase(client, "slow", "failed").cause
    assert cause.startswith("not ready, and no progress for 1 s; last progress: ")
    assert cause.endswith(
        "; last probe of /health: no answer within 0.4 s; raise `probe_timeout:` to allow more"
    )


def test_a_busy_server_is_left_alone_and_one_that_never_comes_back_is_not(lab: World) -> None:
    busy = engine("busy")
    client = lab.up(busy)
    until_phase(client, "busy", "ready")
    before = get(busy, "/seen")["probes"]
    post(busy, "/spin", {"seconds": 2.0})
    wait_until(lambda: get(busy, "/seen")["probes"] > before + 6, 15, "its probes are answered again")
    assert component(client, "busy").incarnation == 1, "six probes in a row would have been too many"
    post(busy, "/spin", {"seconds": 3600})
    wait_until(lambda: component(client, "busy").incarnation == 2, 15)
    last = until_phase(client, "busy", "ready").last
    assert last is not None
    assert last.why == "unhealthy"
    assert last.text.startswith("unhealthy: busy, but no probe of /health has been answered for ")


def test_a_server_without_a_probe_lives_as_long_as_its_process(lab: World) -> None:
    mute = engine("mute", ready_path="", live_path="")
    client = lab.up(mute)
    until_phase(client, "mute", "ready")
    post(mute, "/hang")
    ill = engine("ill")
    lab.clients["lab"].apply(lab.plan(mute, ill))
    until_phase(client, "ill", "ready")
    post(ill, "/hang")
    wait_until(lambda: component(client, "ill").incarnation == 2, 15, "one that is asked is restarted")
    assert (component(client, "mute").phase, component(client, "mute").incarnation) == ("ready", 1)


def test_how_a_server_is_probed_changes_without_a_restart(lab: World) -> None:
    tiny = engine("tiny")
    client = lab.up(tiny)
    pid = until_phase(client, "tiny", "ready").pid
    post(tiny, "/hang")
    result = client.apply(lab.plan(engine("tiny", port=tiny.port, live_path="")))
    assert result.unchanged == ("tiny",)
    other = engine("other")
    client.apply(lab.plan(engine("tiny", port=tiny.port, live_path=""), other))
    until_phase(client, "other", "ready")
    wait_until(lambda: get(other, "/seen")["probes"] >= 10, 15, "time for many probes")
    assert component(client, "tiny").pid == pid
