"""What the supervisor answers when it cannot answer."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from starlette.testclient import TestClient

from llmlaunch.supervision import api


class Host:
    """A daemon of which nothing can be told, and that can be told to end."""

    def __init__(self) -> None:
        self.stopped: list[bool] = []

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("boom")

    def stop(self, force: bool = False) -> None:
        self.stopped.append(force)


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def client(host: Host) -> TestClient:
    return TestClient(api.build(host), raise_server_exceptions=False)


def test_a_path_may_hold_any_byte() -> None:
    path = os.fsdecode(b"/srv/m\xd0\xcd/deploy.yaml")
    assert json.loads(bytes(api.JsonResponse({"manifest": path}).body)) == {"manifest": path}


def test_a_fault_of_ours_is_told_in_words(client: TestClient) -> None:
    answer = client.get("/status")
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert error["code"] == "internal"
    assert error["message"] == "GET /status failed in the supervisor: RuntimeError: boom"


def test_whatever_is_wrong_it_can_be_taken_down(client: TestClient, host: Host) -> None:
    assert client.post("/shutdown", json={"force": True}).status_code == 200
    assert host.stopped == [True]


@pytest.mark.parametrize("given", [1, [], {"A": 1}, {"A": "b\0c"}, {"A=B": "c"}, {"": "c"}])
def test_an_environment_that_no_process_could_have_is_refused_without_its_values(given: object) -> None:
    with pytest.raises(
        api.BadRequestError, match=r"^environment must (be an object|map variable names to strings)$"
    ):
        api._environment(given)


def test_an_environment_may_hold_any_byte() -> None:
    given = {"A": os.fsdecode(b"\xd0"), "B": ""}
    assert api._environment(json.loads(json.dumps(given))) == given
    assert api._environment(None) is None
