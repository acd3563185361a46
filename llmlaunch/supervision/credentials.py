"""The secrets that each process of a deployment gets in its environment: no more than its own part needs. Pure."""

from __future__ import annotations

from llmlaunch.common.variables import TOKEN, WORKER_KEYS
from llmlaunch.controller import tokens
from llmlaunch.planning.types import Component, ProcessSpec


def credentials(secret: str, spec: ProcessSpec) -> dict[str, str]:
    """Variables for ``spec``'s process; ``secret`` is the deployment's.

    An engine that the supervisor registers gets no token, and one that does not support keys gets no key.
    """
    if spec.component is Component.CONTROLLER:
        return {TOKEN: secret}
    if spec.component is Component.API:
        return {TOKEN: tokens.gateway_token(secret), WORKER_KEYS: tokens.key_seed(secret)}
    found = {}
    if spec.self_registering:
        found[TOKEN] = tokens.replica_token(secret, spec.address, spec.names)
    if spec.key_variable:
        found[spec.key_variable] = key_of(secret, spec)
    return found


def key_of(secret: str, spec: ProcessSpec) -> str:
    """The key that ``spec``'s process requires of its callers; empty if none."""
    return tokens.worker_key(tokens.key_seed(secret), spec.address) if spec.key_variable else ""
