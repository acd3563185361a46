"""``api: {processes: 2}`` under the supervisor: one component, whatever happens to its processes."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import psutil

from tests.integration.cli.support import Fake, write
from tests.support import deployment
from tests.support.deployment import Cli
from tests.support.ports import free_port
from tests.support.waiting import wait_until


def component(cli: Cli, name: str) -> dict[str, Any]:
    return dict(next(c for c in cli.status()["components"] if c["name"] == name))


def chats(port: int) -> bool:
    body = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bool(json.load(answer)["choices"])
    except OSError:
        return False


def test_one_component_of_several_processes() -> None:
    with deployment.cli() as cli:
        port = free_port()
        write(cli, Fake("tiny"), api={"port": port, "processes": 2})
        cli.ok("up", "-d")
        assert [c["name"] for c in cli.status()["components"]] == ["controller", "tiny-1", "api"]
        before = component(cli, "api")
        parent = psutil.Process(before["pid"])
        children = parent.children()
        assert len(children) == 2
        assert all(chats(port) for _ in range(8))

        children[0].kill()
        wait_until(lambda: len(parent.children()) == 2 and children[0] not in parent.children())
        assert all(chats(port) for _ in range(8))
        assert (component(cli, "api")["pid"], component(cli, "api")["phase"]) == (before["pid"], "ready")

        children = parent.children()
        parent.kill()
        assert not psutil.wait_procs(children, timeout=10)[1]
        wait_until(lambda: component(cli, "api")["pid"] not in (None, before["pid"]), 30)
        wait_until(lambda: component(cli, "api")["phase"] == "ready", 30)
        assert all(chats(port) for _ in range(8))

        parent = psutil.Process(component(cli, "api")["pid"])
        tree = [parent, *parent.children()]
        assert len(tree) == 3
        cli.ok("down")
        assert not any(process.is_running() for process in tree)
        assert "Traceback" not in cli.ok("logs", "api")
