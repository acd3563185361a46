"""Parses the bytes of a client's connection into requests. No I/O.

llhttp (through httptools) parses in strict mode: a Content-Length that is repeated, malformed or combined with
Transfer-Encoding, folded fields, NULs, bare line feeds and broken chunks are errors. ``request_head`` checks what llhttp
leaves to its user, and this module checks sizes. A request that is refused early is still answered in order: it waits in
the queue with its reply, and nothing after it is read.

A body is read completely before its request is answered, so that it can be sent to another replica again.

A head that was accepted once is not parsed again (``head_cache``), because clients send the same one again and again.
Then only the length is read, and llhttp does not see that request at all.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import httptools

from llmlaunch.common.api_key_header import HEADERS, presented_key
from llmlaunch.common.content_coding import BadCodingError, BombError, coding_of, supported, unpack
from llmlaunch.gateway import errors
from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.http1.body_memory import COUNTED_FROM, BodyMemory
from llmlaunch.gateway.http1.head_cache import HeadCache, key_of
from llmlaunch.gateway.http1.headers import named_by_connection, onward, request_id
from llmlaunch.gateway.http1.request_head import framing_fault, host_fault, noted_fields, path_and_query
from llmlaunch.gateway.paths import EndpointKind
from llmlaunch.gateway.request import ClientRequest, Fields

log = logging.getLogger(__name__)

HEAD_LIMIT = 32 << 10
"""The largest head of a request, in bytes."""
FIELDS_LIMIT = 128
"""Header fields of one request."""
DISCARD_LIMIT = 64 << 10
"""Bytes of a refused request's body that are read and dropped to keep the connection open. After a longer body it is
closed."""
PIPELINE_LIMIT = 16
"""Pipelined requests that may wait before reading stops."""
PARSE_BYTES = 16 << 10
"""Bytes that are parsed at a time when more have come and another request may begin among them."""
PARTS_LIMIT = 64
"""Parts of a body that are kept apart. More of them are joined: a small part takes more memory than its bytes."""
_NOT_CACHED = frozenset((b"transfer-encoding", b"content-encoding", b"expect"))
"""A head with one of these fields is not cached: its body is more than a Content-Length's worth of bytes."""
_OF_THE_BODY = frozenset((b"content-length", b"content-encoding"))
"""Fields that do not pass on: they follow from the body, which is unpacked."""


@dataclass(frozen=True, slots=True)
class ParserRules:
    """The limits and callbacks of a parser."""

    screen: Callable[[ClientRequest], Reply | None]
    """Called when a head is complete: the reply to a request that is refused or answered without its body, else None."""
    new_identity: Callable[[], bytes]
    """Returns a new x-request-id."""
    now: Callable[[], float]
    """The monotonic time in seconds."""
    max_body_bytes: int
    head_cache: HeadCache[ClientRequest] = field(default_factory=HeadCache)
    """Heads of requests that ``screen`` let through. Must be emptied when it may decide otherwise than before."""
    bodies: BodyMemory = field(default_factory=lambda: BodyMemory(1 << 60))


class RequestParser:
    """Parses the input of one connection. :meth:`feed` it, and take complete requests from :attr:`ready`, in order."""

    __slots__ = (
        "_began_fresh", "_coding", "_declared", "_doubled", "_fed", "_fields", "_fresh", "_host", "_key", "_last", "_left",
        "_local", "_noted", "_parser", "_parts", "_request", "_rules", "_size", "_url", "expecting", "in_head",
        "input_closed", "ready", "since", "unread",
    )  # fmt: skip

    def __init__(self, rules: ParserRules, local: bool) -> None:
        self._rules = rules
        self._local = local
        self._parser = httptools.HttpRequestParser(self)
        self._host = b""
        """The last valid Host of this connection."""
        self._request: ClientRequest | None = None
        """The request whose head is complete and whose body is not."""
        self._parts: list[bytes | bytearray] = []
        self._coding = ""
        """How the body is packed; empty: it is not."""
        self._fed = 0
        """Bytes since a head began or a part of a body came. llhttp does not show an incomplete field or trailer."""
        self._fresh = True
        """The bytes being parsed begin a request."""
        self.in_head = False
        self._last = False
        """The client announced that no request follows the last one."""
        self._key: bytes | None = None
        """The cache key of the head at the beginning of the bytes being parsed."""
        self._left = 0
        """Bytes to come of a body that llhttp does not see."""
        self.input_closed = False
        """Further input is ignored."""
        self.expecting = False
        """The client waits for ``100 Continue`` before it sends a body that is wanted."""
        self.unread = b""
        """Bytes that came when PIPELINE_LIMIT requests were waiting: unparsed they take less memory."""
        self.ready: deque[ClientRequest] = deque()
        """Complete requests, in order."""
        self.since = rules.now()
        """When the current wait began: for a head, for the rest of it, or for more of a body."""

    @property
    def mid_request(self) -> bool:
        """Whether a part of a request has come."""
        return self.in_head or self._request is not None

    def feed(self, data: bytes) -> None:
        """Parse ``data``. Never raises: input that cannot be parsed becomes a request with a reply that says so."""
        self.unread = self.unread + data if self.unread else data
        self.parse_unread()

    def parse_unread(self) -> None:
        """Parse the unread bytes, until PIPELINE_LIMIT requests are waiting."""
        data, self.unread = self.unread, b""
        while data and not self.input_closed:
            if len(self.ready) >= PIPELINE_LIMIT:
                self.unread = data
                return
            rest = None
            if self._left:
                rest = self._rest_of_body(data)
            elif not (self.mid_request or self._last):
                rest = self._cached_head(data)
            if rest is None:
                awaited = 0 if self._request is None else self._declared - self._size
                size = max(PARSE_BYTES, awaited)
                self._feed(data[:size])
                rest = data[size:]
            data = rest

    def end(self) -> None:
        """Ignore further input, and drop the requests that are waiting."""
        release = self._rules.bodies.release
        if self._request is not None:
            release(self._request)
            self._parts = []
        while self.ready:
            release(self.ready.popleft())
        self.input_closed = True
        self.unread = b""

    def _feed(self, data: bytes) -> None:
        self._fresh = not self.mid_request
        if self._fresh:
            self.since = self._rules.now()
            self._fed = 0
        self._fed += len(data)
        self._parse(data)
        if self.mid_request and self._fed > HEAD_LIMIT and not self.input_closed:
            self.refuse_rest(errors.header_too_large(HEAD_LIMIT))

    def _cached_head(self, data: bytes) -> bytes | None:
        """Take a request from ``data`` if its head is cached, and return the bytes after it; None: it is not cached."""
        self._key = None
        end = data.find(b"\r\n\r\n")
        found = key_of(data, end) if end > 0 else None
        if found is None:
            return None
        key, length = found
        if length is None:
            return None
        rules = self._rules
        known = rules.head_cache.get(key)
        if known is None or length > rules.max_body_bytes:
            self._key = key
            return None
        self.since = now = rules.now()
        request = known.with_same_head(now, known.identity or rules.new_identity(), self._local)
        if length > COUNTED_FROM and not rules.bodies.reserve(request, length):
            return None
        begin = end + 4
        stop = begin + length
        if len(data) < stop:
            self._request = request
            self._parts = [data[begin:]] if len(data) > begin else []
            self._left = stop - len(data)
            return b""
        request.body = data[begin:stop]
        self.ready.append(request)
        return data[stop:]

    def _rest_of_body(self, data: bytes) -> bytes:
        """Take more of the body of such a request from ``data``, and return the bytes after it."""
        left = self._left
        self._keep(data[:left])
        self._left = max(0, left - len(data))
        if self._left:
            self.since = self._rules.now()
        else:
            self.on_message_complete()
        return data[left:]

    def _remember(self, request: ClientRequest, own_identity: bytes) -> None:
        """Cache the head of ``request`` under ``_key``: it was let through, and will be with any length."""
        key, self._key = self._key, None
        if key is None or not self._began_fresh or request.endpoint.kind is not EndpointKind.PROXY:
            return
        if request.endpoint.takes_forms:  # each has a boundary of its own
            return
        if request.http11 and request.keep_alive and not self._noted.keys() & _NOT_CACHED:
            known = request.with_same_head(0.0, own_identity, False)
            onward(known, plain=False)  # made once, and shared by all requests with this head
            self._rules.head_cache.put(key, known)

    def _parse(self, rest: bytes | memoryview) -> None:
        while rest and not self.input_closed:
            try:
                self._parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                rest = memoryview(rest)[upgrade.args[0] :]
                self._without_upgrade()
            except httptools.HttpParserError as error:
                self._parse_error(error)
                return
            else:
                return

    def refuse_rest(self, reply: Reply) -> None:
        """Answer the incomplete request with ``reply``, unless it has one already, and ignore further input."""
        rules = self._rules
        request = self._request or ClientRequest(
            b"GET", b"", b"", True, False, rules.now(), rules.new_identity()
        )
        if request.reply is None:
            request.reply = reply
        self.in_head = False
        self._append_last(request)

    def _without_upgrade(self) -> None:
        """Go on as if there were no ``Upgrade`` field: the gateway offers no upgrade, so it may be ignored (RFC 9110 §7.8).

        llhttp stops parsing HTTP after such a head, so a new parser gets the head again without the field.
        """
        if self.input_closed:
            return
        parser = self._parser
        if parser.get_method() == b"CONNECT":
            self.refuse_rest(errors.method_not_allowed("CONNECT", "This server", "GET, HEAD, POST, OPTIONS"))
            return
        fields = [b"%b: %b\r\n" % field for field in self._fields if field[0] != b"upgrade"]
        start = b"%b %b HTTP/%b\r\n" % (parser.get_method(), self._url, parser.get_http_version().encode())
        self._parser = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(start + b"".join(fields) + b"\r\n")
        except httptools.HttpParserError as error:
            self._parse_error(error)

    # -- called by httptools

    def on_message_begin(self) -> None:
        """A request begins."""
        if self.input_closed:
            return
        self._url = b""
        self._fields: Fields = []
        self._began_fresh = self._fresh
        if not self._fresh:  # it begins somewhere within these bytes
            self._fed = 0
        self._fresh = False
        self.in_head = True

    def on_url(self, url: bytes) -> None:
        """A part of the request target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One complete header field, or a trailer."""
        if self.in_head:  # trailers are ignored
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is complete: make the request, and decide whether its body is wanted."""
        self.in_head = False
        if self.input_closed or self._parser.should_upgrade():
            return
        parser = self._parser
        self._noted, self._doubled = noted_fields(self._fields)
        noted = self._noted
        connection = noted.get(b"connection")
        path, query = path_and_query(self._url)
        rules = self._rules
        own_identity = request_id(noted.get(b"x-request-id", b""), b"")
        http11 = parser.get_http_version() == "1.1"
        request = self._request = ClientRequest(
            parser.get_method(),
            path,
            query,
            http11,
            parser.should_keep_alive() and http11,
            rules.now(),
            own_identity or rules.new_identity(),
            [line for line in self._fields if line[0] not in _OF_THE_BODY],
        )
        request.local = self._local
        request.presented_key = presented_key(*(noted.get(name, b"") for name in HEADERS))
        request.origin = noted.get(b"origin", b"")
        if connection is not None:
            request.named_by_connection = named_by_connection(connection)
        self._parts = []
        self._size = 0
        # llhttp accepts nothing but digits.
        self._declared = int(noted.get(b"content-length", b"0"))
        request.reply = self._fault(request) or rules.screen(request) or self._coding_fault()
        if request.reply is None:
            self._remember(request, own_identity)
            if self._declared > rules.max_body_bytes:
                request.reply = errors.body_too_large(rules.max_body_bytes)
            elif self._declared > COUNTED_FROM and not rules.bodies.reserve(request, self._declared):
                request.reply = errors.body_memory_full()
        self._before_body(request)

    def on_body(self, data: bytes) -> None:
        """A part of the body, without chunk framing."""
        request = self._request
        if request is None or self.input_closed:
            return
        self.expecting = False
        self._size += len(data)
        if request.reply is not None:
            self._fed = 0
            if self._size > DISCARD_LIMIT:
                self._append_last(request)
        elif self._size > self._rules.max_body_bytes:
            request.reply = errors.body_too_large(self._rules.max_body_bytes)
            self._append_last(request)
        elif self._size > max(request.reserved, COUNTED_FROM) and not self._rules.bodies.reserve(
            request, self._size
        ):
            request.reply = errors.body_memory_full()
            self._append_last(request)
        else:
            self._keep(data)
            self.since = self._rules.now()
            self._fed = 0

    def _keep(self, data: bytes) -> None:
        parts = self._parts
        if parts and isinstance(parts[0], bytearray):
            parts[0] += data
        elif len(parts) < PARTS_LIMIT:
            parts.append(data)
        else:
            self._parts = [bytearray().join((*parts, data))]

    def on_message_complete(self) -> None:
        """The request is complete: append it to :attr:`ready`."""
        request, self._request = self._request, None
        if request is None or self.input_closed:
            return
        self.expecting = False
        parts, self._parts = self._parts, []
        request.body = bytes(parts[0]) if len(parts) == 1 else b"".join(parts)
        if self._coding:
            self._unpack(request)
        self._last = not request.keep_alive
        self.ready.append(request)

    def _unpack(self, request: ClientRequest) -> None:
        """Unpack the body, within the limits for bodies that come unpacked; or give the request the reply that says why not."""
        coding, self._coding = self._coding, ""
        if request.reply is not None or not request.body:
            return
        rules, packed, request.body = self._rules, request.body, b""
        size, parts = 0, []
        try:
            for piece in unpack(packed, coding):
                size += len(piece)
                if size > rules.max_body_bytes:
                    request.reply = errors.body_too_large(rules.max_body_bytes)
                    return
                if size > max(request.reserved, COUNTED_FROM) and not rules.bodies.reserve(request, size):
                    request.reply = errors.body_memory_full()
                    return
                parts.append(piece)
        except BadCodingError as error:
            request.reply = errors.broken_content_encoding(coding, str(error))
            return
        except BombError as error:
            request.reply = errors.packed_body_too_large(str(error))
            return
        request.body = b"".join(parts)

    # -- checks

    def _coding_fault(self) -> Reply | None:
        """Note how the body is packed. The reply to a coding that cannot be unpacked; None: it can."""
        field = self._noted.get(b"content-encoding", b"").decode("latin-1")
        coding = coding_of(field) if field else ""
        self._coding = coding or ""
        return errors.unsupported_content_encoding(field, ", ".join(supported())) if coding is None else None

    def _head_size(self) -> int:
        """Bytes of the head: an upper bound if that is below the limit, else an estimate."""
        if self._began_fresh and self._fed <= HEAD_LIMIT:
            return self._fed
        return len(self._url) + sum(len(name) + len(value) + 4 for name, value in self._fields)

    def _fault(self, request: ClientRequest) -> Reply | None:
        """The reply to a head that breaks rules which llhttp does not check; None: it is fine."""
        if len(self._fields) > FIELDS_LIMIT or self._head_size() > HEAD_LIMIT:
            request.keep_alive = False
            return errors.header_too_large(HEAD_LIMIT)
        noted, doubled = self._noted, self._doubled
        reply = host_fault(noted, doubled, request.http11, self._host)
        if reply is None:
            self._host = noted.get(b"host", self._host)
            reply = framing_fault(noted, self._parser.get_http_version())
        if reply is not None:
            request.keep_alive = False
        return reply

    def _before_body(self, request: ClientRequest) -> None:
        expects = self._noted.get(b"expect", b"").lower() == b"100-continue" and request.http11
        if request.reply is None:
            self.expecting = expects
        elif expects or self._declared > DISCARD_LIMIT or not request.keep_alive:
            self._append_last(request)

    def _append_last(self, request: ClientRequest) -> None:
        """Append ``request`` as the last one of this connection, and ignore further input."""
        self._parts = []
        self._rules.bodies.release(request)
        request.keep_alive = False
        self._request = None
        self.expecting = False
        self.input_closed = True
        self.unread = b""
        self.ready.append(request)

    def _parse_error(self, error: Exception) -> None:
        if self.input_closed:
            return
        if self._last and not self.in_head and self._request is None:
            self.input_closed = True  # bytes after a request that the client announced as the last
            return
        cause = error.__context__
        if isinstance(error, httptools.HttpParserCallbackError) and cause is not None:
            log.error("a parser callback failed", exc_info=cause)
        self.refuse_rest(errors.malformed_http(str(error) or "it cannot be parsed"))
