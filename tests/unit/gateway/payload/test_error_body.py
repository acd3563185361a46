"""Errors of engines in the form that clients read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.gateway.http1.framing import parse_head
from llmlaunch.gateway.payload.error_body import LIMIT, MESSAGE_LIMIT, ErrorBody, error_rewriter, in_envelope

IN_FORM = [
    {"error": {"message": "no", "type": "BadRequestError", "param": None, "code": 400}},
    {"error": {"code": 400, "message": "the context is too small", "type": "exceed_context_size_error", "n_ctx": 4}},
    {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}},
]  # fmt: skip
PLACES = [
    {"loc": ["body", "messages", 0], "msg": "field required", "type": "missing"},
    {"loc": ["body"], "msg": "no JSON"},
]
OLD_VLLM: Any = {
    "object": "error",
    "message": "too long",
    "type": "BadRequestError",
    "param": "n",
    "code": 400,
}
FASTCHAT: Any = {"object": "error", "message": "Only m allowed", "code": 40301}
SHAPES: list[tuple[int, Any, tuple[str, str, str | None, str | None]]] = [
    (400, OLD_VLLM, ("too long", "BadRequestError", "n", "400")),
    (400, FASTCHAT, ("Only m allowed", "invalid_request_error", None, "40301")),
    (404, {"detail": "Not Found"}, ("Not Found", "invalid_request_error", None, None)),
    (422, {"detail": PLACES}, ("messages.0: field required; no JSON", "invalid_request_error", "messages.0", None)),
    (422, {"error": "bad", "error_type": "validation"}, ("bad", "invalid_request_error", None, None)),
    (500, {"error": {"msg": "broke", "type": "E"}}, ("broke", "E", None, None)),
    (401, {"error": "who?", "code": "wrong_key"}, ("who?", "authentication_error", None, "wrong_key")),
    (429, {"message": "slow down"}, ("slow down", "rate_limit_error", None, None)),
    (400, {"errors": [{"message": "a"}, {"message": "b"}]}, ("a; b", "invalid_request_error", None, None)),
    (400, {"what": 1}, ('{"what": 1}', "invalid_request_error", None, None)),
    (500, {"error": None}, ('{"error": null}', "server_error", None, None)),
    (400, "words", ("words", "invalid_request_error", None, None)),
    (500, [], ("The replica answered 500 Internal Server Error.", "server_error", None, None)),
    (500, b"Internal Server Error", ("Internal Server Error", "server_error", None, None)),
    (500, b"", ("The replica answered 500 Internal Server Error.", "server_error", None, None)),
    (599, b" \n", ("The replica answered 599.", "server_error", None, None)),
    (400, b"\xff", ("\ufffd", "invalid_request_error", None, None)),
    (502, b"<html><head><title>502 Bad Gateway</title></head><body><h1>x</h1>", ("502 Bad Gateway", "server_error", None, None)),
    (503, b"<p>Busy &amp; tired<script>x()</script>", ("Busy & tired", "server_error", None, None)),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "expected"), SHAPES)
def test_every_shape_becomes_openais(
    status: int, body: Any, expected: tuple[str, str, str | None, str | None]
) -> None:
    found = in_envelope(status, body if isinstance(body, bytes) else json.dumps(body).encode())
    assert found is not None
    error = json.loads(found)["error"]
    assert (error["message"], error["type"], error["param"], error["code"]) == expected


@pytest.mark.parametrize("value", IN_FORM)
def test_what_has_the_form_is_not_touched(value: Any) -> None:
    body = json.dumps(value, indent=2).encode() + b"\n"
    rewriter = ErrorBody(400)
    assert rewriter.feed(body[:7]) + rewriter.feed(body[7:]) == b""
    assert rewriter.end() == body
    assert rewriter.content_type == b""


NAMES = st.sampled_from(["error", "detail", "message", "loc", "msg", "code", "param", "type"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner),
)


@given(st.integers(400, 599), st.binary() | VALUES)
def test_any_body_becomes_an_error_with_a_message(status: int, value: Any) -> None:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    found = in_envelope(status, body)
    error = json.loads(body if found is None else found)["error"]
    assert isinstance(error["message"], str)
    if found is not None:
        assert error["message"]
        assert set(error) == {"message", "type", "param", "code"}
        assert all(error[name] is None or isinstance(error[name], str) for name in ("param", "code", "type"))


def test_a_huge_error_is_cut() -> None:
    rewriter = ErrorBody(500)
    for _ in range(3):
        rewriter.feed(b"x" * LIMIT)
    assert json.loads(rewriter.end())["error"]["message"] == "x" * MESSAGE_LIMIT


def test_a_compressed_error_is_not_read() -> None:
    head = b"HTTP/1.1 400 X\r\ncontent-encoding: gzip\r\n\r\n"
    assert error_rewriter(parse_head(head)) is None
    assert error_rewriter(parse_head(head.replace(b"gzip", b"identity"))) is not None
