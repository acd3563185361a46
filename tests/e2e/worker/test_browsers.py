"""Pages in a browser on this machine: what they may ask of a worker."""

from __future__ import annotations

import pytest

from tests.e2e.worker.server import Worker

ASKED = {"model": "tiny", "prompt": "x", "max_tokens": 1}


@pytest.mark.parametrize(
    "fields",
    [
        {"Host": "evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_page_gets_nothing(writer: Worker, fields: dict[str, str]) -> None:
    with writer.client(headers=fields) as client:
        for answer in (
            client.post("/v1/completions", json=ASKED), client.get("/metrics"), client.get("/v1/models"),
        ):  # fmt: skip
            assert answer.status_code == 403
            assert answer.json()["error"]["code"] in ("host_not_allowed", "origin_not_allowed")


def test_a_body_is_json_by_its_type(writer: Worker) -> None:
    with writer.client() as client:
        answer = client.post(
            "/v1/completions", content=b'{"model": "tiny"}', headers={"Content-Type": "text/plain"}
        )
    assert answer.status_code == 415
    assert "application/json" in answer.json()["error"]["message"]


def test_programs_get_what_they_ask_for(writer: Worker) -> None:
    for host in ("localhost", f"localhost:{writer.port}", "[::1]"):
        with writer.client(headers={"Host": host}) as client:
            assert client.post("/v1/completions", json=ASKED).status_code == 200
            assert client.get("/metrics").status_code == 200
