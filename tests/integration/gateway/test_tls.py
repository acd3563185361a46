"""https: as any client speaks it, with certificates that are renewed while it serves."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.integration.cli.support import Fake, write
from tests.integration.gateway.fakes import Answer, Bench, Client, Seen, Talk, running
from tests.integration.gateway.test_process import run_api
from tests.support.deployment import cli as fresh_cli
from tests.support.ports import free_port
from tests.support.waiting import wait_until

CERTIFICATES = Path(__file__).with_name("certificates")
FIRST, SECOND = (CERTIFICATES / f"{name}.pem" for name in ("first", "second"))


class Secure(Client):
    def __init__(self, port: int, trusted: Path, name: str = "localhost") -> None:
        super().__init__(port)
        self.sock = ssl.create_default_context(cafile=trusted).wrap_socket(self.sock, server_hostname=name)


def install(folder: Path, name: str) -> None:
    shutil.copy(CERTIFICATES / f"{name}.pem", folder / "cert.pem")
    shutil.copy(CERTIFICATES / f"{name}-key.pem", folder / "key.pem")


def serve(bench: Bench, behave: object = None) -> None:
    worker = bench.worker() if behave is None else bench.worker(behave)  # type: ignore[arg-type]
    bench.controller.set(worker.replica("m"))

    def served() -> bool:
        with Secure(bench.port, FIRST) as client:
            client.send(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")
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
            base_url=f"https://localhost:{bench.port}/v1", api_key="x", max_retries=0, http_client=http
        )
        said = sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])
        assert said.choices[0].message.content
        events = sdk.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        assert [event.choices[0].delta.content for event in events if event.choices]
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
    for noise in (b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 600, b""):
        with Client(bench.port) as client:
            client.send(noise)
    with Secure(bench.port, FIRST) as client:
        assert client.sock.version() in ("TLSv1.2", "TLSv1.3")  # type: ignore[attr-defined]
        client.post({"model": "m"})
        assert client.answer().status == 200


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
        wait_until(lambda: "stays as it was" in bench.gateway.log)
        assert accepts(FIRST)
        install(folder, "second")
        wait_until(lambda: accepts(SECOND))
        assert not accepts(FIRST)
        before.post({"model": "m"})  # a connection that was open goes on
        answer: Answer = before.answer()
        assert answer.status == 200
        (folder / "key.pem").write_text("nonsense")
        wait_until(lambda: bench.gateway.log.count("stays as it was") == 2)
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
        (["--tls-cert", cert, "--tls-key", other], "not that of the certificate"),
        (["--tls-cert", cert, "--tls-key", encrypted], "encrypted"),
        (["--tls-cert", str(nothing), "--tls-key", key], "no PEM"),
        (["--tls-cert", key, "--tls-key", key], "no PEM"),
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
        assert "no PEM" in done.stderr
        assert lab.processes() == []
