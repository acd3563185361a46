"""``llmlaunch api`` as a process: keys, signals, wrong command lines."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.gateway.fakes import (
    Bench,
    Client,
    FakeController,
    GatewayProcess,
    Seen,
    Talk,
    ask,
    chat,
    metric,
    running,
)  # fmt: skip
from tests.support.ports import free_port
from tests.support.waiting import wait_until


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_api_keys_guard_everything_but_health_and_are_reloaded(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# ours\nalice: sk-alice\nsk-bare\n")
    keys.chmod(0o600)
    with running("--api-keys-file", str(keys), "--api-keys-env", "EXTRA_KEYS",
                 env={"EXTRA_KEYS": "sk-env-1,sk-env-2"}, token="t") as bench:  # fmt: skip
        # The token of the deployment is not set: the controller refuses, and the gateway says why.
        wait_until(lambda: "401" in bench.gateway.log)
        for path in ("/v1/models", "/v1/models/m", "//models/", "/v1/nothing", "/api/nothing"):
            assert ask(bench.port, "GET", path).status == 401, path
        for path in (
            "/v1/chat/completions",
            "/api/v1/chat/completions",
            "/v1/engines/m/embeddings",
            "/chat/completions",
            "//v1/embeddings",
            "/openai/v1/completions/",
            "/tokenize",
        ):
            refused = ask(bench.port, "POST", path, {"model": "m"})
            assert (refused.status, refused.error["code"]) == (401, "invalid_api_key"), path
            assert refused.headers["www-authenticate"] == "Bearer"
        for key in ("sk-alice", "sk-bare", "sk-env-1", "sk-env-2"):
            assert ask(bench.port, "GET", "/v1/models", headers=bearer(key)).status == 200, key
        for wrong in ("sk-alic", "sk-alicee", "alice", "", "sk-env-1,sk-env-2"):
            assert ask(bench.port, "GET", "/v1/models", headers=bearer(wrong)).status == 401, wrong
        assert ask(bench.port, "GET", "/v1/models", headers={"Authorization": "sk-alice"}).status == 401
        for given, expected in (
            ({"x-api-key": "sk-alice"}, 200), ({"api-key": "sk-alice"}, 200), ({"x-api-key": "sk-alicee"}, 401),
            ({"x-api-key": "sk-alice", **bearer("sk-wrong")}, 401), ({"x-api-key": "sk-wrong", **bearer("sk-alice")}, 200),
            ({"x-api-key": "sk-alice", "Authorization": "Basic YTpi"}, 200), ({"x-api-key": "sk-wrong", "api-key": "sk-alice"}, 401),
        ):  # fmt: skip
            assert ask(bench.port, "GET", "/v1/models", headers=given).status == expected, given
        assert ask(bench.port, "GET", "/health").status in (200, 503)
        assert ask(bench.port, "GET", "/metrics").status == 200
        keys.write_text("bob: sk-bob\n")
        wait_until(lambda: ask(bench.port, "GET", "/v1/models", headers=bearer("sk-bob")).status == 200)
        assert ask(bench.port, "GET", "/v1/models", headers=bearer("sk-alice")).status == 401
        assert ask(bench.port, "GET", "/v1/models", headers=bearer("sk-env-1")).status == 200
        bench.gateway.stop()
        assert "sk-" not in bench.gateway.log


def test_the_token_reaches_the_controller_and_nobody_else() -> None:
    with running(env={"LLMLAUNCH_TOKEN": "deploy-token"}, token="deploy-token") as bench:
        worker = bench.worker()
        bench.serve(worker.replica("m"))
        assert chat(bench.port, "m").status == 200
        assert b"deploy-token" not in worker.seen[0].head
        bench.gateway.stop()
        assert "deploy-token" not in bench.gateway.log


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_lets_requests_in_flight_finish(number: int, code: int) -> None:
    ready: list[bool] = []

    def behave(talk: Talk, seen: Seen) -> None:
        talk.start_stream()
        talk.event({"n": 1})
        wait_until(lambda: ready)
        talk.end_stream()

    with running() as bench:
        worker = bench.worker(behave)
        bench.serve(worker.replica("m"))
        with Client(bench.port) as busy, Client(bench.port) as idle:
            busy.post({"model": "m", "stream": True})
            busy.head()
            assert b"data" in busy.chunk()
            bench.gateway.process.send_signal(number)
            assert idle.closed()
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(("127.0.0.1", bench.port), 5).close()
            ready.append(True)
            assert busy.chunk() == b"data: [DONE]\n\n"
            assert busy.chunk() == b""
            assert busy.closed()
        assert bench.gateway.finish() == code
        assert "Traceback" not in bench.gateway.log


def test_a_second_signal_ends_at_once() -> None:
    def behave(talk: Talk, seen: Seen) -> None:
        talk.wait_for_peer_to_leave(30)

    with running() as bench:
        worker = bench.worker(behave)
        bench.serve(worker.replica("m"))
        with Client(bench.port) as client:
            client.post({"model": "m"})
            wait_until(lambda: worker.seen)
            bench.gateway.process.send_signal(signal.SIGINT)
            wait_until(lambda: "stopping" in bench.gateway.log)
            bench.gateway.process.send_signal(signal.SIGINT)
            assert bench.gateway.finish() == -signal.SIGINT
            wait_until(lambda: worker.left)


def run_api(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llmlaunch", "api", *options], capture_output=True, text=True, timeout=30, check=False
    )  # fmt: skip


def test_wrong_command_lines_are_one_message(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("# nothing\n")
    spaced = tmp_path / "spaced"
    spaced.write_text("ok-key\nmy secret key\n")
    for options, expected, code in (
        (["--controller-address", "nonsense"], "http://host:port", 2),
        (["--controller-address", "http://x:99999"], "http://host:port", 2),
        (["--api-keys-file", str(tmp_path / "missing")], "No such file", 2),
        (["--api-keys-file", str(empty)], "contains no keys", 2),
        (["--api-keys-file", str(spaced)], f"{spaced}:2", 2),
        (["--api-keys-env", "SURELY_NOT_SET_HERE"], "SURELY_NOT_SET_HERE", 2),
        (["--log-level", "loud"], "loud", 2),
        (["--host", "no.such.host.invalid"], "no.such.host.invalid", 2),
    ):
        done = run_api("--port", "0", *options)
        assert done.returncode == code, (options, done.stderr)
        assert expected in done.stderr
        assert "Traceback" not in done.stderr
        assert "secret" not in done.stderr


def test_a_taken_port_is_named_with_its_holder() -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        done = run_api("--port", str(port))
    assert done.returncode == 1
    assert f"port {port}" in done.stderr
    assert "pid" in done.stderr


def test_nothing_heavy_is_imported() -> None:
    script = (
        "import sys, llmlaunch.gateway.server\n"
        "heavy = {'fastapi', 'starlette', 'pydantic', 'httpx', 'uvicorn', 'torch', 'psutil', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr


def test_ipv6_and_a_named_controller() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        port = free_port("::1")
    except AssertionError:
        pytest.skip("no IPv6 here")
    controller = FakeController()
    gateway = GatewayProcess(
        controller.url.replace("127.0.0.1", "localhost"), "--host", "::1", "--port", str(port)
    )
    try:
        gateway.until_up()
        with socket.create_connection(("::1", port), 5) as sock:
            sock.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 ")
    finally:
        assert gateway.stop() == 0
        controller.close()


def test_metrics_are_well_formed(bench: Bench) -> None:
    bench.serve(bench.worker().replica('odd"name\\'))
    chat(bench.port, 'odd"name\\')
    page = ask(bench.port, "GET", "/metrics").body.decode()
    assert 'model="odd\\"name\\\\"' in page
    families = [line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
    assert metric(page, "requests_total") > 0


def test_after_the_grace_clients_are_told_not_cut(bench: Bench) -> None:
    """A stream ends in an error event, a request without an answer in a 503; the exit code stays 0."""
    port = free_port()
    script = (
        "import sys\n"
        "from llmlaunch.gateway import server\n"
        "from llmlaunch.http_server import bind, configure_logging\n"
        "configure_logging('info')\n"
        f"service = server.GatewayService({bench.controller.url!r}, grace_s=0.2)\n"
        f"sys.exit(server.run(service, bind('127.0.0.1', {port})))"
    )

    def behave(talk: Talk, seen: Seen) -> None:
        if seen.json.get("stream"):
            talk.start_stream()
            talk.event({"n": 1})
        talk.wait_for_peer_to_leave()

    worker = bench.worker(behave)
    bench.serve(worker.replica("m"))
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: _serves(port))
        with Client(port) as stream, Client(port) as silent:
            stream.post({"model": "m", "stream": True})
            silent.post({"model": "m"})
            stream.head()
            stream.chunk()
            wait_until(lambda: len(worker.seen) == 2)
            process.terminate()
            assert b"shutting down" in stream.to_the_end()
            answer = silent.answer()
            assert (answer.status, answer.error["code"]) == (503, "stopping")
        _, log = process.communicate(timeout=10)
        assert process.returncode == 0
        assert "Traceback" not in log
        wait_until(lambda: len(worker.left) == 2)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def _serves(port: int) -> bool:
    try:
        return bool(ask(port, "GET", "/v1/models").json["data"])
    except OSError:
        return False
