"""Who may talk to the controller, and for which addresses. A rejection says what would be allowed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from starlette.requests import Request

from llmlaunch.common import variables
from llmlaunch.common.addresses import is_loopback
from llmlaunch.controller import tokens
from llmlaunch.controller.request_bodies import RequestRejected
from llmlaunch.controller.tokens import Role, TokenScope
from llmlaunch.controller.worker_probe import BadAddressError, WorkerAddress, is_own, parse_address


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request."""

    ip: str
    scope: TokenScope | None
    """What its token allows; None: it sent no token."""

    @property
    def trusted(self) -> bool:
        """Whether it sent a valid token."""
        return self.scope is not None

    @property
    def is_owner(self) -> bool:
        """Whether it knows the deployment's secret."""
        return self.scope is not None and self.scope.role is Role.OWNER

    @property
    def names(self) -> tuple[str, ...] | None:
        """The only names that a worker of this caller may serve; None: any."""
        return None if self.scope is None or self.is_owner else self.scope.names


class Authorizer:
    """Decides who a caller is and what it may do. ``secret`` "" means that there are no tokens."""

    def __init__(self, secret: str, *, open_registration: bool) -> None:
        self._secret = secret
        self._open = open_registration

    def caller(self, request: Request, *roles: Role) -> Caller:
        """The caller: the owner, a bearer of a token for one of ``roles``, or a stranger that may register workers.

        Raises RequestRejected (401 or 403) for anybody else.
        """
        ip = request.client.host if request.client else ""
        scope = self._scope(request)
        if scope is not None:
            if scope.role is not Role.OWNER and scope.role not in roles:
                raise _forbidden(f"a {scope.role}'s token does not allow this")
            return Caller(ip, scope)
        if "origin" in request.headers:  # a page in somebody's browser reaches loopback addresses, too
            raise _forbidden("requests from browsers are not allowed")
        if self._open or (not self._secret and is_loopback(ip)):
            return Caller(ip, None)
        if self._secret:
            raise RequestRejected(
                401,
                f"missing token: send Authorization: Bearer ${variables.TOKEN}, or let workers register without a token: "
                "controller: {open_registration: true}",
                code="missing_token",
            )
        raise _forbidden(
            f"without a token, only this machine may do this: set {variables.TOKEN} for the controller and for {ip}, "
            "or start the controller with --open-registration"
        )

    def trusted_caller(self, request: Request, *roles: Role) -> Caller:
        """The same without strangers, even under open registration, once there are tokens. Raises RequestRejected."""
        caller = self.caller(request, *roles)
        if self._secret and not caller.trusted:
            raise RequestRejected(
                401, "missing token: only the deployment itself may do this", code="missing_token"
            )
        return caller

    def check_reader(self, request: Request) -> None:
        """Raise RequestRejected unless the caller may read which worker serves what.

        Where there is no token, or registration is open, everybody who reaches the port may, as with FastChat's controller.
        """
        if self._secret and not self._open:
            self.caller(request, *Role)

    def _scope(self, request: Request) -> TokenScope | None:
        """What the caller's token allows; None without a bearer token. Raises RequestRejected for a wrong one."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not self._secret or scheme.lower() != "bearer":
            return None
        scope = tokens.scope_of(self._secret, token.strip())
        if scope is None:
            raise RequestRejected(401, "invalid token", code="invalid_token")
        return scope


def checked_address(caller: Caller, text: str) -> WorkerAddress:
    """``text`` as a worker's address. Raises RequestRejected: 422 if it is malformed, 403 if ``caller`` may not speak for it."""
    try:
        address = parse_address(text)
    except BadAddressError as error:
        raise RequestRejected(422, str(error), param="worker_name") from error
    scope = caller.scope
    if scope is None:
        if not is_own(address, caller.ip):
            raise _forbidden(
                f"without a token, {caller.ip} may only register workers at its own IP address, not {address}",
                param="worker_name",
            )
    elif scope.role is not Role.OWNER and not _same(address, parse_address(scope.address)):
        raise _forbidden(
            f"the token is valid for {scope.address} only, not for {address}", param="worker_name"
        )
    return address


def _same(a: WorkerAddress, b: WorkerAddress) -> bool:
    """Whether two addresses are equal; the zone of an IPv6 address may be escaped or not."""
    return str(a).replace("%25", "%") == str(b).replace("%25", "%")


def check_names(caller: Caller, names: Iterable[str]) -> None:
    """Raise RequestRejected when ``caller``'s token does not allow a worker to serve all of ``names``."""
    if caller.names is None:
        return
    foreign = [name for name in names if name not in caller.names]
    if foreign:
        raise _forbidden(
            f"the token is valid for {_listed(caller.names)} only, not for {_listed(foreign)}",
            param="worker_status.model_names",
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _forbidden(message: str, *, param: str | None = None) -> RequestRejected:
    return RequestRejected(403, message, param=param, code="forbidden")
