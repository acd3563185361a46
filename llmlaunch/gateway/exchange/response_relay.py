"""Turns a replica's answer into the client's: framing, the model's name, and the last bytes, which report the usage."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from llmlaunch.gateway import errors
from llmlaunch.gateway.exchange.keep_alive import COMMENT, Unchanged, is_event_stream, only_comments
from llmlaunch.gateway.http1 import headers
from llmlaunch.gateway.http1.framing import BodyFraming, ResponseHead, is_complete
from llmlaunch.gateway.limits.rates import TokenMeter
from llmlaunch.gateway.payload.content_rewriter import ContentRewriter
from llmlaunch.gateway.payload.usage import TAIL_READS
from llmlaunch.gateway.request import ClientRequest

LAST_CHUNK = b"0\r\n\r\n"
_HELD_LIMIT = 8 << 10
_EVENTS = (b"", b"text/event-stream")


def in_chunk(data: bytes) -> bytes:
    """``data`` as one chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class ResponseRelay:
    """One answer. The bytes that its methods return are to be written to the client."""

    __slots__ = (
        "_cors_fields", "_framing", "_meter", "_request", "_rewriter", "_wants_chunks", "client_head", "decodes",
        "ends_with_connection", "framed", "head", "held", "keep_alive", "rewrites", "tail",
    )  # fmt: skip

    def __init__(
        self,
        request: ClientRequest,
        head: ResponseHead,
        framing: BodyFraming,
        rewriter: ContentRewriter | None,
        cors_fields: bytes,
        stopping: bool,
    ) -> None:
        """``rewriter``: what changes the answer on its way; None: it passes as it is."""
        self._request = request
        self._framing = framing
        self._cors_fields = cors_fields
        self._rewriter = rewriter
        self.rewrites = rewriter is not None
        self.head = head
        self.tail: deque[bytes] = deque(maxlen=TAIL_READS)
        metered = request.api_key.limits.tpm is not None and request.endpoint.answers_text
        self._meter = TokenMeter() if metered else None
        http11 = request.http11
        self.ends_with_connection = framing.until_close
        self.decodes = rewriter is not None or (framing.chunked and not http11)
        """Whether the replica's chunked framing has to be decoded."""
        sized = head.length is not None and rewriter is None
        self._wants_chunks = chunked = http11 and (rewriter is not None or framing.chunked)
        """Whether the client gets the answer chunked."""
        self.framed = sized or chunked
        """Whether the client can see from chunks or length that the answer is complete."""
        self.keep_alive = request.keep_alive and self.framed and not stopping
        """Whether the client's connection can take another request afterwards."""
        self.client_head = b""
        """The head for the client, to be written before the first content."""
        self.held = b""
        """What has come of the content, as long as that is comments alone."""
        if rewriter is None or rewriter.streams:
            self.client_head = self._make_head(head.length if sized else None, chunked)

    @property
    def observer(self) -> Callable[[bytes], None]:
        """To be called with each piece that bypasses :meth:`feed`: keeps the last ones, and estimates tokens."""
        return self.tail.append if self._meter is None else self._observe

    @property
    def passes_chunks(self) -> bool:
        """Whether the chunks of the answer may be passed on unchanged."""
        return self._framing.chunked and not self.decodes

    @property
    def counted_tokens(self) -> int:
        """The estimated tokens of the answer; 0 unless the request's key has a limit of tokens."""
        return 0 if self._meter is None else self._meter.tokens

    def head_is_sent(self) -> None:
        """The client has a stream's head already, so that only content may follow. Call it before the first content."""
        self.client_head = b""
        if self._rewriter is None and self._request.http11 and not self._wants_chunks:
            self._rewriter = Unchanged()
            self.rewrites = self.decodes = self.framed = self._wants_chunks = True
            self.keep_alive = self._request.keep_alive

    def hold(self, data: bytes) -> bytes:
        """What has come, once there is content to :meth:`feed`; empty while there are only comments, which are held back."""
        held = self.held + data
        if only_comments(held) and len(held) < _HELD_LIMIT:
            self.held = held
            return b""
        self.held = b""
        return held

    def comment(self) -> bytes:
        """A comment for the client, if one may come now: between two events of a stream. Else empty."""
        rewriter = self._rewriter
        if not is_event_stream(self.head) or (rewriter is not None and rewriter.content_type not in _EVENTS):
            return b""
        if not self.decodes and self._framing.before_interruption() != b"":
            return b""
        last = b"".join(self.tail)
        if self.passes_chunks:
            last = last.removesuffix(b"\r\n")
        if not last.endswith((b"\n\n", b"\r\n\r\n")):
            return b""
        return in_chunk(COMMENT) if self._wants_chunks else COMMENT

    def feed(self, data: bytes) -> bytes:
        """What ``data`` becomes for the client; empty while it is held back to be rewritten."""
        self.tail.append(data)
        if self._meter is not None:
            self._meter.feed(data)
        if self._rewriter is not None:
            data = self._rewriter.feed(data)
            if data and self._request.http11:
                data = in_chunk(data)
        return data

    def end(self, stopping: bool) -> bytes:
        """What is left to write when the answer is complete. ``stopping``: the gateway accepts no more requests."""
        rewriter = self._rewriter
        data = self.feed(self.held) if self.held else b""
        if rewriter is None:
            return data
        last = rewriter.end()
        if not rewriter.streams:
            self.keep_alive = self._request.keep_alive and not stopping
            return self._make_head(len(last), chunked=False) + last
        if not self._request.http11:
            return data + last
        return data + (in_chunk(last) if last else b"") + LAST_CHUNK

    def is_truncated(self) -> bool:
        """Whether an answer that ended with its connection is incomplete."""
        return not is_complete(self.head.get(b"content-type"), b"".join(self.tail))

    def interruption(self, why: str) -> bytes | None:
        """What tells the client that the answer ends early; None: only closing the connection can."""
        streams = self.head.get(b"content-type").startswith(b"text/event-stream")
        filler = b"" if self.decodes else self._framing.before_interruption()
        if not streams or filler is None:
            return None
        dialect, message = self._request.endpoint.dialect, f"The answer was interrupted: {why}."
        # The newlines finish an event that was cut; between events they have no meaning.
        event = b"\n\n" + errors.stream_error(message) if dialect is None else dialect.interruption(message)
        return filler + in_chunk(event) if self._wants_chunks else event

    def _observe(self, data: bytes) -> None:
        self.tail.append(data)
        if self._meter is not None:
            self._meter.feed(data)

    def _make_head(self, length: int | None, chunked: bool) -> bytes:
        framing = b"" if self.keep_alive else b"connection: close\r\n"
        head, request = self.head, self._request
        if chunked:
            framing += b"transfer-encoding: chunked\r\n"
        elif length is not None and head.status not in (204, 304):
            framing += b"content-length: %d\r\n" % length
        framing += self._cors_fields
        onward = head.onward
        if self._rewriter is not None and self._rewriter.content_type:
            onward = headers.with_content_type(onward, self._rewriter.content_type)
        return headers.to_client(head.status, head.reason, onward, request.identity, framing)
