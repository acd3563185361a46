"""An engine that wants more than its own: the shell's secrets, the requests of another model, its neighbours' ports."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from llmlaunch.planning.environment import looks_secret
from tests.integration.cli.support import ENGINE, Fake, ask, write
from tests.support import deployment
from tests.support.deployment import Cli
from tests.support.model_files import llama_folder
from tests.support.waiting import wait_until

SHELL = {
    "LAB_API_KEYS": "sk-of-the-endpoint",
    "TEAM_A": "value-of-team-a",
    "TEAM_B": "value-of-team-b",
    "AWS_SECRET_ACCESS_KEY": "value-of-aws",
    "DATABASE_URL": "postgres://lab:value-of-db@db/lab",
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=value-of-otel",
    "HF_TOKEN": "hf_value",
    "MODE": "production",
}


FAKE_VLLM = """\
#!{python} -I
import os, sys
given = dict(zip(sys.argv, sys.argv[1:]))
flags = [word for flag in ("--host", "--port") for word in (flag, given[flag])]
flags += ["--names", given["--served-model-name"], "--key-variable", "VLLM_API_KEY"]
os.execv(sys.executable, [sys.executable, "-I", "-S", {engine!r}, *flags])
"""


@dataclass
class Lab:
    cli: Cli
    good: Fake
    evil: Fake
    printed: str
    """What `up` said."""

    @property
    def endpoint(self) -> str:
        return str(self.cli.status()["api"]["url"]).rstrip("/") + "/v1/chat/completions"

    def env(self, fake: Fake) -> dict[str, str]:
        return dict(ask(f"http://127.0.0.1:{fake.port}/seen")["env"])

    def address(self, component: str) -> str:
        return str(self.cli.component(component)["address"])


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Models of different teams behind one endpoint with keys, whose controller lets strangers register."""
    with deployment.cli(**SHELL) as cli:
        program = cli.home / "bin" / "vllm"
        program.parent.mkdir()
        program.write_text(FAKE_VLLM.format(python=sys.executable, engine=str(ENGINE)))
        program.chmod(0o700)
        cli.env["PATH"] = f"{program.parent}:{os.environ['PATH']}"
        model = llama_folder(cli.home / "model")
        good = Fake("good", ["--token=${TEAM_B}"], more={"env": {"CREDS": "${TEAM_A}"}})
        evil = Fake("evil", more={"env_pass": ["TEAM_*", "LAB_*"]})
        manifest = json.loads(write(cli, good, evil).read_text())
        manifest["controller"]["open_registration"] = True
        manifest["api"]["api_keys_env"] = "LAB_API_KEYS"
        manifest["models"] += [{"model": str(model), "names": ["closed"], "engine": "vllm", "gpus": "cpu"}]
        (cli.cwd / "deploy.yaml").write_text(json.dumps(manifest))
        yield Lab(cli, good, evil, cli.ok("up", "-d"))
        cli.ok("down")


def call(url: str, body: Any, token: str = "") -> tuple[int, Any]:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def asking(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "x"}]}


def test_an_engine_finds_nobody_elses_secret_in_its_environment(lab: Lab) -> None:
    env = lab.env(lab.evil)
    assert (env["MODE"], env["HF_TOKEN"]) == ("production", "hf_value")
    assert lab.env(lab.good)["CREDS"] == "value-of-team-a"
    for value in set(SHELL.values()) - {"production", "hf_value"}:
        assert value not in str(env)
    assert [name for name in env if looks_secret(name)] == ["HF_TOKEN"]
    assert "LLMLAUNCH_TOKEN" not in lab.env(lab.good)


def test_controller_and_gateway_get_no_more_than_they_need(lab: Lab) -> None:
    def environ(name: str) -> str:
        return str(psutil.Process(lab.cli.component(name)["pid"]).environ())

    api, controller = environ("api"), environ("controller")
    assert "sk-of-the-endpoint" in api
    assert "value-of-otel" in api
    for value in ("value-of-team-a", "value-of-aws", "value-of-db", "hf_value"):
        assert value not in api + controller
    assert "sk-of-the-endpoint" not in controller


def test_an_engine_cannot_take_requests_of_another_model(lab: Lab) -> None:
    controller, evil = lab.address("controller"), f"http://127.0.0.1:{lab.evil.port}"
    good = f"http://127.0.0.1:{lab.good.port}"
    status = {"model_names": ["good"], "speed": 1000.0, "queue_length": 0}
    for name in (evil, good, evil.replace("127.0.0.1", "localhost")):
        for body in ({"worker_name": name, "worker_status": status}, {"worker_name": name, "verified": True}):
            assert call(controller + "/register_worker", body)[0] in (403, 422)
    assert call(controller + "/unregister_worker", {"worker_name": good})[0] == 403
    assert call(controller + "/drain_worker", {"worker_name": good})[0] == 403
    assert call(controller + "/receive_heart_beat", {"worker_name": good, "queue_length": 999})[0] == 403
    assert call(controller + "/set_expected", {"names": []})[0] == 401
    assert call(controller + "/gateway_report", {"gateway": "g", "in_flight": {good: 999}})[0] == 401

    before = ask(good + "/seen")["requests"], ask(evil + "/seen")["requests"]
    endpoint = lab.endpoint
    for _ in range(20):
        assert call(endpoint, asking("good"), "sk-of-the-endpoint")[0] == 200
    assert (ask(good + "/seen")["requests"], ask(evil + "/seen")["requests"]) == (before[0] + 20, before[1])


def test_a_name_stays_with_the_manifest_when_the_controller_restarts(lab: Lab) -> None:
    """A stranger that knocks all the time gets it in none of the moments in which the controller knows nothing."""
    controller = lab.address("controller")
    stranger = {
        "worker_name": f"http://localhost:{lab.evil.port}",
        "worker_status": {"model_names": ["good"]},
    }
    pid = lab.cli.component("controller")["pid"]
    psutil.Process(pid).kill()
    taken = []

    def back() -> bool:
        with contextlib.suppress(OSError):
            call(controller + "/register_worker", stranger)
            taken.append(call(controller + "/get_worker_address", {"model": "good"})[1]["address"])
        return taken[-1:] == [f"http://127.0.0.1:{lab.good.port}"]

    wait_until(back, 20, "the model is served again")
    assert set(taken) <= {"", f"http://127.0.0.1:{lab.good.port}"}


def test_an_engines_port_answers_its_gateway_and_nobody_else_on_the_machine(lab: Lab) -> None:
    closed = lab.address("closed-1")
    seen = ask(closed + "/seen")["env"]
    key = seen["VLLM_API_KEY"]
    for token in ("", "sk-of-the-endpoint", seen.get("LLMLAUNCH_TOKEN", "")):
        assert call(closed + "/v1/chat/completions", asking("closed"), token)[0] == 401
    assert call(lab.endpoint, asking("closed"), "sk-of-the-endpoint")[0] == 200
    assert ask(closed + "/seen")["headers"]["authorization"] == f"Bearer {key}", "not the client's own"

    assert call(lab.endpoint, asking("good"), "sk-of-the-endpoint")[0] == 200
    assert "authorization" not in ask(f"http://127.0.0.1:{lab.good.port}/seen")["headers"]
    shown = [lab.cli.ok(*verb, "--json") for verb in (("status",), ("plan",))] + [
        lab.cli.ok("logs", "closed-1")
    ]
    files = [path.read_bytes() for path in (lab.cli.home / "state").rglob("*") if path.is_file()]
    assert not [text for text in shown if key in text]
    assert not [data for data in files if key.encode() in data]
    argv = [process.cmdline() for process in lab.cli.processes()]
    assert key not in str(argv)


def test_a_secret_in_a_command_line_is_shown_nowhere_and_said_to_be_seen_by_all(lab: Lab) -> None:
    secret = SHELL["TEAM_B"]
    assert "good: the value of ${TEAM_B} is part of its command line, which every user" in lab.printed
    shown = [
        lab.printed,
        *(lab.cli.ok(*verb) for verb in (("status", "--json"), ("plan", "--json"), ("plan",))),
    ]
    assert "--token=${TEAM_B}" in shown[2]
    assert not [text for text in shown if secret in text]
    state = lab.cli.home / "state"
    files = [p for p in state.rglob("*") if p.is_file() and not p.name.startswith("good-1.")]
    assert files
    assert not [path for path in files if secret.encode() in path.read_bytes()]
