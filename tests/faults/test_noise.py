"""Thousands of wrong keys, while others at the same address have the right one."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path

import pytest

from llmlaunch.gateway.limits.failed_keys import FREE
from tests.integration.gateway.fakes import Bench, Client, ask, running
from tests.support.waiting import wait_until

NOISY, OTHER = {"x-forwarded-for": "198.51.100.7"}, {"x-forwarded-for": "203.0.113.9"}
WRONG = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer wrong\r\n\r\n"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text("alice: sk-alice\n")
    file.chmod(0o600)
    return file


def status(bench: Bench, key: str, path: str = "/v1/models", **headers: str) -> int:
    return ask(bench.port, "GET", path, headers={"Authorization": f"Bearer {key}", **headers}).status


def flood(bench: Bench, times: int) -> None:
    for _ in range(times):
        with Client(bench.port) as client, contextlib.suppress(OSError):  # it is closed on
            for _ in range(30):
                client.send(WRONG)


def test_wrong_keys_by_the_thousand_fill_no_log_and_hurt_nobody_beside_them(keys: Path) -> None:
    with running("--access-log", "--api-keys-file", str(keys)) as bench:
        bench.serve(bench.worker().replica("m"))
        noise = [threading.Thread(target=flood, args=(bench, 60)) for _ in range(4)]
        for thread in noise:
            thread.start()
        for _ in range(20):
            assert status(bench, "sk-alice") == 200
        for thread in noise:
            thread.join()
        wait_until(lambda: "wrong API keys from 127.0.0.1" in bench.gateway.log)
        assert bench.metric("wrong_keys_total") > 100
        assert bench.metric("wrong_keys_total", answer="at once") < 25
        assert bench.gateway.stop() == 0
        lines = [json.loads(line) for line in bench.gateway.output_lines]
        assert sum(line["status"] == 401 for line in lines) < 25
        assert sum(line.get("key") == "alice" for line in lines) == 20
        assert bench.gateway.log.count("\n") < 15


def test_clients_behind_a_trusted_proxy_are_told_apart(keys: Path) -> None:
    options = ("--trusted-proxy", "127.0.0.0/8", "--access-log", "--api-keys-file", str(keys))
    with running(*options) as bench:
        for _ in range(FREE + 1):
            assert status(bench, "wrong", **NOISY) == 401
        wait_until(lambda: "wrong API keys from 198.51.100.7" in bench.gateway.log)
        assert status(bench, "wrong", **OTHER) == 401
        assert bench.metric("wrong_keys_total", answer="at once") == FREE + 1
        # What a proxy passes on is not asked on this machine.
        assert ask(bench.port, "GET", "/metrics").status == 200
        assert ask(bench.port, "GET", "/metrics", headers=OTHER).status == 401
        assert bench.gateway.stop() == 0
        clients = {json.loads(line).get("client") for line in bench.gateway.output_lines}
        assert clients == {"198.51.100.7", "203.0.113.9", "127.0.0.1"}
