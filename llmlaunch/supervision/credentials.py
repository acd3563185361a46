"""What each process of a deployment is told in its environment, so that it may do its own part and no more. Pure."""

from __future__ import annotations

from llmlaunch.controller import grants
from llmlaunch.planning.types import Component, ProcessSpec

TOKEN_VARIABLE = "LLMLAUNCH_TOKEN"  # noqa: S105  # the name of a variable; this one and the next as in controller/wire.py
KEYS_VARIABLE = "LLMLAUNCH_WORKER_KEYS"


def credentials(secret: str, spec: ProcessSpec) -> dict[str, str]:
    """Variables for ``spec``'s process; ``secret`` is the deployment's.

    An engine that the supervisor registers gets no token, and one that cannot be told a key gets none.
    """
    if spec.component is Component.CONTROLLER:
        return {TOKEN_VARIABLE: secret}
    if spec.component is Component.API:
        return {TOKEN_VARIABLE: grants.gateway_token(secret), KEYS_VARIABLE: grants.key_seed(secret)}
    found = {}
    if spec.self_registering:
        found[TOKEN_VARIABLE] = grants.replica_token(secret, spec.address, spec.names)
    if spec.key_variable:
        found[spec.key_variable] = key_of(secret, spec)
    return found


def key_of(secret: str, spec: ProcessSpec) -> str:
    """What ``spec``'s process asks its callers for; empty: nothing."""
    return grants.worker_key(grants.key_seed(secret), spec.address) if spec.key_variable else ""
