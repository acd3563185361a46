"""The errors that become responses of a worker, and those that end it.

::

    ApiError                        a response with OpenAI's error envelope
    ├── BadRequest          400     the request is invalid; names the parameter
    │   └── ContextOverflow 400     prompt and answer exceed the context; gives the counts
    ├── WrongKey            401     the caller does not belong to this deployment
    ├── UnknownModel        404     the model is not served here
    ├── NotFound            404     the path or the response does not exist
    ├── MethodNotAllowed    405     the path does not have this method
    ├── RequestTooLarge     413     the body is too large
    ├── UnsupportedEncoding 415     the body is packed in a way that is not known here
    ├── QueueFull           429     too many requests are waiting
    ├── EngineFault         500     the engine failed on this request
    └── Unavailable         503     loading, draining, out of memory

    StartupError            exit 2  the start failed, and a retry cannot help
    DeviceLostError         exit 1  the device is lost to this process, but a new one may use it
"""

from __future__ import annotations

from collections.abc import Callable

from llmlaunch.common import error_envelope
from llmlaunch.common.error_envelope import ErrorEnvelope
from llmlaunch.errors import LlmlaunchError


class StartupError(LlmlaunchError):
    """The worker cannot start: a missing model, an unsupported architecture, a missing device."""

    code = "startup_error"
    exit_code = 2


class DeviceLostError(LlmlaunchError):
    """This process can no longer use its device; a new process may."""

    code = "device_lost"


OnDeviceLost = Callable[[DeviceLostError], None]
"""Called when the device is lost."""


def first_line(error: Exception, most: int = 300) -> str:
    """Return the first line of ``error``'s message, up to ``most`` characters: CUDA's messages are long."""
    return (str(error).splitlines() or [""])[0][:most]


def reason(error: Exception, most: int = 300) -> str:
    """Return the type of ``error`` and the first line of its message."""
    return f"{type(error).__name__}: {first_line(error, most)}"


class ApiError(Exception):
    """An error response. ``retry_after_s`` becomes a Retry-After header."""

    status = 500
    kind = "server_error"
    code: str | None = None
    retry_after_s: int | None = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code

    def envelope(self) -> ErrorEnvelope:
        """Return OpenAI's envelope: ``{"error": {"message", "type", "param", "code"}}``."""
        return error_envelope.envelope(self.message, self.kind, self.param, self.code)


class BadRequest(ApiError):
    """The request is invalid; ``param`` names the parameter."""

    status = 400
    kind = "invalid_request_error"


class ContextOverflow(BadRequest):
    """Prompt and answer exceed the model's context; the message has the counts."""

    code = "context_length_exceeded"

    @classmethod
    def of(cls, context: int, excess: str, param: str) -> ContextOverflow:
        """The error for a model with ``context`` tokens of context; ``excess`` says what has more.

        It begins with OpenAI's words, which clients look for to shorten a conversation and try again.
        """
        return cls(
            f"This model's maximum context length is {context} tokens. However, {excess}.", param=param
        )


class WrongKey(ApiError):
    """The caller does not belong to this deployment."""

    status = 401
    kind = "authentication_error"
    code = "invalid_api_key"


class UnknownModel(ApiError):
    """No model is served here under this name."""

    status = 404
    kind = "invalid_request_error"
    code = "model_not_found"


class NotFound(ApiError):
    """The path, or the stored response, does not exist."""

    status = 404
    kind = "invalid_request_error"
    code = "not_found"


class MethodNotAllowed(ApiError):
    """The path exists, but not with this method. ``allowed`` are those that it has, as in the header Allow."""

    status = 405
    kind = "invalid_request_error"
    code = "method_not_allowed"

    def __init__(self, message: str, allowed: str) -> None:
        super().__init__(message)
        self.allowed = allowed


class RequestTooLarge(ApiError):
    """The body of the request is larger than a worker accepts."""

    status = 413
    kind = "invalid_request_error"
    code = "request_too_large"


class UnsupportedEncoding(ApiError):
    """The body is packed in a way that is not known here. ``accepted`` are those that are, as in the header Accept-Encoding."""

    status = 415
    kind = "invalid_request_error"
    code = "unsupported_content_encoding"

    def __init__(self, message: str, accepted: str) -> None:
        super().__init__(message)
        self.accepted = accepted


class QueueFull(ApiError):
    """Too many requests are waiting."""

    status = 429
    kind = "rate_limit_error"
    code = "queue_full"
    retry_after_s = 1


class EngineFault(ApiError):
    """The engine failed on this request."""

    status = 500
    code = "engine_error"


class Unavailable(ApiError):
    """The worker cannot answer now: it is loading, draining or out of memory."""

    status = 503
    kind = "service_unavailable_error"
    code = "unavailable"
    retry_after_s = 1
