"""Faults of FastChat's launcher, a test each: the name says what FastChat did, the body what happens here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from tests.integration.cli.support import FAILS, NO_PATIENCE, Fake, ask, gone, write
from tests.support import deployment
from tests.support.deployment import Cli
from tests.support.nvml import MockNvml
from tests.support.ports import free_port
from tests.support.waiting import wait_until

TWO_GPUS = """\
sys driver=580.95.05 cuda=13000 procdir={procdir}
gpu name="NVIDIA L4" uuid=GPU-11111111-2222-3333-4444-000000000000 total=23034 reserved=450 bus=0000:01:00.0
gpu name="NVIDIA L4" uuid=GPU-11111111-2222-3333-4444-000000000001 total=23034 reserved=450 {second} bus=0000:02:00.0
"""


@pytest.fixture
def cli() -> Iterator[Cli]:
    with deployment.cli() as box:
        yield box


@pytest.fixture
def gpus(cli: Cli, mock_nvml: MockNvml, monkeypatch: pytest.MonkeyPatch) -> MockNvml:
    """Two L4 that nobody uses."""
    mock_nvml.write(TWO_GPUS.format(procdir=mock_nvml.procdir(), second=""))
    monkeypatch.delenv(
        "CUDA_VISIBLE_DEVICES", raising=False
    )  # a mask of the machine would hide the mock's GPUs
    cli.env |= mock_nvml.env
    return mock_nvml


def ask_for(url: str, model: str, key: str = "") -> int:
    """The status that the endpoint answers a small chat with ``model`` with."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    body = {"model": model, "messages": [{"role": "user", "content": model}]}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=20, trust_env=False)
    return answer.status_code


def test_a_workers_address_does_not_follow_its_port(cli: Cli) -> None:
    one, two = Fake("one"), Fake("two")
    write(cli, one, two)
    cli.ok("up", "-d")
    status = cli.status()
    addresses = {c["name"]: c["address"] for c in status["components"]}
    assert addresses["one-1"] == f"http://127.0.0.1:{one.port}"
    assert addresses["two-1"] == f"http://127.0.0.1:{two.port}"
    listed = [model["id"] for model in ask(status["api"]["url"] + "/v1/models")["data"]]
    assert sorted(listed) == ["one", "two"]
    for name in ("one", "two"):
        assert ask_for(status["api"]["url"], name) == 200
        # Each engine has seen the request for its own model, and no other.
        seen = ask(addresses[f"{name}-1"] + "/seen")
        assert (seen["last"]["model"], seen["requests"]) == (name, 1)


def test_one_gpu_mask_for_all_workers_and_too_late(cli: Cli, gpus: MockNvml) -> None:
    first = Fake("first", more={"gpus": [0], "vram": "4GiB"})
    second = Fake("second", more={"gpus": [1], "vram": "4GiB"})
    plain = Fake("plain", more={"gpus": "cpu"})
    write(cli, first, second, plain)
    cli.ok("up", "-d")
    masks = {}
    for name in ("first", "second", "plain"):
        # From the kernel: the environment that the process was started with, before it could import anything.
        pid = ask(cli.component(f"{name}-1")["address"] + "/seen")["pid"]
        environment = psutil.Process(pid).environ()
        masks[name] = environment["CUDA_VISIBLE_DEVICES"]
        assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert masks["plain"] == ""
    assert masks["first"] in ("0", "GPU-11111111-2222-3333-4444-000000000000")
    assert masks["second"] in ("1", "GPU-11111111-2222-3333-4444-000000000001")


def test_a_bad_model_path_waits_for_ever(cli: Cli) -> None:
    (cli.cwd / "deploy.yaml").write_text("models:\n  - /nowhere/vicuna-7b\n")
    done = cli.run("up", "-d", timeout_s=60)
    assert done.returncode == 1
    assert "/nowhere/vicuna-7b" in done.stderr
    assert cli.processes() == []


def test_a_flag_error_waits_for_ever(cli: Cli) -> None:
    cli.env |= NO_PATIENCE
    write(cli, Fake("tiny", ["--no-such-flag"]))
    done = cli.run("up", "-d", timeout_s=60)
    assert done.returncode == 1
    assert "unrecognized arguments: --no-such-flag" in done.stderr


def test_several_model_names_and_keys_break_the_child(cli: Cli) -> None:
    keys = cli.cwd / "keys.txt"
    keys.write_text("sk-first\nother: sk-second\n")
    write(
        cli,
        Fake("tiny", more={"names": ["tiny", "gpt 3.5 turbo", "--help"]}),
        api={"port": free_port(), "api_keys_file": "keys.txt"},
    )
    cli.ok("up", "-d")
    url = cli.status()["api"]["url"]
    for name in ("tiny", "gpt 3.5 turbo", "--help"):
        assert ask_for(url, name, "sk-first") == ask_for(url, name, "sk-second") == 200
    assert ask_for(url, "tiny") == 401


def test_shutdown_kills_itself_and_whoever_mentions_the_string(cli: Cli) -> None:
    """FastChat: ``ps | grep | kill -9``, and exit 1 when nothing runs."""
    program = "import sys; sys.stdin.read()"
    words = ["llmlaunch", "controller", "worker", "api", "fake_engine.py", "fastchat.serve.controller"]
    bystander = subprocess.Popen([sys.executable, "-c", program, *words], stdin=subprocess.PIPE)
    try:
        write(cli, Fake("tiny"))
        cli.ok("up", "-d")
        cli.ok("down")
        assert cli.processes() == []
        assert bystander.poll() is None
        assert cli.run("down").returncode == 0
    finally:
        bystander.kill()
        bystander.communicate()


def test_no_pids_are_kept(cli: Cli) -> None:
    write(cli, Fake("tiny", ["--spawn-grandchild", "--own-session"], more={"stop_grace": 1}))
    cli.ok("up", "-d")
    status = cli.status()
    pids = [status["supervisor"]["pid"], *(c["pid"] for c in status["components"])]
    assert all(psutil.pid_exists(pid) for pid in pids)
    cli.ok("down")
    wait_until(gone(cli), 5, "every process, the grandchild in its own session too")


def test_other_processes_on_the_gpu_are_invisible(cli: Cli, gpus: MockNvml) -> None:
    """FastChat: free memory is total minus its own allocation."""
    gpus.write(TWO_GPUS.format(procdir=gpus.procdir(), second="used=20000"))
    write(cli, Fake("big", more={"gpus": [1], "vram": "16GiB"}))
    done = cli.run("up", "-d")
    assert done.returncode == 1
    assert "16.0 GiB" in done.stderr
    assert cli.processes() == []
    write(cli, Fake("big", more={"vram": "16GiB"}))
    made = json.loads(cli.ok("plan", "--json"))
    worker: dict[str, Any] = next(p for p in made["processes"] if p["component"] == "worker")
    assert worker["gpus"] == ["GPU-11111111-2222-3333-4444-000000000000"]


def test_exit_codes_say_0_with_no_model_reachable(cli: Cli) -> None:
    cli.env |= NO_PATIENCE
    write(cli, Fake("tiny", FAILS))
    assert cli.run("up", "-d").returncode == 1
    done = cli.run("test", "tiny")
    assert done.returncode == 1
    assert "503" in done.stderr
    cli.ok("down")
    assert cli.run("test", "tiny").returncode == 3
