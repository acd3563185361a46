"""The endpoints of the gateway's API, by path. Pure.

A base URL with a slash too many, or with ``/v1`` missing, doubled or behind ``/openai``, is a common mistake, and there is
only one thing that it can mean. Such a path leads to the endpoint itself, so keys, limits and metrics apply to it in the
same way. Nothing else is guessed: percent-encoding, dot segments and upper case are left as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from urllib.parse import unquote_to_bytes

from llmlaunch.common.spelling import nearest
from llmlaunch.gateway.dialects.anthropic import COUNT_TOKENS, MESSAGES
from llmlaunch.gateway.dialects.dialect import Dialect
from llmlaunch.gateway.errors import Reply


class EndpointKind(Enum):
    """How a request is answered: by a replica (PROXY, CHECK, RESPONSE), or by the gateway itself."""

    PROXY = auto()
    CHECK = auto()
    """Like PROXY, but each prompt names its model."""
    RESPONSE = auto()
    MODELS = auto()
    MODEL = auto()
    HEALTH = auto()
    READY = auto()
    METRICS = auto()
    OLLAMA = auto()
    """One of Ollama's that the gateway answers itself."""
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class ApiEndpoint:
    """One endpoint of the API."""

    kind: EndpointKind
    methods: tuple[bytes, ...]
    label: str
    """The path as metrics name it."""
    needs_key: bool = True
    """It needs an API key, if the gateway has any."""
    upstream: bytes = b""
    """The path at the worker."""
    name: str = ""
    """The model or the response id that is a part of the path."""
    has_usage: bool = False
    """Its responses contain a token usage."""
    dialect: Dialect | None = None
    """The API that it belongs to; None: OpenAI's, or our own."""
    own_reply: Callable[[bytes], Reply | None] | None = None
    """The gateway's reply to a body that needs no replica, only a model that is served; None: it needs one. Raises
    InvalidBody."""
    has_tags: bool = False
    """Models may be named with a tag (``routing.model_tags``)."""
    takes_forms: bool = False
    """Its body may be a form (multipart/form-data) with a file."""
    answers_text: bool = True
    """False: the size of a response says nothing about its tokens."""

    @property
    def allowed(self) -> str:
        """The value of ``Allow``."""
        return ", ".join(method.decode() for method in (*self.methods, b"OPTIONS"))


UNKNOWN: ApiEndpoint = ApiEndpoint(EndpointKind.UNKNOWN, (), "other")
_GET = (b"GET", b"HEAD")
_POST = (b"POST",)


def _proxy(
    path: str, upstream: str = "", *, has_usage: bool = True, dialect: Dialect | None = None
) -> ApiEndpoint:
    target = (upstream or path).encode()
    return ApiEndpoint(EndpointKind.PROXY, _POST, path, upstream=target, has_usage=has_usage, dialect=dialect)


def _media(path: str, *, takes_forms: bool, answers_text: bool) -> ApiEndpoint:
    return ApiEndpoint(
        EndpointKind.PROXY,
        _POST,
        path,
        upstream=path.encode(),
        takes_forms=takes_forms,
        answers_text=answers_text,
    )


KNOWN: dict[str, ApiEndpoint] = {
    endpoint.label: endpoint
    for endpoint in (
        _proxy("/v1/chat/completions"),
        _proxy("/v1/completions"),
        _proxy("/v1/embeddings"),
        _proxy("/v1/responses"),
        _proxy("/v1/responses/input_tokens", has_usage=False),
        _proxy("/v1/responses/compact"),
        _proxy("/v1/rerank"),
        _proxy("/v2/rerank"),
        _proxy("/rerank", "/v1/rerank"),
        _proxy("/v1/score"),
        _proxy("/score", "/v1/score"),
        _proxy("/tokenize", has_usage=False),
        _proxy("/detokenize", has_usage=False),
        _proxy("/v1/messages", dialect=MESSAGES),
        _proxy("/v1/messages/count_tokens", has_usage=False, dialect=COUNT_TOKENS),
        _proxy("/pooling"),
        _proxy("/classify"),
        _proxy("/v1/moderations", has_usage=False),
        _media("/v1/audio/transcriptions", takes_forms=True, answers_text=True),
        _media("/v1/audio/translations", takes_forms=True, answers_text=True),
        _media("/v1/audio/speech", takes_forms=False, answers_text=False),
        _media("/v1/images/generations", takes_forms=False, answers_text=False),
        _media("/v1/images/edits", takes_forms=True, answers_text=False),
        _media("/v1/images/variations", takes_forms=True, answers_text=False),
        # For FastChat's clients.
        _proxy("/api/v1/chat/completions", "/v1/chat/completions"),
        ApiEndpoint(EndpointKind.CHECK, _POST, "/api/v1/token_check", upstream=b"/api/v1/token_check"),
        ApiEndpoint(EndpointKind.MODELS, _GET, "/v1/models"),
        ApiEndpoint(EndpointKind.HEALTH, _GET, "/health", needs_key=False),
        ApiEndpoint(EndpointKind.READY, _GET, "/ready", needs_key=False),
        ApiEndpoint(EndpointKind.METRICS, _GET, "/metrics"),
    )
}
"""The endpoints whose path is fixed."""
_PATHS = {label.encode(): endpoint for label, endpoint in KNOWN.items()}
_MESSAGES = b"/v1/messages/"
_UNKNOWN_TO_ANTHROPIC = replace(UNKNOWN, dialect=MESSAGES)
_MODEL = b"/v1/models/"
_RESPONSE = re.compile(rb"/v1/responses/([A-Za-z0-9_-]{1,200})(/input_items|/cancel)?")
_RESPONSE_METHODS = {b"": (b"GET", b"DELETE"), b"/input_items": (b"GET",), b"/cancel": _POST}
_ENGINE, _ENGINE_END = b"/v1/engines/", b"/embeddings"


_SLASHES = re.compile(rb"//+")
_DOOR = re.compile(rb"(?:/openai)?(?:/v1)*(?=/)")
"""What clients put in front of a path, or leave out, instead of one ``/v1``."""


def endpoint(path: bytes) -> ApiEndpoint:
    """The endpoint of ``path``, which has no query; UNKNOWN if there is none."""
    found = _PATHS.get(path)
    if found is not None:
        return found
    path = without_spare_slashes(path)
    found = _endpoint(path)
    return _endpoint(b"/v1" + _DOOR.sub(b"", path, count=1)) if found is UNKNOWN else found


def without_spare_slashes(path: bytes) -> bytes:
    """``path`` with single slashes alone, and none at its end; empty for the root."""
    return _SLASHES.sub(b"/", path).removesuffix(b"/")


def nearest_path(path: str) -> str:
    """The fixed path that a client probably meant by an unknown one; empty if none is near."""
    path = path.rstrip("/").replace("%2F", "/").replace("%2f", "/")
    if path in ("", "/v1"):
        return ""
    # FastChat's name for another path is not worth a hint.
    choices = [known for known in KNOWN if not known.startswith("/api/v1/")]
    below = (known for known in choices if known.startswith(f"{path}/"))
    return next(below, "") or nearest(path, choices, cutoff=0.7)


def _endpoint(path: bytes) -> ApiEndpoint:
    found = _PATHS.get(path)
    if found is not None:
        return found
    if path.startswith(_MODEL) and len(path) > len(_MODEL):
        name = _text(path[len(_MODEL) :])
        return ApiEndpoint(EndpointKind.MODEL, _GET, "/v1/models/{id}", name=name) if name else UNKNOWN
    response = _RESPONSE.fullmatch(path)
    if response is not None:
        identity, rest = response[1].decode(), response[2] or b""
        label = "/v1/responses/{id}" + rest.decode()
        return ApiEndpoint(
            EndpointKind.RESPONSE, _RESPONSE_METHODS[rest], label, upstream=path, name=identity
        )
    if path.startswith(_ENGINE) and path.endswith(_ENGINE_END) and len(path) > len(_ENGINE + _ENGINE_END):
        name = _text(path[len(_ENGINE) : -len(_ENGINE_END)])
        if name:
            label = "/v1/engines/{model}/embeddings"
            return ApiEndpoint(
                EndpointKind.PROXY, _POST, label, upstream=b"/v1/embeddings", name=name, has_usage=True
            )
    return _UNKNOWN_TO_ANTHROPIC if path.startswith(_MESSAGES) else UNKNOWN


def _text(quoted: bytes) -> str:
    try:
        return unquote_to_bytes(quoted).decode()
    except UnicodeDecodeError:
        return ""
