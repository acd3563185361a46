"""Tokens for the controller, which carry their own scope, and the keys that workers require. Pure.

A deployment has one secret, which its supervisor and its controller know. Everything else is derived from it, so that
nobody keeps a list, and a controller that restarts recognizes all of them::

    secret ──┬─► a gateway's token: reads the routes, reports what is in flight
             ├─► a replica's token: speaks for one address, and serves no name but its own
             └─► the gateways' seed ──► a worker's key: what its callers must send, a different one for each address

A token is its scope as JSON and an HMAC-SHA-256 of that under the secret (RFC 2104), both in base64url: one token
reveals nothing about another.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """Whose token it is."""

    OWNER = "owner"
    """Holds the secret itself: the supervisor, or whoever runs the components by hand."""
    GATEWAY = "gateway"
    REPLICA = "replica"


@dataclass(frozen=True, slots=True)
class TokenScope:
    """What the bearer of a token may do. ``address`` and ``names`` are a replica's."""

    role: Role
    address: str = ""
    names: tuple[str, ...] = ()


OWNER = TokenScope(Role.OWNER)


def gateway_token(secret: str) -> str:
    """A token to read the routes and to report requests in flight."""
    return _token(secret, TokenScope(Role.GATEWAY))


def replica_token(secret: str, address: str, names: Iterable[str]) -> str:
    """A token to register the worker at ``address`` for ``names``, and for no others."""
    return _token(secret, TokenScope(Role.REPLICA, address, tuple(names)))


def key_seed(secret: str) -> str:
    """The seed from which gateways derive the keys of workers. The controller accepts it for nothing."""
    return _encoded(hmac.digest(secret.encode(), b"worker keys", hashlib.sha256))


def worker_key(seed: str, address: str) -> str:
    """The key that the worker at ``address`` requires of its callers."""
    normalized = address.lower().rstrip("/").replace("%25", "%")  # so that all sides hash the same spelling
    return _encoded(hmac.digest(seed.encode(), b"key of " + normalized.encode(), hashlib.sha256))


def scope_of(secret: str, token: str) -> TokenScope | None:
    """What ``token`` allows in the deployment of ``secret``; None if it is not one of its tokens."""
    if hmac.compare_digest(token.encode(), secret.encode()):
        return OWNER
    body, dot, signature = token.partition(".")
    if not dot or not hmac.compare_digest(signature.encode(), _signature(secret, body).encode()):
        return None
    fields = json.loads(_decoded(body))
    return TokenScope(Role(fields["role"]), fields["address"], tuple(fields["names"]))


def _token(secret: str, scope: TokenScope) -> str:
    fields = {"role": scope.role.value, "address": scope.address, "names": list(scope.names)}
    body = _encoded(json.dumps(fields).encode())
    return f"{body}.{_signature(secret, body)}"


def _signature(secret: str, body: str) -> str:
    return _encoded(hmac.digest(secret.encode(), b"grant " + body.encode(), hashlib.sha256))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
