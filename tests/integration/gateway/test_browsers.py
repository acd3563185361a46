"""Pages in a browser on this machine: what they may ask of a gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.gateway.fakes import Answer, Bench, Client, ask, running

EVIL = {"origin": "https://evil.example"}


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with running("--cors-origin", "https://chat.example", "--allowed-host", "llm.example.org") as bench:
        bench.serve(bench.worker().replica("m"))
        yield bench


def asked(bench: Bench, method: str, path: str, **fields: str) -> Answer:
    """``fields`` with underscores for hyphens; the Host is this machine's own unless given."""
    host = fields.pop("host", f"127.0.0.1:{bench.port}")
    body = b'{"model": "m"}' if method == "POST" else b""
    lines = [
        f"{method} {path} HTTP/1.1",
        f"host: {host}",
        "connection: close",
        f"content-length: {len(body)}",
    ]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    with Client(bench.port) as client:
        client.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return client.answer(method)


PATHS = [("POST", "/v1/completions"), ("GET", "/v1/models"), ("GET", "/metrics"), ("GET", "/health")]


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_a_page_whose_name_was_pointed_here_reads_nothing(bench: Bench, method: str, path: str) -> None:
    for host in ("evil.example", f"evil.example:{bench.port}"):
        answer = asked(bench, method, path, host=host, origin=f"http://{host}", sec_fetch_site="same-origin")
        assert (answer.status, answer.json["error"]["code"]) == (403, "host_not_allowed")
        assert "allowed_hosts" in answer.json["error"]["message"]
    for host in ("localhost", f"LOCALHOST.:{bench.port}", f"[::1]:{bench.port}", "llm.example.org"):
        assert asked(bench, method, path, host=host).status == 200


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_a_strange_page_gets_nothing_done(bench: Bench, method: str, path: str) -> None:
    served = bench.workers[0].seen
    before = len(served)
    for fields in (
        {"origin": "https://evil.example"},
        {"origin": "null", "content_type": "text/plain"},
        {"sec_fetch_site": "cross-site"},
        {
            "origin": "https://evil.example",
            "sec_fetch_site": "cross-site",
            "content_type": "application/json",
        },
    ):
        answer = asked(bench, method, path, **fields)
        assert (answer.status, answer.json["error"]["code"]) == (403, "origin_not_allowed")
        assert "access-control-allow-origin" not in answer.headers
    assert len(served) == before
    page = asked(bench, method, path, origin="https://chat.example", sec_fetch_site="cross-site")
    assert page.status == 200
    assert page.headers["access-control-allow-origin"] == "https://chat.example"


def test_a_body_is_json_by_its_type(bench: Bench) -> None:
    for kind in ("text/plain", "text/plain;charset=UTF-8", "multipart/form-data; boundary=x"):
        answer = asked(bench, "POST", "/v1/completions", content_type=kind)
        assert answer.status == 415
        assert "Content-Type: application/json" in answer.json["error"]["message"]
    for kind in ("application/json", "application/json; charset=utf-8", "application/x-www-form-urlencoded"):
        assert asked(bench, "POST", "/v1/completions", content_type=kind).status == 200


def test_what_is_refused_is_not_taken_for_what_was_let_in_before(bench: Bench) -> None:
    """Heads that were let in are known by their bytes; these differ."""
    for _ in range(3):
        assert asked(bench, "POST", "/v1/completions", content_type="application/json").status == 200
        assert asked(bench, "POST", "/v1/completions", content_type="text/plain").status == 415
        assert asked(bench, "POST", "/v1/completions", **EVIL).status == 403


def test_a_worker_is_not_told_which_page_asked(bench: Bench) -> None:
    asked(bench, "POST", "/v1/completions", origin="https://chat.example", sec_fetch_site="cross-site")
    seen = bench.workers[0].seen[-1]
    assert seen.header("origin") is None
    assert seen.header("sec-fetch-site") is None


def test_whoever_shows_a_key_is_no_strange_page(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("alice: sk-alice\n")
    keys.chmod(0o600)
    with running("--api-keys-file", str(keys), "--allowed-host", "box.example") as bench:
        bench.gateway.auth = {"Authorization": "Bearer sk-alice"}
        bench.controller.set(bench.worker().replica("m"))
        bench.gateway.until_serving("m")
        key = {"authorization": "Bearer sk-alice"}
        assert asked(bench, "POST", "/v1/completions", host="evil.example", **EVIL | key).status == 200
        assert asked(bench, "POST", "/v1/completions", **EVIL).status == 401
        # From this machine the metrics need no key; a page that was pointed here would be from this machine.
        assert asked(bench, "GET", "/metrics").status == 200
        assert asked(bench, "GET", "/metrics", host="box.example:80").status == 200
        assert asked(bench, "GET", "/metrics", host="evil.example").status == 401
        assert asked(bench, "GET", "/metrics", host="evil.example", **key).status == 200
        assert asked(bench, "GET", "/metrics", **EVIL).status == 403


def test_an_endpoint_for_other_machines_is_called_by_any_name() -> None:
    with running("--host", "0.0.0.0") as bench:
        assert ask(bench.port, "GET", "/v1/models", headers={}).status == 200
        assert asked(bench, "GET", "/v1/models", host="box.example").status == 200
        assert asked(bench, "GET", "/v1/models", host="box.example", **EVIL).status == 403
