"""One worker's life: it starts without a controller, says how far it is, ends as it is told, fails with one message."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.worker.server import Worker, started
from tests.support.ports import free_port
from tests.support.waiting import wait_until
from tests.unit.worker import tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that never ends by itself: its end token is not in its vocabulary's reach."""
    return tiny.save(tiny.fresh("Llama", vocab_size=259), tmp_path_factory.mktemp("tiny"))


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-m", "llmlaunch", "worker", *arguments],
        capture_output=True, text=True, timeout=60, env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment,
    )  # fmt: skip


@contextlib.contextmanager
def controller(port: int) -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-m", "llmlaunch", "controller", "--port", str(port)])
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: answers(url + "/health"), 20, "the controller answers")
        yield url
    finally:
        process.kill()
        process.wait(10)


def answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url, trust_env=False).status_code == 200
    return False


def models(url: str) -> list[str]:
    found: list[str] = httpx.post(url + "/list_models", trust_env=False).json()["models"]
    return found


def test_it_needs_no_controller_registers_when_one_comes_and_survives_its_restart(model: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with started(str(model), "--model-names", "tiny", "--controller-address", url, ready=False) as worker:
        wait_until(lambda: answers(worker.url + "/health"), 30, "it answers")
        wait_until(lambda: worker.get("/health").json()["status"] == "ok", 60, "it is loaded")
        assert worker.get("/ready").status_code == 503
        assert worker.get("/health").json()["registered"] is False
        assert worker.chat(max_tokens=2).status_code == 200
        for _ in range(2):
            with controller(port):
                wait_until(lambda: models(url) == ["tiny"], 20, "it is registered")
                worker.wait_ready()
                address = httpx.post(
                    url + "/get_worker_address", json={"model": "tiny"}, trust_env=False
                ).json()
                assert address == {"address": worker.url}
                (route,) = httpx.get(url + "/routes", trust_env=False).json()["replicas"]
                (listed,) = worker.get("/v1/models").json()["data"]
                assert (route["kind"], route["max_model_len"]) == ("generate", listed["max_model_len"])
            assert worker.chat(max_tokens=2).status_code == 200
            assert worker.get("/ready").status_code == 200
        wait_until(lambda: worker.get("/health").json()["registered"] is False, 20, "the loss is noticed")
        with controller(port):
            wait_until(lambda: models(url) == ["tiny"], 20, "it is registered again")
            assert worker.end() == 0
            assert models(url) == []


def test_while_it_loads_it_answers_and_says_how_far_it_is(model: Path) -> None:
    with started(str(model), "--model-names", "tiny", ready=False) as worker:
        wait_until(lambda: answers(worker.url + "/health"), 30, "it answers")
        seen = []

        def loaded() -> bool:
            health = worker.get("/health").json()
            if health["status"] == "loading":
                seen.append(health["progress"])
                assert worker.get("/ready").status_code in (200, 503)
                early = worker.chat()
                assert early.status_code in (200, 503)
                if early.status_code == 503:
                    assert early.json()["error"]["code"] == "loading"
                    assert early.headers["retry-after"]
            return bool(health["status"] == "ok")

        wait_until(loaded, 60, "it is loaded")
        assert seen
        assert set(seen[0]) == {"done_bytes", "total_bytes", "text"}
        assert "loading weights" in worker.log.read_text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_at_the_end_running_requests_finish_and_new_ones_are_refused(
    model: Path, number: signal.Signals, code: int
) -> None:
    with started(str(model), "--model-names", "tiny") as worker:
        texts: list[str] = []
        begun = threading.Event()

        def read() -> None:
            body = {"model": "tiny", "prompt": "abc", "max_tokens": 200, "stream": True, "ignore_eos": True}
            with worker.client() as client, client.stream("POST", "/v1/completions", json=body) as response:
                for line in response.iter_lines():
                    begun.set()
                    texts.append(line)

        reader = threading.Thread(target=read)
        reader.start()
        assert begun.wait(30)
        worker.process.send_signal(number)
        refused = 0
        with contextlib.suppress(httpx.TransportError):
            while worker.process.poll() is None:
                response = worker.chat()
                if response.status_code == 503:
                    assert worker.get("/ready").status_code == 503
                    refused += 1
        assert worker.process.wait(30) == code
        reader.join(10)
        assert refused
        assert [line for line in texts if line][-1] == "data: [DONE]"
        assert json.loads([line for line in texts if line][-2][6:])["choices"][0]["finish_reason"] == "length"
        assert "Traceback" not in worker.log.read_text()


def test_the_grace_ends_what_does_not_end(model: Path) -> None:
    with started(str(model), "--model-names", "tiny", "--stop-grace", "0.2") as worker:
        with worker.client() as client:
            body = {
                "model": "tiny",
                "prompt": "abc",
                "max_tokens": 250,
                "stream": True,
                "n": 60,
                "ignore_eos": True,
            }
            with client.stream("POST", "/v1/completions", json=body) as response:
                next(response.iter_bytes())
                assert worker.end() == 0
        assert "Traceback" not in worker.log.read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--model-path", "/nowhere/model"), 2, "/nowhere/model"),
        (("--model-path", "package://no_such_package"), 2, "no_such_package"),
        (("--model-path", "nobody/no-such-model"), 2, "nobody/no-such-model"),
        (("--model-path", "{model}", "--device", "cuda"), 2, "cuda"),
        (("--model-path", "{model}", "--device", "gpu"), 2, "--device"),
        (("--model-path", "{model}", "--dtype", "int3"), 2, "--dtype"),
        (("--model-path", "{model}", "--model-names", "a,,b"), 2, "empty name"),
        (("--model-path", "{model}", "--model-names", "a,a"), 2, "twice"),
        (("--model-path", "{model}", "--controller-address", "localhost:21001"), 2, "URL"),
        (("--model-path", "{model}", "--no-such-flag"), 2, "no-such-flag"),
        (("--model-path", "{model}", "--source", "floppy"), 2, "--source"),
        (("--model-path", "{model}", "--max-gpu-memory", "lots"), 2, "--max-gpu-memory"),
        (("--model-path", "{model}", "--device", "cpu", "--cpu-offload"), 2, "runs on the CPU"),
        (("--model-path", "{broken}"), 2, "config.json"),
        (("--model-path", "{strange}"), 2, "no_such_type"),
        (("--model-path", "{gguf}"), 2, "gguf"),
    ],
)  # fmt: skip
def test_what_no_retry_can_mend_is_one_message_and_exit_code_2(
    model: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    (tmp_path / "strange").mkdir()
    strange = {"architectures": ["NoSuchArchitecture"], "model_type": "no_such_type"}
    (tmp_path / "strange" / "config.json").write_text(json.dumps(strange))
    (tmp_path / "strange" / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    (tmp_path / "x.gguf").write_bytes(b"not a gguf file")
    places = {
        "model": str(model), "broken": str(tmp_path / "broken"), "strange": str(tmp_path / "strange"),
        "gguf": str(tmp_path / "x.gguf"),
    }  # fmt: skip
    done = run("--port", str(free_port()), *(argument.format(**places) for argument in arguments))
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "SIGTERM" not in done.stderr, "nobody sent one"


def test_a_taken_port_is_told_with_its_holder_before_anything_is_loaded(model: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("--model-path", str(model), "--port", str(port))
    assert done.returncode == 1
    assert f"port {port} is taken by" in done.stderr
    assert "loading" not in done.stderr


def test_prepare_ends_when_everything_is_there(model: Path) -> None:
    done = run("--prepare", "--model-path", str(model))
    assert done.returncode == 0
    assert str(model) in done.stdout


def worker_of(model: Path, *arguments: str) -> contextlib.AbstractContextManager[Worker]:
    return started(str(model), "--model-names", "tiny", *arguments)


def test_beyond_its_queue_it_says_so(model: Path) -> None:
    with worker_of(model, "--limit-worker-concurrency", "1", "--max-queue", "1") as worker:
        body = {"model": "tiny", "prompt": "abc", "max_tokens": 40, "ignore_eos": True}
        refused = worker.post("/v1/completions", **body, n=3)
        assert refused.status_code == 429
        assert refused.headers["retry-after"]
        assert refused.json()["error"]["code"] == "queue_full"
        assert worker.idle()
        assert worker.post("/v1/completions", **body, n=2).status_code == 200
