"""Who may talk to the controller, and for which addresses. What is refused says how it would not be."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from starlette.requests import Request

from llmlaunch.controller.bodies import Refused
from llmlaunch.controller.verify import Address, BadAddressError, is_loopback, is_own, parse_address
from llmlaunch.controller.wire import TOKEN_VARIABLE


@dataclass(frozen=True, slots=True)
class Caller:
    ip: str
    trusted: bool
    """It showed the token."""


class Callers:
    """Tells who calls. ``token`` "" means that there is none."""

    def __init__(self, token: str, *, open_registration: bool) -> None:
        self._token = token.encode()
        self._open = open_registration

    def caller(self, request: Request) -> Caller:
        """Who calls. Raises Refused when this caller may not change the table or read the routes."""
        ip = request.client.host if request.client else ""
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        if self._token and scheme.lower() == "bearer":
            if hmac.compare_digest(shown.strip().encode(), self._token):
                return Caller(ip, trusted=True)
            raise Refused(401, "the token is not this controller's", code="invalid_token")
        if "origin" in request.headers:  # a page in somebody's browser reaches loopback addresses, too
            raise Refused(403, "browsers may not do this", code="forbidden")
        if self._open or (not self._token and is_loopback(ip)):
            return Caller(ip, trusted=False)
        if self._token:
            raise Refused(
                401,
                f"show the token: Authorization: Bearer ${TOKEN_VARIABLE}; or let workers without it register: "
                "controller: {open_registration: true}",
                code="missing_token",
            )
        raise Refused(
            403,
            f"without a token this is open to this machine alone: set {TOKEN_VARIABLE} for the controller and for {ip}, "
            "or start the controller with --open-registration",
            code="forbidden",
        )


def address_for(caller: Caller, text: str) -> Address:
    """``text`` as a worker's address. Raises Refused when it is none, or not one that ``caller`` may speak for."""
    try:
        address = parse_address(text)
    except BadAddressError as error:
        raise Refused(422, str(error), param="worker_name") from error
    if not caller.trusted and not is_own(address, caller.ip):
        raise Refused(
            403,
            f"without the token, {caller.ip} may only speak for workers at its own IP address, not for {address}",
            param="worker_name",
            code="forbidden",
        )
    return address
