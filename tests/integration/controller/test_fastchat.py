"""FastChat's own workers at our controller: what they send, byte for byte, and what is made of it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from llmlaunch.controller.app import Controller
from tests.integration.controller.support import TOKEN, Api, fake_worker, in_thread
from tests.support.fake_fastchat import HOST, fake_fastchat
from tests.support.waiting import wait_until

SPEED = 8
"""Times real time runs in the controllers here."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A controller with a token that lets anybody register, as a deployment with ``open_registration`` has it."""
    controller = Controller(
        token=TOKEN, open_registration=True, clock=lambda: time.monotonic() * SPEED, probe_timeout_s=1.0
    )
    with in_thread(controller) as url:
        yield url


@pytest.fixture
def api(url: str) -> Iterator[Api]:
    with Api(url, TOKEN) as api:
        yield api
        for row in api.routes()["replicas"]:
            api.ok("/unregister_worker", {"worker_name": row["worker_name"]})


def test_a_worker_registers_before_its_own_port_is_bound(api: Api) -> None:
    """It ends itself unless it gets 200; so it gets that, and its models are listed once it listens."""
    with fake_fastchat("fc", "fc-too", listens=False) as worker:
        status, answer = worker.announce(api.url)
        assert status == 200
        assert answer["registered"] is False
        assert worker.url in answer["why"]
        assert api.models() == []
        assert worker.beat(api.url) == {"exist": True}
        worker.listen()
        wait_until(lambda: api.models() == ["fc", "fc-too"])
        (row,) = api.routes()["replicas"]
        assert (row["worker_name"], row["engine"]) == (worker.url, "fastchat")


def test_one_that_listens_is_listed_at_once(api: Api) -> None:
    with fake_fastchat("fc") as worker:
        assert worker.announce(api.url) == (200, None)
        assert [row["engine"] for row in api.routes()["replicas"]] == ["fastchat"]


def test_another_worker_at_the_announced_address_is_not_listed_under_the_announced_name(api: Api) -> None:
    """Two workers with the address that FastChat gives both of them by default."""
    with fake_fastchat("second", listens=False) as announced:
        assert announced.announce(api.url)[0] == 200
        with fake_fastchat("first", port=announced.port) as first:
            wait_until(lambda: announced.beat(api.url) == {"exist": False})
            assert api.models() == []
            assert first.announce(api.url)[0] == 200
            assert announced.announce(api.url)[0] == 422
            assert api.models() == ["first"]


def test_what_announces_itself_and_never_listens_is_forgotten() -> None:
    fast = Controller(open_registration=True, clock=lambda: time.monotonic() * 10 * SPEED)
    with in_thread(fast) as url, fake_fastchat(listens=False) as worker:
        worker.announce(url)
        assert worker.beat(url) == {"exist": True}
        wait_until(lambda: worker.beat(url) == {"exist": False}, 30)


def test_only_fastchats_own_words_are_awaited(api: Api) -> None:
    with fake_fastchat(listens=False) as worker:
        assert api.register(worker.url, "fc").status_code == 422
        fields = {"check_heart_beat": True, "component": "c"}
        assert api.register(worker.url, "fc", **fields).status_code == 422


def test_a_dead_worker_is_listed_for_90_to_180_seconds(api: Api) -> None:
    """Here the controller asks it, and sees that nobody listens any more."""
    with fake_fastchat("fc") as worker:
        worker.announce(api.url)
        assert api.models() == ["fc"]
    wait_until(lambda: api.models() == [], what="the worker is gone")


def test_a_worker_that_beats_every_45_seconds_keeps_its_place(api: Api) -> None:
    """And one that is at work and answers nothing meanwhile."""
    with fake_fastchat("fc") as worker:
        worker.announce(api.url)
        worker.silent = True
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 20 / SPEED, what="the lease of other workers is over")
        assert api.models() == ["fc"]


def test_each_model_of_a_multi_model_worker_registers_alone(api: Api) -> None:
    with fake_fastchat("a", "b", listens=False) as worker:
        for names in (["a"], ["b"], ["a", "b"]):
            assert worker.announce(api.url, *names, multimodal=len(names) == 1)[0] == 200
        worker.listen()
        wait_until(lambda: api.models() == ["a", "b"])
        assert worker.announce(api.url, "a")[0] == 200
        assert api.models() == ["a", "b"]
        assert worker.announce(api.url, "a", "c")[0] == 422


def test_models_that_it_gets_and_loses_are_noticed(api: Api) -> None:
    with fake_fastchat("a") as worker:
        worker.announce(api.url)
        worker.names = ["a", "b"]
        wait_until(lambda: api.models() == ["a", "b"])


def test_a_worker_that_speaks_openais_api_is_not_taken_for_fastchats(api: Api) -> None:
    with fake_worker("m", manner="text") as worker:
        assert api.register(worker.url, "m", check_heart_beat=True).status_code == 422
        worker.manner = "ok"
        assert api.register(worker.url, "m", check_heart_beat=True).status_code == 200
        # It answers its status to every path, as no worker of FastChat's does.
        assert [row["engine"] for row in api.routes()["replicas"]] == [""]


def test_registration_reaches_any_address_ssrf(api: Api) -> None:
    """Without the token nobody is awaited, either, at an address that is not the caller's own."""
    with fake_fastchat(listens=False) as worker:
        for address in ("http://10.0.0.1:6379", "http://worker.example:21002", f"http://{HOST}.nip.io:80"):
            worker.url = address
            assert worker.announce(api.url)[0] == 403


def test_whoever_announces_itself_does_not_replace_a_worker_of_the_deployment(api: Api) -> None:
    with (
        fake_worker("m") as worker,
        fake_fastchat("fc", port=worker.server.server_address[1], listens=False) as other,
    ):
        assert api.register(worker.url, "m").status_code == 200
        assert other.announce(api.url)[0] == 403
        assert api.models() == ["m"]
