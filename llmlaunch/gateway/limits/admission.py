"""Admission under the limits of API keys: a request is charged an estimate when it arrives, and what it really used when
it has ended. Pure: time comes in (seconds)."""

from __future__ import annotations

from collections.abc import Callable

from llmlaunch.gateway import errors
from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.limits.rates import BYTES_PER_TOKEN, KeyAccount
from llmlaunch.gateway.request import ClientRequest


class Admission:
    """One account for each key that has limits.

    ``on_limited`` is called with the name of the key and the limit (``LimitExceeded.what``) for each refused request.
    """

    def __init__(self, on_limited: Callable[[str, str], None]) -> None:
        self._on_limited = on_limited
        self._accounts: dict[str, KeyAccount] = {}
        """By the key's name."""

    def admit(self, request: ClientRequest, model: str, now: float) -> Reply | None:
        """Charge ``request`` to the account of its key, and set its ``estimate``; or the reply that refuses it."""
        key, limits = request.api_key.name, request.api_key.limits
        if not limits.allows(model):
            return errors.model_not_allowed(model)
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = KeyAccount()
        # A form is mostly a file, whose size says nothing about tokens.
        estimate = 0 if request.boundary else len(request.body) // BYTES_PER_TOKEN
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
        """Correct the account once an admitted ``request`` has ended. The other arguments: see :func:`charge`."""
        estimate = request.estimate or 0
        used = charge(estimate, answered=answered, tokens=tokens, counted=counted)
        self._accounts[request.api_key.name].settle(estimate, used)


def charge(estimate: int, *, answered: bool, tokens: tuple[int, int] | None, counted: int) -> int:
    """The tokens that a key is charged for a request whose prompt was estimated at ``estimate`` tokens.

    ``answered``: a replica answered it, even if the client left before the end. ``tokens``: those of the prompt and of the
    completion, if the answer reported its usage. Otherwise ``counted``, the estimate for the completion, is used.
    """
    if not answered:
        return 0
    return sum(tokens) if tokens else estimate + counted
