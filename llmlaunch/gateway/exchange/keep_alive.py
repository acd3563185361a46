"""What keeps a stream open while its replica is silent: a head of the gateway's own, and comments. Pure.

nginx and load balancers cut a connection that carries nothing for 60 s. A queue, a long prompt and hidden thoughts all take
longer than that. Comments are no content: as long as nothing else has gone to the client, another replica can still answer.
"""

from __future__ import annotations

import json
import re

from llmlaunch.gateway import errors
from llmlaunch.gateway.dialects.dialect import Dialect
from llmlaunch.gateway.http1.framing import ResponseHead
from llmlaunch.gateway.payload.error_body import ErrorBody, in_envelope
from llmlaunch.gateway.payload.model_field import InvalidBody, asks_for_stream, parse
from llmlaunch.gateway.request import ClientRequest

KEEP_ALIVE_S = 10.0
"""Seconds of silence after which a stream gets a comment, and at its beginning its head."""
COMMENT = b": keep-alive\n\n"
_STREAMS = frozenset((b"/v1/chat/completions", b"/v1/completions", b"/v1/responses"))
"""The endpoints of replicas that answer ``"stream": true`` with events."""
# Possessive, so that no input makes it backtrack. The size of a chunk is a line of its own.
_COMMENTS = re.compile(rb"(?:(?:[0-9A-Fa-f]*+|:[^\r\n]*+)[\r\n]++)*+(?:[0-9A-Fa-f]*+|:[^\r\n]*+)")


def only_comments(data: bytes) -> bool:
    """Whether ``data``, from the beginning of a line on, has no content as far as it goes, with or without chunk framing."""
    return _COMMENTS.fullmatch(data) is not None


def promises_events(request: ClientRequest) -> bool:
    """Whether the answer to ``request``, if it is a good one, is a stream of events. Parses the body: not for every request."""
    dialect = request.endpoint.dialect
    events = request.endpoint.upstream in _STREAMS if dialect is None else dialect.streams_events
    if not events or not asks_for_stream(request.body):
        return False
    try:
        return parse(request.body).get("stream") is True
    except InvalidBody:  # the replica will refuse it
        return False


def is_event_stream(head: ResponseHead) -> bool:
    """Whether a stream of events follows ``head``, as it was promised."""
    plain = head.get(b"content-encoding") in (b"", b"identity")
    return head.status == 200 and plain and head.get(b"content-type").lower().startswith(b"text/event-stream")


def error_event(body: bytes, dialect: Dialect | None) -> bytes:
    """The error ``body``, in OpenAI's envelope, as the last event of a stream."""
    if dialect is None:
        return b"data: " + json.dumps(json.loads(body)).encode() + b"\n\n"
    return dialect.interruption(str(json.loads(body)["error"]["message"]))


class Unchanged:
    """Passes a stream on as it is. Implements ``content_rewriter.ContentRewriter``."""

    streams = True
    content_type = b""

    def feed(self, content: bytes) -> bytes:
        """Return ``content``."""
        return content

    def end(self) -> bytes:
        """Return nothing."""
        return b""


class ErrorEvent:
    """Turns any other answer than a stream into an error event. Implements ``content_rewriter.ContentRewriter``."""

    streams = True
    content_type = b""

    def __init__(self, head: ResponseHead, dialect: Dialect | None) -> None:
        self._head = head
        self._dialect = dialect
        self._body = ErrorBody(head.status)

    def feed(self, content: bytes) -> bytes:
        """Keep the beginning of ``content``, and return nothing."""
        return self._body.feed(content)

    def end(self) -> bytes:
        """Return the event."""
        head = self._head
        if head.status < 400:
            kind = head.get(b"content-type").decode("latin-1") or "no content type"
            message = f"The replica answered {head.status} with {kind} instead of a stream."
            body = errors.envelope(message, errors.SERVER, None, "bad_answer")
        elif head.get(b"content-encoding") not in (b"", b"identity"):
            body = in_envelope(head.status, b"") or b""
        else:
            body = self._body.end()
        return error_event(body, self._dialect)
