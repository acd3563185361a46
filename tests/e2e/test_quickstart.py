"""The main job: ``llmlaunch up examples/quickstart.yaml`` serves a real model to real clients, and leaves nothing behind."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.support.deployment import Cli, cli
from tests.support.ports import free_port
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Cli, str]]:
    """The models of examples/replicas-and-embeddings.yaml, running detached; the endpoint's base URL."""
    with cli() as box:
        manifest = (ROOT / "examples" / "replicas-and-embeddings.yaml").read_text()
        (box.cwd / "deploy.yaml").write_text(manifest)
        box.ok("up", "-d", "deploy.yaml", timeout_s=180)
        yield box, box.status()["api"]["url"]
        box.ok("down")


def client(url: str, **kwargs: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, **kwargs)


def test_a_real_model_answers_a_real_client(served: tuple[Cli, str]) -> None:
    _, url = served
    answer = client(url).chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": "Name the capital of France."}],
        max_tokens=20,
        temperature=0,
    )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.model == "smollm2"
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_streams_with_usage(served: tuple[Cli, str]) -> None:
    _, url = served
    chunks = list(
        client(url).chat.completions.create(
            model="smollm2",
            messages=[{"role": "user", "content": "Name the capital of France."}],
            max_tokens=20,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert "Paris" in text
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens > 0


def test_the_same_seed_answers_the_same_twice(served: tuple[Cli, str]) -> None:
    _, url = served

    def once() -> str:
        answer = client(url).chat.completions.create(
            model="smollm2",
            messages=[{"role": "user", "content": "Tell me a story."}],
            max_tokens=24,
            temperature=1.0,
            seed=7,
        )
        return answer.choices[0].message.content or ""

    assert once() == once()


def test_embeddings_beside_a_chat_model(served: tuple[Cli, str]) -> None:
    _, url = served
    answer = client(url).embeddings.create(
        model="all-minilm-l6-v2", input=["a cat", "a kitten", "a steam engine"]
    )
    a, b, c = (item.embedding for item in answer.data)

    def dot(x: list[float], y: list[float]) -> float:
        return sum(p * q for p, q in zip(x, y, strict=True))

    assert len(a) == 384
    assert dot(a, a) == pytest.approx(1.0, abs=1e-3)
    assert dot(a, b) > dot(a, c) + 0.2


def test_models_lists_every_name(served: tuple[Cli, str]) -> None:
    _, url = served
    assert {m.id for m in client(url).models.list()} == {"smollm2", "all-minilm-l6-v2"}
    assert client(url).models.retrieve("smollm2").id == "smollm2"


def test_an_unknown_model_is_404(served: tuple[Cli, str]) -> None:
    _, url = served
    with pytest.raises(openai.NotFoundError) as caught:
        client(url).chat.completions.create(model="nobody", messages=[{"role": "user", "content": "Hi"}])
    assert caught.value.code == "model_not_found"


def test_status_tells_all(served: tuple[Cli, str]) -> None:
    box, _ = served
    report = box.status()
    phases = {c["name"]: c["phase"] for c in report["components"]}
    assert set(phases.values()) == {"ready"}
    assert sorted(c["component"] for c in report["components"]) == [
        "api",
        "controller",
        "worker",
        "worker",
        "worker",
    ]
    addresses = [c["address"] for c in report["components"]]
    assert len(set(addresses)) == len(addresses)


def test_a_workers_own_port_tells_strangers_how_it_is_and_no_more(served: tuple[Cli, str]) -> None:
    box, _ = served
    address = box.component("smollm2-1")["address"]
    for path, status in (("/health", 200), ("/ready", 200), ("/metrics", 200), ("/v1/models", 401)):
        assert httpx.get(address + path, trust_env=False).status_code == status
    body = {"model": "smollm2", "messages": [{"role": "user", "content": "Hi"}]}
    assert httpx.post(address + "/v1/chat/completions", json=body, trust_env=False).status_code == 401


def test_the_message_verb_and_the_chat_verb(served: tuple[Cli, str]) -> None:
    box, _ = served
    assert box.ok("test", "smollm2").strip()
    assert box.run("test", "nobody").returncode == 1
    assert "Paris" in box.ok(
        "chat", "smollm2", "--temperature", "0", stdin="Name the capital of France.\n/exit\n"
    )


def test_a_killed_worker_comes_back_and_its_twin_answers_meanwhile(served: tuple[Cli, str]) -> None:
    box, url = served
    before = box.component("smollm2-1")
    subprocess.run(["kill", "-KILL", str(before["pid"])], check=True)
    for _ in range(3):
        answer = client(url).chat.completions.create(
            model="smollm2", messages=[{"role": "user", "content": "Hi"}], max_tokens=1
        )
        assert answer.choices
    after = wait_until(
        lambda: (c := box.component("smollm2-1"))["phase"] == "ready" and c["pid"] != before["pid"] and c,
        60,
        "the worker is back",
        every_s=0.3,
    )
    assert after["restarts"] == before["restarts"] + 1


def test_quickstart_in_the_foreground_ends_with_ctrl_c() -> None:
    """What ``make up`` does: the summary's own curl line answers, and Ctrl-C leaves no process and no port."""
    if shutil.which("curl") is None:
        pytest.skip("the summary's line is a curl command, and curl is not on the PATH")
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^up: venv( ##.*)?\n\t\$\(BIN\)/llmlaunch up examples/quickstart.yaml$", makefile, re.M)
    with cli() as box:
        port = free_port()
        text = (ROOT / "examples" / "quickstart.yaml").read_text()
        (box.cwd / "quickstart.yaml").write_text(text + f"\napi: {{port: {port}}}\n")
        process = box.start("up", "quickstart.yaml")
        assert process.stdout
        seen = ""
        for line in process.stdout:
            seen += line
            if "curl" in line:
                break
        assert "curl" in seen, seen
        command = next(line[line.index("curl") :].strip() for line in seen.splitlines() if "curl" in line)
        while command.endswith("\\"):
            command = command[:-1] + process.stdout.readline().strip()
        answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
        body = json.loads(answer.stdout)
        assert body["choices"][0]["message"]["content"], answer.stdout + answer.stderr
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == 130, stderr
        assert not box.processes()
