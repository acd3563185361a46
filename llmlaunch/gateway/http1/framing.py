"""Where a worker's response ends: the framing of RFC 9112 §6, followed while the bytes pass unchanged. Pure.

Requests come from strangers and are parsed by llhttp, which is strict. Responses come from workers, in thousands of small
reads each second. Such a read is nearly always one whole chunk, and seeing that costs less than a parser.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from llmlaunch.gateway.failures import InvalidResponse
from llmlaunch.gateway.http1.head_cache import HeadCache, key_of
from llmlaunch.gateway.http1.headers import for_client

HEAD_LIMIT = 64 << 10
"""The largest head that a worker may send, in bytes."""
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n")
# White space around the value is left to strip(): a pattern for it would backtrack through every long run of spaces.
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t\x20-\x7e\x80-\xff]*)\r\n")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_CHUNK_HEAD_LIMIT = 1024
_FILL_LIMIT = 1 << 20
_BODILESS = (204, 304)
_SIZES: dict[bytes, int] = {}
"""Size lines that were parsed before, and their sizes: nearly all events of a stream have one of a few lengths."""
_MAX_SIZES = 4096
_CHUNKS: dict[int, bytes] = {}
"""Bytes of a whole chunk → its size line in the usual spelling, for the sizes above."""
_MAX_SIZE_LINE = 16
"""Bytes of the longest line that is remembered: chunk extensions have no limit."""


class ResponseHead(NamedTuple):
    """The head of a response. Field names are in lower case. A tuple, because one is made for every response.

    Heads that differ only in their Content-Length share ``fields``, so the value there may be another response's.
    ``length`` is always right.
    """

    status: int
    reason: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    keep_alive: bool
    length: int | None
    """Content-Length in bytes; 0 where the status allows no body."""
    chunked: bool
    onward: bytes
    """The header lines that are passed on to the client."""

    def get(self, name: bytes) -> bytes:
        """The first value of the field ``name`` (lower case); empty when there is none."""
        return next((value for key, value in self.fields if key == name), b"")


def read_head(data: bytes, end: int, cache: HeadCache[ResponseHead]) -> ResponseHead:
    """Read the head that ends with the empty line at ``end``, from the cache if possible. Raises InvalidResponse."""
    found = key_of(data, end)
    if found is None:
        return parse_head(data[: end + 4])
    key, length = found
    known = cache.get(key)
    if known is None:
        known = parse_head(data[: end + 4])
        lengths = sum(name == b"content-length" for name, _ in known.fields)
        if known.status >= 200 and known.status not in _BODILESS and lengths <= 1:
            cache.put(key, known)
        return known
    if length is None or length == known.length:
        return known
    status, reason, fields, keep_alive, _, chunked, onward = known
    return ResponseHead(status, reason, fields, keep_alive, length, chunked, onward)


def parse_head(data: bytes) -> ResponseHead:
    """Parse the head of a response; ``data`` ends with the empty line. Raises InvalidResponse."""
    start = _STATUS.match(data)
    if start is None:
        raise InvalidResponse("it does not begin with an HTTP/1.x status line")
    fields = []
    at, end = start.end(), len(data) - 2
    length: int | None = None
    codings = connection = b""
    while at < end:
        line = _FIELD.match(data, at)
        if line is None:
            raise InvalidResponse("malformed header field")
        at = line.end()
        name, value = line[1].lower(), line[2].strip(b" \t")
        fields.append((name, value))
        if name == b"content-length":
            length = _length(value, length)
        elif name == b"transfer-encoding":
            codings = codings + b"," + value.lower() if codings else value.lower()
        elif name == b"connection":
            connection += b"," + value.lower()
    status = int(start[2])
    if codings and (codings != b"chunked" or length is not None):
        raise InvalidResponse("its Transfer-Encoding is not supported, or comes with a Content-Length")
    bodiless = status < 200 or status in _BODILESS
    keep_alive = (
        b"close" not in connection if start[1] == b"1" else b"keep-alive" in connection and not codings
    )
    return ResponseHead(
        status=status,
        reason=start[3] or b"",
        fields=tuple(fields),
        keep_alive=keep_alive,
        length=0 if bodiless else length,
        chunked=bool(codings) and not bodiless,
        onward=for_client(fields, connection),
    )


def _length(value: bytes, before: int | None) -> int:
    if not value.isdigit() or len(value) > 18 or (before is not None and before != int(value)):
        raise InvalidResponse("invalid Content-Length")
    return int(value)


class BodyFraming:
    """Follows the body of one response: :meth:`feed` gets every byte behind the head, once and in order."""

    __slots__ = ("_between", "_left", "_line", "_trailers", "chunked", "done", "until_close")

    def __init__(self, head: ResponseHead) -> None:
        self.chunked = head.chunked
        self.until_close = not head.chunked and head.length is None
        self._left = head.length or 0
        """Bytes to come of a body with Content-Length, or of the current chunk with its line end (0: a size line comes)."""
        self._line = b""
        """A size line or trailer that is not complete yet."""
        self._trailers = False
        self._between = head.chunked
        """Between two chunks: nothing of the next one has come."""
        self.done = not self.chunked and not self.until_close and self._left == 0

    def feed(self, data: bytes) -> None:
        """Follow ``data``. Raises InvalidResponse for broken chunks and for bytes after the end of the body.

        In that case the state is as it was before, and the caller must not pass ``data`` on.
        """
        if self.chunked:
            if not self._between or not self._is_whole_chunks(data):
                self._advance_or_restore(data, None)
        elif not self.until_close:
            if len(data) > self._left:
                raise InvalidResponse("bytes after the end of the answer")
            self._left -= len(data)
            self.done = self._left == 0

    def is_next_chunk(self, data: bytes) -> bool:
        """Whether ``data`` is one whole chunk of a known size, at a place where a chunk may begin.

        Such a chunk does not change the state, so it need not be fed.
        """
        line = _CHUNKS.get(len(data))
        return line is not None and self._between and data[: len(line)] == line and data[-2:] == b"\r\n"

    def decode(self, data: bytes) -> bytes:
        """Like :meth:`feed`, but also returns the content without its framing."""
        if not self.chunked:
            self.feed(data)
            return data
        content: list[bytes] = []
        self._advance_or_restore(data, content)
        return b"".join(content)

    def before_interruption(self) -> bytes | None:
        """The bytes that complete the current chunk, so that another one may follow; None when none can follow.

        An incomplete chunk is filled up with line ends, which readers of server-sent events ignore.
        """
        if self.until_close:
            return b""
        if not self.chunked or self.done or self._trailers or self._line or self._left > _FILL_LIMIT:
            return None
        if self._left == 0:
            return b""
        return b"\r\n"[-self._left :] if self._left <= 2 else b"\n" * (self._left - 2) + b"\r\n"

    @staticmethod
    def _is_whole_chunks(data: bytes) -> bool:
        """Whether ``data`` consists of whole chunks, as it usually does in a stream: the state does not change."""
        at, end = 0, len(data)
        while at < end:
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                return False
            size = _SIZES.get(data[at:line_end])
            if size is None:
                line = _CHUNK.match(data, at)
                if line is None or line.end() != line_end + 2:
                    return False
                size = int(line[1], 16)
                if not size:
                    return False
                if len(_SIZES) < _MAX_SIZES and line_end - at <= _MAX_SIZE_LINE:
                    _SIZES[data[at:line_end]] = size
                    usual = b"%x\r\n" % size
                    _CHUNKS[len(usual) + size + 2] = usual
            at = line_end + size + 4
            if data[at - 2 : at] != b"\r\n":
                return False
        return at == end

    def _advance_or_restore(self, data: bytes, content: list[bytes] | None) -> None:
        before = self._left, self._line, self._trailers, self.done
        try:
            self._advance(data, content)
        except InvalidResponse:
            self._left, self._line, self._trailers, self.done = before
            raise

    def _advance(self, data: bytes, content: list[bytes] | None) -> None:
        if self._line:
            data, self._line = self._line + data, b""
            # Only the incomplete line was kept, so nothing before it is counted twice.
        at, size = 0, len(data)
        while at < size:
            if self.done:
                raise InvalidResponse("bytes after the end of the answer")
            if self._left:
                at = self._through_chunk(data, at, content)
            elif self._trailers:
                at = self._trailer(data, at)
            else:
                at = self._size_line(data, at)
        self._between = not (self._left or self._line or self._trailers or self.done)

    def _through_chunk(self, data: bytes, at: int, content: list[bytes] | None) -> int:
        step = min(self._left, len(data) - at)
        if content is not None and self._left > 2:
            content.append(data[at : at + min(step, self._left - 2)])
        left = self._left - step
        if left < 2:
            # The line end after the chunk: the last two of the bytes that were left.
            first = max(at, at + self._left - 2)
            expected = b"\r\n"[2 - min(self._left, 2) : 2 - left]
            if data[first : at + step] != expected:
                raise InvalidResponse("a chunk is longer than its size")
        self._left = left
        return at + step

    def _size_line(self, data: bytes, at: int) -> int:
        line = _CHUNK.match(data, at)
        if line is None:
            if data.find(b"\n", at) >= 0 or len(data) - at > _CHUNK_HEAD_LIMIT:
                raise InvalidResponse("a chunk has no size")
            self._line = data[at:]
            return len(data)
        size = int(line[1], 16)
        if size:
            self._left = size + 2
        else:
            self._trailers = True
        return line.end()

    def _trailer(self, data: bytes, at: int) -> int:
        if data.startswith(b"\r\n", at):
            self.done = True
            return at + 2
        line = _FIELD.match(data, at)
        if line is None:
            if data.find(b"\n", at) >= 0 or len(data) - at > HEAD_LIMIT:
                raise InvalidResponse("malformed trailer")
            self._line = data[at:]
            return len(data)
        return line.end()


_LAST_EVENTS = (
    b"[DONE]",
    b"response.completed",
    b"response.incomplete",
    b"response.failed",
    b"message_stop",
    b'"error"',
)


def is_complete(content_type: bytes, tail: bytes) -> bool:
    """Whether a response that ends when its connection closes is complete; ``tail`` are its last bytes.

    HTTP cannot tell such a response from one whose sender died (RFC 9112 §8). But the content of OpenAI's API has an end
    of its own: JSON closes its brackets, and a stream has a last event. Other content types count as complete.
    """
    kind = content_type.partition(b";")[0].strip().lower()
    if kind == b"text/event-stream":
        return tail.endswith(b"\n") and any(mark in tail for mark in _LAST_EVENTS)
    if kind == b"application/json":
        return tail.rstrip().endswith((b"}", b"]"))
    return True
