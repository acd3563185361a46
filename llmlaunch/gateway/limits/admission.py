"""What requests cost the keys that have limits: taken on an estimate when they come, settled when they are over. Pure:
time comes in (seconds)."""

from __future__ import annotations

from collections.abc import Callable

from llmlaunch.gateway import errors
from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.limits.rates import BYTES_PER_TOKEN, KeyAccount
from llmlaunch.gateway.request import ClientRequest


class Admission:
    """One account for each key that has limits. ``on_limited`` is told the key and the limit that refused a request."""

    def __init__(self, on_limited: Callable[[str, str], None]) -> None:
        self._on_limited = on_limited
        self._accounts: dict[str, KeyAccount] = {}
        """By the key's name."""

    def admit(self, request: ClientRequest, model: str, now: float) -> Reply | None:
        """Put ``request`` down to its key's account; or why its key cannot have it now. Sets its ``estimate``."""
        key, limits = request.api_key.name, request.api_key.limits
        if not limits.allows(model):
            return errors.model_not_allowed(model)
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = KeyAccount()
        estimate = len(request.body) // BYTES_PER_TOKEN
        exceeded = account.admit(limits, now, estimate)
        if exceeded is not None:
            self._on_limited(key, exceeded.what)
            return errors.key_limit_exceeded(
                exceeded.what, request.api_key.whole.of(exceeded.what), exceeded.wait_s
            )
        request.estimate = estimate
        return None

    def settle(
        self, request: ClientRequest, *, answered: bool, tokens: tuple[int, int] | None, counted: int
    ) -> None:
        """``request``, which was admitted, is over; the rest: see :func:`charge`."""
        estimate = request.estimate or 0
        used = charge(estimate, answered=answered, tokens=tokens, counted=counted)
        self._accounts[request.api_key.name].settle(estimate, used)


def charge(estimate: int, *, answered: bool, tokens: tuple[int, int] | None, counted: int) -> int:
    """The tokens that a key pays for a request whose prompt was estimated to have ``estimate``.

    ``answered``: a replica worked for it, whether or not the client waited for the end. ``tokens``: of the prompt and of
    the completion, where the answer told; else the ``counted`` ones of the answer.
    """
    if not answered:
        return 0
    return sum(tokens) if tokens else estimate + counted
