"""The gateway's own replies: errors in OpenAI's envelope, each with its status and code. Pure."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from http import HTTPStatus

from llmlaunch.common import error_envelope
from llmlaunch.common.browser_guard import Refusal

INVALID, SERVER = error_envelope.INVALID_REQUEST, error_envelope.SERVER


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete response of the gateway's own. ``fields`` are header lines, each with its line end."""

    status: int
    body: bytes
    fields: bytes = b""
    content_type: bytes = b"application/json"

    @property
    def start(self) -> bytes:
        """The status line, with its line end."""
        return b"HTTP/1.1 %d %b\r\n" % (self.status, HTTPStatus(self.status).phrase.encode())


def envelope(message: str, kind: str, param: str | None, code: str | None) -> bytes:
    """OpenAI's error object: ``{"error": {"message", "type", "param", "code"}}``."""
    return json.dumps(error_envelope.envelope(message, kind, param, code)).encode()


def error(
    status: int,
    message: str,
    *,
    kind: str = INVALID,
    param: str | None = None,
    code: str | None = None,
    fields: bytes = b"",
) -> Reply:
    """A reply with OpenAI's error object. ``fields``: further header lines, each with its line end."""
    return Reply(status, envelope(message, kind, param, code), fields)


def bad_request(message: str, param: str | None = None) -> Reply:
    """400 for a body that cannot be used; ``param`` names the parameter at fault."""
    return error(400, message, param=param)


def malformed_http(reason: str) -> Reply:
    """400 for a request that breaks HTTP/1.1's rules."""
    return error(400, f"The request is not valid HTTP: {reason}.", code="bad_http")


def header_too_large(limit: int) -> Reply:
    """431; ``limit`` is in bytes."""
    return error(431, f"The request's header is larger than {limit} bytes.", code="header_too_large")


def body_too_large(limit: int) -> Reply:
    """413; ``limit`` is in bytes."""
    shown = f"{limit >> 20} MiB" if limit % (1 << 20) == 0 else f"{limit} bytes"
    return error(413, f"The request's body is larger than {shown}.", code="body_too_large")


def packed_body_too_large(why: str) -> Reply:
    """413 for a packed body that is not too large yet, but grows as no text does; ``why`` says by how much."""
    return error(413, f"The request's body, unpacked, is {why}.", code="body_too_large")


def unsupported_content_encoding(name: str, supported: str) -> Reply:
    """415 for a body in a coding that is not ``supported``, a list of those that are (RFC 9110 §15.5.16)."""
    message = f"Content-Encoding {name!r} is not supported; supported: {supported}."
    fields = b"accept-encoding: %b\r\n" % supported.encode()
    return error(415, message, code="unsupported_content_encoding", fields=fields)


def broken_content_encoding(name: str, why: str) -> Reply:
    """400 for a body that is not in the coding which its Content-Encoding names; ``why`` says what is wrong."""
    return error(
        400, f"The body is not valid {name}, as Content-Encoding says: {why}.", code="bad_content_encoding"
    )


def body_memory_full() -> Reply:
    """503 while other requests' bodies fill the memory set aside for them."""
    message = "The gateway's memory for request bodies is full. Try again soon."
    return error(503, message, kind=SERVER, code="bodies_full", fields=_retry(2))


def unsupported_transfer_encoding() -> Reply:
    """501 for a Transfer-Encoding other than chunked."""
    return error(501, "The only supported Transfer-Encoding is chunked.", code="transfer_encoding")


def unsupported_http_version() -> Reply:
    """505 for a version of HTTP other than 1.0 and 1.1."""
    return error(505, "This server speaks HTTP/1.1 and HTTP/1.0.", code="http_version")


def request_timeout() -> Reply:
    """408 for a request that arrived too slowly."""
    return error(408, "The request timed out before it was complete.", code="request_timeout")


def unknown_path(path: str, meant: str) -> Reply:
    """404 for a path that the gateway does not serve; ``meant``: one that it does serve, if one is near, else empty."""
    hint = f" Did you mean {meant}?" if meant else ""
    return error(404, f"Unknown path: {path}.{hint}", code="unknown_url")


def ollama_is_off(path: str) -> Reply:
    """404 for a path of Ollama's API, which this gateway does not answer."""
    message = (
        f"Unknown path: {path}. Ollama's API is answered with ollama: true under api (llmlaunch api --ollama); "
        "OpenAI's is at /v1."
    )
    return error(404, message, code="unknown_url")


def method_not_allowed(method: str, path: str, allowed: str) -> Reply:
    """405 with ``Allow``; ``allowed`` lists methods, joined with commas."""
    fields = b"allow: %b\r\n" % allowed.encode()
    message = f"{path} does not allow {method}; allowed: {allowed}."
    return error(405, message, code="method_not_allowed", fields=fields)


def invalid_api_key(missing: bool) -> Reply:
    """401 for an API key that is ``missing`` or unknown."""
    message = (
        "You did not provide an API key. Send it as a header: Authorization: Bearer YOUR_KEY, or x-api-key: YOUR_KEY."
        if missing
        else "Invalid API key."
    )
    # Claude Code retries a 401 ten times, in case its user has just signed in, unless it is told not to.
    fields = b"www-authenticate: Bearer\r\nx-should-retry: false\r\n"
    return error(401, message, code="invalid_api_key", fields=fields)


def refused_by_browser_guard(refusal: Refusal) -> Reply:
    """The reply to a request that the browser guard refused."""
    return error(refusal.status, refusal.message, code=refusal.code)


def model_not_found(name: str) -> Reply:
    """404 for a model that is not deployed."""
    return error(404, f"The model `{name}` does not exist.", param="model", code="model_not_found")


def response_not_found(identity: str) -> Reply:
    """404 for a response id of /v1/responses that no replica holds."""
    message = (
        f"Response `{identity}` not found: its worker is gone, or its id does not say which worker keeps it."
    )
    return error(404, message, code="response_not_found")


def _retry(seconds: int) -> bytes:
    return b"retry-after: %d\r\n" % seconds


def model_not_ready(name: str) -> Reply:
    """503 for a known model without a serving replica."""
    message = f"The model `{name}` is not ready: no replica is serving it. Try again soon."
    return error(503, message, kind=SERVER, param="model", code="model_not_ready", fields=_retry(5))


def replica_unavailable(name: str, why: str) -> Reply:
    """503 when no replica that was tried sent a response; ``why`` says what happened."""
    message = f"No replica of the model `{name}` answered: {why}. Try again soon."
    return error(503, message, kind=SERVER, code="replica_unavailable", fields=_retry(1))


def request_breaks_replicas(name: str, seconds: float) -> Reply:
    """500 for a request on which several replicas failed. It is refused for ``seconds`` more.

    OpenAI's clients retry a 5xx unless ``x-should-retry`` tells them not to.
    """
    message = (
        f"Replicas of the model `{name}` died or fell silent each time they worked on this request. It is not sent to "
        f"another one; the same request is refused for the next {math.ceil(seconds)} s."
    )
    fields = b"x-should-retry: false\r\n"
    return error(500, message, kind=SERVER, code="request_breaks_replicas", fields=fields)


def invalid_replica_response(name: str, why: str) -> Reply:
    """502 when a replica's response breaks its protocol; ``why`` says how."""
    message = f"A replica of the model `{name}` sent an invalid response: {why}."
    return error(502, message, kind=SERVER, code="bad_answer")


def queue_full(name: str, waiting: int) -> Reply:
    """429 when the model's queue is full; ``waiting`` is its length."""
    message = f"All replicas of the model `{name}` are busy, and {waiting} requests are already waiting."
    return error(429, message, kind="rate_limit_error", code="queue_full", fields=_retry(2))


def queue_timeout(name: str, seconds: float) -> Reply:
    """429 for a request that waited ``seconds`` in the queue."""
    message = f"No replica of the model `{name}` had a free slot within {seconds:g} s."
    return error(429, message, kind="rate_limit_error", code="queue_timeout", fields=_retry(5))


def model_not_allowed(name: str) -> Reply:
    """403 for a model that the API key does not include."""
    return error(
        403, f"Your API key may not use the model `{name}`.", param="model", code="model_not_allowed"
    )


_LIMITS = {
    "requests": ("{} requests a minute", "rate_limit_exceeded"),
    "tokens": ("{} tokens a minute", "rate_limit_exceeded"),
    "concurrency": ("{} requests at a time", "concurrency_limit_exceeded"),
}


def key_limit_exceeded(what: str, limit: int | None, wait_s: int) -> Reply:
    """429 for a request beyond a limit of its API key; ``what`` is as in ``rates.LimitExceeded``."""
    text, code = _LIMITS[what]
    message = f"Your API key is limited to {text.format(limit)}. Try again in {wait_s} s."
    kind = "tokens" if what == "tokens" else "requests"
    return error(429, message, kind=kind, code=code, fields=_retry(wait_s))


def queue_share_full(name: str) -> Reply:
    """429 when one API key has filled its share of the model's queue."""
    message = (
        f"All replicas of the model `{name}` are busy, and your other requests fill your share of the queue."
    )
    return error(429, message, kind="rate_limit_error", code="queue_full", fields=_retry(2))


def gateway_starting() -> Reply:
    """503 before the first route table has arrived."""
    message = "The gateway has not heard from its controller yet."
    return error(503, message, kind=SERVER, code="starting", fields=_retry(1))


def too_many_connections() -> Reply:
    """503 when no file descriptor is left for another connection."""
    message = "The gateway has reached its limit of open files and takes no more connections. Try again soon."
    return error(503, message, kind=SERVER, code="too_many_connections", fields=_retry(1))


def stopping() -> Reply:
    """503 for requests that come during a shutdown."""
    return error(503, "The gateway is shutting down.", kind=SERVER, code="stopping", fields=_retry(1))


def stream_error(message: str) -> bytes:
    """A server-sent event that OpenAI's clients report as an error of the stream."""
    return b"data: " + envelope(message, SERVER, None, "stream_interrupted") + b"\n\n"
