"""What a worker answers when it can not do what was asked, and how it ends when it can not start.

::

    ApiError                        an answer in OpenAI's error envelope
    ├── BadRequest          400     the request is wrong; names the parameter
    ├── ContextOverflow     400     prompt and answer do not fit the context; tells the counts
    ├── WrongKey            401     the caller does not belong to this deployment
    ├── UnknownModel        404     another model's name
    ├── QueueFull           429     more requests wait than the worker takes
    ├── EngineFault         500     the engine failed on this request
    └── Unavailable         503     loading, draining, out of memory

    CanNotServe             exit 2  a start that no retry can mend
    CanNotGoOn              exit 1  a device that is lost to this process, and not to the next one
"""

from __future__ import annotations

from collections.abc import Callable

from llmlaunch.common import error_envelope
from llmlaunch.common.error_envelope import ErrorEnvelope
from llmlaunch.errors import LlmlaunchError


class CanNotServe(LlmlaunchError):
    """The worker can never start like this: a missing model, an unsupported architecture, a device that is not there."""

    code = "can_not_serve"
    exit_code = 2


class CanNotGoOn(LlmlaunchError):
    """This process can compute no more, whatever it is asked; one that is started anew may."""

    code = "can_not_go_on"


Lost = Callable[[CanNotGoOn], None]
"""Who must know of that."""


def first_line(error: Exception, most: int = 300) -> str:
    """What ``error`` says first, in at most so many characters: CUDA's go on for lines."""
    return (str(error).splitlines() or [""])[0][:most]


def reason(error: Exception, most: int = 300) -> str:
    """The kind of ``error`` and what it says first."""
    return f"{type(error).__name__}: {first_line(error, most)}"


class ApiError(Exception):
    """One error answer. ``retry_after_s`` becomes a Retry-After header."""

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
        """OpenAI's shape: ``{"error": {"message", "type", "param", "code"}}``."""
        return error_envelope.envelope(self.message, self.kind, self.param, self.code)


class BadRequest(ApiError):
    status = 400
    kind = "invalid_request_error"


class ContextOverflow(BadRequest):
    code = "context_length_exceeded"


class WrongKey(ApiError):
    status = 401
    kind = "authentication_error"
    code = "invalid_api_key"


class UnknownModel(ApiError):
    status = 404
    kind = "invalid_request_error"
    code = "model_not_found"


class NotFound(ApiError):
    status = 404
    kind = "invalid_request_error"
    code = "not_found"


class MethodNotAllowed(ApiError):
    status = 405
    kind = "invalid_request_error"
    code = "method_not_allowed"


class TooLarge(ApiError):
    status = 413
    kind = "invalid_request_error"
    code = "request_too_large"


class QueueFull(ApiError):
    status = 429
    kind = "rate_limit_error"
    code = "queue_full"
    retry_after_s = 1


class EngineFault(ApiError):
    status = 500
    code = "engine_error"


class Unavailable(ApiError):
    status = 503
    kind = "service_unavailable_error"
    code = "unavailable"
    retry_after_s = 1
