"""``llmlaunch controller`` as a process: how it starts and how it ends."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from llmlaunch import http_server
from llmlaunch.errors import PortTakenError
from tests.integration.controller.support import TOKEN, Api, fake_worker, process
from tests.support.ports import free_port
from tests.support.waiting import wait_until


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_at_once_whoever_still_waits(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """A gateway polls and a worker that hangs is being asked: neither delays the end, or leaves a traceback."""
    port = free_port()
    with (
        process(tmp_path, port, token=TOKEN) as controller,
        fake_worker(manner="stuck") as stuck,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        controller.wait_ready()
        api = Api(controller.url, TOKEN)
        routes = api.routes()
        polling = pool.submit(api.routes, since=routes["rev"], epoch=routes["epoch"], wait=60)
        registering = pool.submit(api.register, stuck.url)
        wait_until(lambda: stuck.asked == 1)
        assert controller.end(number) == code  # waits 20 s at most, far less than the poll's 60
        assert polling.result(5) == routes
        assert registering.exception(5) is not None or registering.result().status_code >= 400
        assert "Traceback" not in controller.text()
        assert "CRITICAL" not in controller.text()
        assert TOKEN not in controller.text()
        api.http.close()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


def test_a_taken_port_is_one_message_that_names_the_holder(tmp_path: Path) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)), process(tmp_path, port) as controller:
        assert controller.popen.wait(30) == 1
        lines = controller.text().splitlines()
        assert f"cannot listen on 127.0.0.1:{port}" in lines[0]
        assert f"pid {os.getpid()}" in lines[0]
        assert lines[1].startswith("hint:")
        assert len(lines) == 2


def test_the_local_end_of_an_outgoing_connection_takes_a_port_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.bind(("127.0.0.1", 0))
        client.connect(server.getsockname())
        port = client.getsockname()[1]
        with pytest.raises(PortTakenError, match=f"port {port} is taken by .*pid {os.getpid()}"):
            http_server.bind("127.0.0.1", port)


def test_of_two_starters_one_gets_the_port_before_either_serves() -> None:
    port = free_port()
    with http_server.bind("127.0.0.1", port), pytest.raises(PortTakenError):
        http_server.bind("127.0.0.1", port)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "no-such-host.invalid"], "host 'no-such-host.invalid' is unknown"),
        (["--host", "192.0.2.1"], "192.0.2.1 is not an address of this machine"),
        (["--host", ""], "the host is empty"),
        (["--port", "70000"], "65535"),
        (["--dispatch-method", "fastest"], "shortest_queue"),
        (["--log-level", "loud"], "debug"),
    ],
)
def test_a_wrong_command_line_ends_with_2(options: list[str], words: str) -> None:
    command = [sys.executable, "-m", "llmlaunch", "controller", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
def test_it_listens_on_ipv6(tmp_path: Path) -> None:
    port = free_port("::1")
    with process(tmp_path, port, "--host", "::1") as controller:
        controller.url = f"http://[::1]:{port}"
        controller.wait_ready()
        assert controller.end(signal.SIGTERM) == 0
        assert f"http://[::1]:{port}" in controller.text()


def test_the_dispatch_method_reaches_gateways(tmp_path: Path) -> None:
    with process(tmp_path, free_port(), "--dispatch-method", "lottery") as controller:
        controller.wait_ready()
        assert httpx.get(f"{controller.url}/routes", trust_env=False).json()["dispatch"] == "lottery"


# -- http_server.py, which the worker runs by as well ------------------------------------------------------------------------

SERVER = """
import asyncio, sys
from llmlaunch import http_server
from llmlaunch.errors import PortTakenError

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        message = await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("lifespan over", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] != "/quick":
        print("working", flush=True)
        try:
            await asyncio.sleep(float(scope["path"][1:]))
        except asyncio.CancelledError:
            print("cancelled", flush=True)
            raise
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"done"})

http_server.configure_logging("info")
sock = http_server.bind("127.0.0.1", int(sys.argv[1]))
started = lambda: print("started", flush=True)
stopping = lambda: print("stopping", flush=True)
code = http_server.run_app(app, sock, on_started=started, on_stopping=stopping, grace_s=float(sys.argv[2]), loop=sys.argv[3])
print("code", code, flush=True)
sys.exit(code)
"""


class Served:
    def __init__(self, folder: Path, grace_s: float, loop: str = "auto") -> None:
        self.port = free_port()
        self.out = folder / "out"
        with self.out.open("wb") as out:
            command = [sys.executable, "-c", SERVER, str(self.port), str(grace_s), loop]
            self.popen = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        self.said("started")

    def said(self, words: str) -> None:
        wait_until(lambda: words in self.out.read_text(), 30, what=words)

    async def ask(self, path: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        try:
            return await reader.read()
        finally:
            writer.close()


@pytest.mark.parametrize("loop", ["auto", "asyncio"])
def test_requests_in_flight_are_finished_within_the_grace(tmp_path: Path, loop: str) -> None:
    async def scenario(server: Served) -> bytes:
        asking = asyncio.create_task(server.ask("/1"))
        await asyncio.to_thread(server.said, "working")
        server.popen.terminate()
        return await asking

    server = Served(tmp_path, 20, loop)
    try:
        assert asyncio.run(scenario(server)).endswith(b"done")
        assert server.popen.wait(20) == 0
        assert "stopping" in server.out.read_text()
        assert "lifespan over" in server.out.read_text()
    finally:
        server.popen.kill()
        server.popen.wait()


def test_when_the_grace_is_over_the_rest_is_cut_without_a_traceback(tmp_path: Path) -> None:
    async def scenario(server: Served) -> bytes:
        asking = asyncio.create_task(server.ask("/600"))
        await asyncio.to_thread(server.said, "working")
        server.popen.send_signal(signal.SIGINT)
        try:
            return await asking
        except ConnectionResetError:
            return b""

    server = Served(tmp_path, 0.2)
    try:
        assert asyncio.run(scenario(server)) == b""
        assert server.popen.wait(20) == 130
        text = server.out.read_text()
        assert "cancelled" in text
        assert "the grace period of 0.2 s is over" in text
        assert "Traceback" not in text
    finally:
        server.popen.kill()
        server.popen.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_does_not_wait(tmp_path: Path, number: signal.Signals) -> None:
    async def scenario(server: Served) -> int:
        asking = asyncio.create_task(server.ask("/600"))
        await asyncio.to_thread(server.said, "working")
        server.popen.send_signal(number)
        await asyncio.to_thread(server.said, "stopping")
        server.popen.send_signal(number)
        code = await asyncio.to_thread(server.popen.wait, 20)
        await asyncio.gather(asking, return_exceptions=True)
        return code

    server = Served(tmp_path, 600)
    try:
        assert asyncio.run(scenario(server)) == -number
        assert "Traceback" not in server.out.read_text()
    finally:
        server.popen.kill()
        server.popen.wait()


def test_pages_in_a_browser_get_nothing_of_it(tmp_path: Path) -> None:
    """Neither a page whose name was pointed here, nor one that asks for another's address."""
    with process(tmp_path, free_port(), token=TOKEN) as controller:
        controller.wait_ready()
        with httpx.Client(base_url=controller.url, trust_env=False) as client:
            for fields in (
                {"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"},
            ):  # fmt: skip
                assert client.get("/health", headers=fields).status_code == 403
                assert client.post("/list_models", json={}, headers=fields).status_code == 403
            plain = {"Content-Type": "text/plain"}
            assert client.post("/list_models", content=b"{}", headers=plain).status_code == 415
            assert client.get("/health", headers={"Host": "localhost"}).status_code == 200
