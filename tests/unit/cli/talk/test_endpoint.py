"""How the endpoint is reached, whatever the environment says of proxies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from llmlaunch.cli.talk import endpoint
from llmlaunch.cli.talk.endpoint import Endpoint, RequestError
from llmlaunch.planning.types import Component, ProcessSpec

PROXY_VARIABLES = (
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"data": [{"id": "x"}]}')

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXY_VARIABLES, "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("http_proxy", "http://127.0.0.1:9"),
        ("ALL_PROXY", "socks5://127.0.0.1:9"),
        ("ALL_PROXY", "socks://127.0.0.1:9"),
        ("all_proxy", "http://[::1"),
        ("SSL_CERT_FILE", "/nowhere.pem"),
    ],
)
def test_our_own_deployment_is_reached_directly_whatever_is_set(
    port: int, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert Endpoint(f"http://127.0.0.1:{port}/v1", direct=True).names() == ["x"]


@pytest.mark.parametrize(
    "value", ["socks5://u:pass-word@h:9", "socks://u:pass-word@h:9", "http://u:pass-word@[::1"]
)
def test_a_proxy_that_cannot_be_used_is_one_line_without_its_password(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(RequestError) as caught:
        Endpoint("http://api.example.org/v1").names()
    assert caught.value.message == (
        "the proxy for http://api.example.org/v1 cannot be used (set by ALL_PROXY)"
    )
    assert "pass-word" not in caught.value.hint


def test_a_proxy_that_does_not_answer_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:pass-word@127.0.0.1:9")
    with pytest.raises(RequestError) as caught:
        Endpoint("http://api.example.org/v1").names()
    wanted = "nobody answers at http://api.example.org/v1 through the proxy 127.0.0.1:9"
    assert caught.value.message == wanted


def test_certificates_that_are_not_there_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
    with pytest.raises(RequestError, match="the certificates of SSL_CERT_FILE cannot be read"):
        Endpoint("https://api.example.org/v1").names()


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("127.0.0.9", True),
        ("api.example.org", False),
    ],
)
def test_what_is_on_this_machine(host: str, here: bool) -> None:
    assert endpoint._is_here(host) is here


def test_a_byte_that_is_no_text_is_one_line() -> None:
    with pytest.raises(RequestError, match="contains a byte that is not UTF-8"):
        Endpoint("http://127.0.0.1:9/v1", direct=True).post("/x", {"model": "m\udcd0"})


def test_a_key_is_read_where_the_plan_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys.txt"
    file.write_text("alice: sk-limited rpm=60\nbob: sk-free\n")
    monkeypatch.setenv("KEYS", "")

    def api(env: dict[str, str], file: str, variable: str) -> tuple[ProcessSpec, ...]:
        return (
            ProcessSpec(
                "api", Component.API, ("llmlaunch", "api"), env, "127.0.0.1", 8000, "http://127.0.0.1:8000",
                api_keys_file=file, api_keys_variable=variable,
            ),
        )  # fmt: skip

    assert endpoint._first_key(api({"KEYS": "sk-1, sk-2"}, str(file), "KEYS")) == "sk-1"
    assert endpoint._first_key(api({}, str(file), "KEYS")) == "sk-free", "one without limits is preferred"
    assert endpoint._first_key(api({}, str(tmp_path / "gone"), "")) == ""
