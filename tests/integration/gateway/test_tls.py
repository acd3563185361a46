"""https: as any client speaks it, with certificates that are renewed while it serves."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import openai
import pytest

from tests.integration.cli.support import Fake, write
from tests.integration.gateway.fakes import (
    Answer,
    Behaviour,
    Bench,
    Client,
    FakeWorker,
    Seen,
    Talk,
    echo,
    running,
)
from tests.integration.gateway.test_process import run_api
from tests.support.deployment import cli as fresh_cli
from tests.support.ports import free_port
from tests.support.waiting import wait_until

CERTIFICATES = Path(__file__).with_name("certificates")
FIRST, SECOND = (CERTIFICATES / f"{name}.pem" for name in ("first", "second"))


class Secure(Client):
    def __init__(self, port: int, trusted: Path, name: str = "localhost") -> None:
        super().__init__(port)
        context = ssl.create_default_context(cafile=trusted)
        # An end without close_notify is an error, as it is for most clients.
        self.tls = context.wrap_socket(self.sock, server_hostname=name, suppress_ragged_eofs=False)
        self.sock = self.tls


def install(folder: Path, name: str) -> None:
    shutil.copy(CERTIFICATES / f"{name}.pem", folder / "cert.pem")
    shutil.copy(CERTIFICATES / f"{name}-key.pem", folder / "key.pem")


def serve(bench: Bench, behave: Behaviour = echo) -> None:
    worker = bench.worker(behave)
    bench.controller.set(worker.replica("m"))

    def served() -> bool:
        with Secure(bench.port, FIRST) as client:
            client.send(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n")
            return b'"m"' in client.answer("GET").body

    wait_until(served)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    install(tmp_path, "first")
    return tmp_path


@pytest.fixture
def bench(folder: Path) -> Iterator[Bench]:
    with running("--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem")) as bench:
        assert f"https://127.0.0.1:{bench.port}" in bench.gateway.log
        yield bench
        assert bench.gateway.stop() == 0
        assert "Traceback" not in bench.gateway.log
        assert "returning true from eof_received" not in bench.gateway.log


def test_clients_speak_it(bench: Bench) -> None:
    serve(bench)
    context = ssl.create_default_context(cafile=FIRST)
    with httpx.Client(verify=context, trust_env=False) as http:
        sdk = openai.OpenAI(
            base_url=f"https://localhost:{bench.port}/v1",
            api_key="x",
            max_retries=0,
            http_client=cast(
                "Any", http
            ),  # httpx's clients are welcome, too; the SDK's types name only httpx2's
        )
        said = sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])
        assert said.choices[0].message.content
        events = sdk.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        assert "".join(event.choices[0].delta.content or "" for event in events if event.choices)
    with Secure(bench.port, FIRST) as client:
        client.post(b'{"model": "m", "pad": "%b"}' % (b"x" * 300_000))
        client.post({"model": "m"})
        assert [client.answer().status, client.answer().status] == [200, 200]


def test_a_client_that_leaves_frees_its_replica(bench: Bench) -> None:
    def behave(talk: Talk, seen: Seen) -> None:
        talk.wait_for_peer_to_leave()

    serve(bench, behave)
    worker = bench.workers[0]
    with Secure(bench.port, FIRST) as client:
        client.post({"model": "m"})
        wait_until(lambda: worker.seen)
    wait_until(lambda: worker.left)


def test_who_does_not_speak_tls_is_dropped_and_harms_nobody(bench: Bench) -> None:
    serve(bench)
    for noise in (
        b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"\x16\x03\x01\xff\xff" + b"\0" * 600,
        b"",
    ):
        with Client(bench.port) as client:
            client.send(noise)
    with Secure(bench.port, FIRST) as client:
        assert client.tls.version() in ("TLSv1.2", "TLSv1.3")
        client.post({"model": "m"})
        assert client.answer().status == 200


def test_a_handshake_that_stands_still_holds_up_nobody(bench: Bench) -> None:
    serve(bench)
    with contextlib.ExitStack() as stack:
        for number in range(60):
            silent = stack.enter_context(Client(bench.port))
            if number % 2:
                silent.send(b"\x16\x03\x01\x02\x00\x01\x00")  # the beginning of a hello
        with Secure(bench.port, FIRST) as client:
            client.post({"model": "m"})
            assert client.answer().status == 200
        # What does not complete a handshake is no connection, and is not waited for at the end either.
        assert bench.gateway.stop() == 0


def test_http_at_the_port_of_https_gets_no_answer_in_clear(bench: Bench) -> None:
    serve(bench)
    with Client(bench.port) as client:
        client.send(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n")
        said = b""
        with contextlib.suppress(ConnectionResetError):
            said = client.to_the_end()
    assert not said.startswith(b"HTTP")


def test_a_slow_reader_holds_up_its_replica_and_gets_everything(bench: Bench) -> None:
    sent: list[int] = []

    def behave(talk: Talk, seen: Seen) -> None:
        talk.start_stream()
        for _ in range(3000):
            talk.event({"choices": [], "pad": "x" * 10_000})
            sent.append(1)
        talk.end_stream()

    serve(bench, behave)
    with Secure(bench.port, FIRST) as client:
        client.post({"model": "m", "stream": True})
        client.head()
        assert client.chunk()
        stood = -1

        def stands_still() -> bool:
            nonlocal stood
            before, stood = stood, len(sent)
            return before == stood

        wait_until(stands_still, every_s=0.3)
        assert len(sent) < 2500  # of 30 MB, what sockets and their buffers hold
        events = 1
        while client.chunk():
            events += 1
        assert events == 3001
    assert len(sent) == 3000


def test_who_ends_its_side_in_the_middle_of_a_stream_has_left(bench: Bench) -> None:
    def behave(talk: Talk, seen: Seen) -> None:
        talk.start_stream()
        talk.event({"choices": []})
        talk.wait_for_peer_to_leave()

    serve(bench, behave)
    worker = bench.workers[0]
    for number, leave in enumerate((half_close, unwrap, reset_by_peer), 1):
        with Secure(bench.port, FIRST) as client:
            client.post({"model": "m", "stream": True})
            client.head()
            client.chunk()
            leave(client)
            wait_until(partial(_has_been_left, worker, number))


def _has_been_left(worker: FakeWorker, times: int) -> bool:
    return len(worker.left) == times


def half_close(client: Secure) -> None:
    """Without TLS knowing, as a cut connection looks."""
    socket.socket.shutdown(client.sock, socket.SHUT_WR)


def unwrap(client: Secure) -> None:
    """By the rules: close_notify."""
    client.sock.settimeout(2)
    with contextlib.suppress(OSError):
        client.tls.unwrap()


def reset_by_peer(client: Secure) -> None:
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.sock.close()


def test_a_stream_that_breaks_is_told_over_tls_too(bench: Bench) -> None:
    def behave(talk: Talk, seen: Seen) -> None:
        if seen.json.get("stream"):
            talk.start_stream()
            talk.send(b"5\r\ndata:\r\n")
        else:
            talk.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{")
        wait_until(lambda: arrived)
        talk.hang_up()

    arrived: list[bool] = []
    serve(bench, behave)
    with Secure(bench.port, FIRST) as client:
        client.post({"model": "m", "stream": True})
        client.head()
        client.chunk()
        arrived.append(True)
        assert b"stream_interrupted" in client.chunk()
        assert client.to_the_end() == b""
    arrived.clear()
    with Secure(bench.port, FIRST) as client:
        client.post({"model": "m"})
        client.head()
        client.until(b"{")
        arrived.append(True)
        with pytest.raises((ConnectionResetError, ssl.SSLError)):  # no close_notify: it was cut
            client.to_the_end()


def test_requests_sent_ahead_and_in_small_pieces(bench: Bench) -> None:
    serve(bench)
    body = b'{"model": "m"}'
    one = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )
    with Secure(bench.port, FIRST) as client:
        for byte in one:
            client.send(bytes((byte,)))
        assert client.answer().status == 200
        client.send(one * 300)
        assert {client.answer().status for _ in range(300)} == {200}


def test_a_renewed_certificate_is_used_and_a_broken_one_is_not(bench: Bench, folder: Path) -> None:
    serve(bench)

    def accepts(trusted: Path) -> bool:
        try:
            with Secure(bench.port, trusted) as client:
                client.post({"model": "m"})
                return client.answer().status == 200
        except ssl.SSLError:
            return False

    with Secure(bench.port, FIRST) as before:
        shutil.copy(CERTIFICATES / "second.pem", folder / "cert.pem")  # and not yet its key
        wait_until(lambda: "the certificate is unchanged" in bench.gateway.log)
        assert accepts(FIRST)
        install(folder, "second")
        wait_until(lambda: accepts(SECOND))
        assert not accepts(FIRST)
        before.post({"model": "m"})  # a connection that was open goes on
        answer: Answer = before.answer()
        assert answer.status == 200
        (folder / "key.pem").write_text("nonsense")
        wait_until(lambda: bench.gateway.log.count("the certificate is unchanged") == 2)
        assert accepts(SECOND)


def test_files_that_can_not_serve_are_one_message(folder: Path) -> None:
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    other = str(CERTIFICATES / "second-key.pem")
    encrypted = str(CERTIFICATES / "encrypted-key.pem")
    nothing = folder / "nothing"
    nothing.touch()
    for options, expected in (
        (["--tls-cert", cert], "--tls-key"),
        (["--tls-key", key], "--tls-cert"),
        (["--tls-cert", str(folder / "gone"), "--tls-key", key], "No such file"),
        (["--tls-cert", cert, "--tls-key", other], "does not belong to the certificate"),
        (["--tls-cert", cert, "--tls-key", encrypted], "encrypted"),
        (["--tls-cert", str(nothing), "--tls-key", key], "not a certificate"),
        (["--tls-cert", key, "--tls-key", key], "not a certificate"),
    ):
        done = run_api("--port", "0", *options)
        assert (done.returncode, expected in done.stderr) == (2, True), (options, done.stderr)
        assert "Traceback" not in done.stderr


def test_a_deployment_serves_https(folder: Path) -> None:
    """Probes and the verbs of this machine reach it, whatever name the certificate holds."""
    with fresh_cli() as lab:
        install(lab.cwd, "first")
        write(lab, Fake("tiny"), api={"port": free_port(), "tls_cert": "cert.pem", "tls_key": "key.pem"})
        assert "https://127.0.0.1:" in lab.ok("up", "-d")
        assert "word0" in lab.ok("test", "tiny")
        assert lab.component("api")["phase"] == "ready"
        lab.ok("down")
        (lab.cwd / "key.pem").write_text("nonsense")
        done = lab.run("up", "-d")
        assert done.returncode != 0
        assert "not a certificate" in done.stderr
        assert lab.processes() == []
