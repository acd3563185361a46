"""Finds single fields of a form (multipart/form-data: RFC 7578, RFC 2046 §5.1.1) in place. Pure.

A form carries a whole file, so it is searched and not parsed: nothing but the value of the wanted field is copied. The
engine parses the form once more. Whatever two parsers may read in two ways is refused, because a key's limits hold for
the model that is found here: repeated and missing boundaries, a boundary within a part (where other line ends would make it
one), names in other encodings, a field that is given twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from llmlaunch.gateway.payload.model_field import InvalidBody

PARTS_MOST = 1000
"""Parts of one form."""
PART_HEAD_MOST = 4096
"""Bytes of the header of one part."""
VALUE_MOST = 1024
"""Bytes of a value that is read."""
_TYPE = b"multipart/form-data"
_PARAMETER = re.compile(rb';[ \t]*([^\s=;"]+)[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^\s;"]*)[ \t]*')
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_TRUE = frozenset((b"true", b"1", b"yes", b"on"))


@dataclass(frozen=True, slots=True)
class FormField:
    """Where the value of a field begins and ends in its body."""

    start: int
    end: int


def boundary_of(content_type: bytes) -> bytes:
    """The boundary of a form with this ``Content-Type``; empty if it is no form. Raises InvalidBody."""
    kind, _, _ = content_type.partition(b";")
    if kind.strip().lower() != _TYPE:
        return b""
    found = _parameters(content_type[len(kind) :])
    boundary = b"" if found is None else found.get(b"boundary", b"")
    if _BOUNDARY.fullmatch(boundary) is None:
        raise InvalidBody("The Content-Type multipart/form-data has no valid boundary.")
    return boundary


def model_of_form(body: bytes, boundary: bytes) -> str:
    """The value of the field ``model``. Raises InvalidBody if it is missing or the form is not valid."""
    field = _field(body, boundary, b"model")
    if field is None:
        raise InvalidBody("You must provide a model parameter.", "model")
    if field.end - field.start > VALUE_MOST:
        raise InvalidBody(f"model must not be longer than {VALUE_MOST} bytes.", "model")
    try:
        model = body[field.start : field.end].decode()
    except UnicodeDecodeError:
        raise InvalidBody("model must be UTF-8.", "model") from None
    if not model:
        raise InvalidBody("model must not be empty.", "model")
    return model


def with_model_in_form(
    body: bytes, boundary: bytes, model: str
) -> tuple[memoryview | bytes, memoryview | bytes, memoryview | bytes]:
    """``body`` with the field ``model`` set to ``model``, in three parts, of which none is a copy. Raises InvalidBody."""
    field = _field(body, boundary, b"model")
    if field is None:
        raise InvalidBody("You must provide a model parameter.", "model")
    whole = memoryview(body)
    return whole[: field.start], model.encode(), whole[field.end :]


def form_asks_for_stream(body: bytes, boundary: bytes) -> bool:
    """Whether the field ``stream`` is set."""
    try:
        field = _field(body, boundary, b"stream")
    except InvalidBody:
        return False
    return field is not None and body[field.start : field.end][:8].strip().lower() in _TRUE


def _field(body: bytes, boundary: bytes, name: bytes) -> FormField | None:
    """The field ``name``; None if there is none. Raises InvalidBody."""
    delimiter = b"--" + boundary
    if not body.startswith(delimiter):
        raise _malformed("it does not begin with the boundary of its Content-Type")
    at = len(delimiter)
    found = None
    for _ in range(PARTS_MOST):
        if body.startswith(b"--", at):
            if at + 2 < len(body):
                _end_of_line(body, at + 2)
            return found
        start = _end_of_line(body, at)
        head_end = body.find(b"\r\n\r\n", start - 2, start + PART_HEAD_MOST)
        if head_end < 0:
            raise _malformed("the header of a part has no end, or is too long")
        next_delimiter = body.find(delimiter, head_end + 4)
        value, end = head_end + 4, next_delimiter - 2
        if next_delimiter < 0:
            raise _malformed("its closing boundary is missing")
        if end < value or not body.startswith(b"\r\n", end):
            raise _malformed("its boundary also stands within a part")
        if _name(body[start:head_end], name) == name:
            if found is not None:
                raise InvalidBody(f"{name.decode()} is given twice.", name.decode())
            found = FormField(value, end)
        at = next_delimiter + len(delimiter)
    raise _malformed(f"it has more than {PARTS_MOST} parts")


def _end_of_line(body: bytes, at: int) -> int:
    """Where the line after a boundary ends, which has nothing in it but white space."""
    while body[at : at + 1] in (b" ", b"\t"):
        at += 1
    if not body.startswith(b"\r\n", at):
        raise _malformed("a boundary is followed by other text")
    return at + 2


def _name(head: bytes, wanted: bytes) -> bytes:
    """The name of the part with this header. ``wanted`` must not be the name of a file. Raises InvalidBody."""
    disposition = b""
    for line in head.split(b"\r\n"):
        key, colon, value = line.partition(b":")
        if line and (not colon or key.strip() != key):
            raise _malformed("the header of a part is not valid")
        if key.lower() == b"content-disposition":
            if disposition:
                raise _malformed("a part has two Content-Disposition fields")
            disposition = value.strip(b" \t")
    kind, _, _ = disposition.partition(b";")
    found = _parameters(disposition[len(kind) :])
    if kind.strip().lower() != b"form-data" or found is None or b"name" not in found or b"name*" in found:
        raise _malformed("a part has no valid Content-Disposition with a name")
    if found[b"name"] == wanted and (b"filename" in found or b"filename*" in found):
        raise InvalidBody(f"{wanted.decode()} must be a text, not a file.", wanted.decode())
    return found[b"name"]


def _parameters(text: bytes) -> dict[bytes, bytes] | None:
    """The parameters of a header field, names in lower case; None if they are not valid or one is given twice."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(text):
        match = _PARAMETER.match(text, at)
        if match is None or match[1].lower() in found:
            return None
        value = match[2]
        if value.startswith(b'"'):
            value = re.sub(rb"\\(.)", rb"\1", value[1:-1])
        found[match[1].lower()] = value
        at = match.end()
    return found


def _malformed(why: str) -> InvalidBody:
    return InvalidBody(f"The form is not valid: {why}.")
