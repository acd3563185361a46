"""Fields of forms: what clients send, and what two parsers could read in two ways."""

from __future__ import annotations

import email
import email.policy

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmlaunch.gateway.payload.model_field import InvalidBody
from llmlaunch.gateway.payload.multipart_form import (
    PARTS_MOST,
    boundary_of,
    form_asks_for_stream,
    model_of_form,
    with_model_in_form,
)

MISSING = "You must provide a model parameter."


def form(*parts: str | bytes, boundary: str = "xyz") -> bytes:
    """A form of parts, each with its header."""
    lines = b"".join(
        b"--%b\r\n%b\r\n" % (boundary.encode(), part.encode() if isinstance(part, str) else part)
        for part in parts
    )
    return lines + b"--%b--\r\n" % boundary.encode()


def text(name: str, value: str) -> str:
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'


FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\nRIFF\r\n--xy\r\n\r\n\x00\xff'
MODEL = text("model", "whisper")


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (b"multipart/form-data; boundary=xyz", b"xyz"), (b'multipart/form-data; boundary="x y:z"', b"x y:z"),
        (b"Multipart/Form-Data;charset=utf-8;  BOUNDARY=----WebKitFormBoundary7MA4", b"----WebKitFormBoundary7MA4"),
        (b"application/json", b""), (b"", b""), (b"multipart/mixed; boundary=a", b""),
        (b"multipart/form-data, multipart/form-data; boundary=a", b""),
    ],
)  # fmt: skip
def test_the_boundary(content_type: bytes, boundary: bytes) -> None:
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "content_type",
    [
        b"multipart/form-data", b"multipart/form-data; boundary=", b'multipart/form-data; boundary=""', b'multipart/form-data; boundary="a',
        b"multipart/form-data; boundary=a; boundary=b", b"multipart/form-data; boundary=" + b"a" * 71,
        b'multipart/form-data; boundary="a "',
    ],
)  # fmt: skip
def test_a_boundary_that_is_not_valid(content_type: bytes) -> None:
    with pytest.raises(InvalidBody, match="boundary"):
        boundary_of(content_type)


@pytest.mark.parametrize(
    "body",
    [
        form(MODEL, FILE), form(FILE, MODEL), form(FILE, text("language", "en"), MODEL, text("stream", "true")),
        form(b"content-disposition:form-data;name=model\r\n\r\nwhisper"),
        form(b'Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper'),
        form(b'Content-Disposition: form-data; name="file"; filename="; name=\\"model\\""\r\n\r\nx', MODEL),
        form(b'Content-Disposition: form-data; name="Model"\r\n\r\nx', MODEL), form(MODEL) + b"epilogue",
        form(MODEL).replace(b"xyz\r\n", b"xyz \t\r\n"),
    ],
)  # fmt: skip
def test_the_model_wherever_it_stands(body: bytes) -> None:
    assert model_of_form(body, b"xyz") == "whisper"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (form(FILE), MISSING), (form(), MISSING), (form(MODEL, MODEL), "model is given twice"),
        (form(text("model", "")), "must not be empty"),
        (form(b'Content-Disposition: form-data; name="model"; filename="m"\r\n\r\nwhisper'), "not a file"),
        (form(b'Content-Disposition: form-data; name="model"\r\n\r\n\xff'), "UTF-8"), (form(text("model", "m" * 1025)), "1024 bytes"),
        (b"", "does not begin"), (b'{"model": "m"}', "does not begin"), (form(MODEL, boundary="other"), "does not begin"),
        (form(MODEL)[:-8], "closing boundary"), (form(MODEL)[:-4], "other text"), (form(MODEL).replace(b"\r\n", b"\n"), "other text"),
        (form(MODEL).replace(b"xyz--", b"xyzw"), "other text"),
        (form(text("a", "\r--xyz"), MODEL), "within a part"), (form(text("a", "b\n--xyz--"), MODEL), "within a part"),
        (form(text("a", "--xyz"), MODEL), "within a part"), (form(text("a", "\r\n--xyz---"), MODEL), "other text"),
        (form(b"Content-Disposition: form-data\r\n\r\nx"), "Content-Disposition"), (form(b"\r\nx"), "Content-Disposition"),
        (form(b"Content-Disposition: form-data; name*=utf-8''model; name=a\r\n\r\nx"), "Content-Disposition"),
        (form(b"Content-Disposition: form-data; name=a; name=model\r\n\r\nx"), "Content-Disposition"),
        (form(b"Content-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=model\r\n\r\nx"), "two Content-Disposition"),
        (form(b"Content-Disposition: form-data;\r\n name=model\r\n\r\nx"), "header of a part"),
        (form(b"Content-Disposition: form-data; name=a; x=" + b"y" * 5000 + b"\r\n\r\nx"), "too long"),
        (form(*[text("a", "b")] * (PARTS_MOST + 1)), f"more than {PARTS_MOST} parts"),
    ],
)  # fmt: skip
def test_forms_that_are_refused(body: bytes, why: str) -> None:
    with pytest.raises(InvalidBody, match=why):
        model_of_form(body, b"xyz")


def test_another_model_with_the_rest_as_it_was() -> None:
    for parts in ((MODEL, FILE), (FILE, MODEL, text("language", "en"))):
        changed = b"".join(with_model_in_form(form(*parts), b"xyz", "openai/whisper-1"))
        assert changed == form(*parts).replace(b"whisper", b"openai/whisper-1")


@pytest.mark.parametrize(
    ("value", "streams"), [("true", True), ("True", True), ("1", True), ("false", False), ("", False)]
)
def test_whether_it_asks_for_a_stream(value: str, streams: bool) -> None:
    assert form_asks_for_stream(form(FILE, text("stream", value)), b"xyz") is streams
    assert not form_asks_for_stream(form(FILE), b"xyz")


# Bytes that could fool a search: pieces of boundaries and of headers.
_HOSTILE = st.lists(
    st.sampled_from([b"\r\n", b"--", b"xyz", b"\r\n--", b"-", b"\r", b"\n", b"name=\"model\"", b"\r\n\r\n", b"\x00", b"m"])
).map(b"".join)  # fmt: skip


@example(fields=[("model", b"\r--xyz")])
@example(fields=[("a", b"\n--xyz\nContent-Disposition: form-data; name=model\n\nother"), ("model", b"m")])
@given(fields=st.lists(st.tuples(st.sampled_from(["model", "a", "b"]), _HOSTILE), max_size=4))
def test_it_agrees_with_another_parser_or_refuses(fields: list[tuple[str, bytes]]) -> None:
    body = form(*(text(name, "").encode() + value for name, value in fields))
    try:
        found = model_of_form(body, b"xyz")
    except InvalidBody:
        return
    head = b"content-type: multipart/form-data; boundary=xyz\r\n\r\n"
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    models = [
        part.get_payload(decode=True)
        for part in message.iter_parts()
        if part.get_param("name", header="content-disposition") == "model"
    ]
    assert len(models) == 1
    (value,) = models
    assert isinstance(value, bytes)
    assert value.replace(b"\r\n", b"\n") == found.encode().replace(b"\r\n", b"\n")


def test_what_httpx_and_so_the_openai_client_sends() -> None:
    file = ('ä "quoted".wav', b"RIFF\r\n--", "audio/wav")
    request = httpx.Request(
        "POST", "http://h", data={"model": "whisper", "stream": "true"}, files={"file": file}
    )
    boundary = boundary_of(request.headers["content-type"].encode())
    assert model_of_form(request.read(), boundary) == "whisper"
    assert form_asks_for_stream(request.read(), boundary)
