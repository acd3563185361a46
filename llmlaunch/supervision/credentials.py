"""What each process of a deployment is told in its environment, so that it may do its own part and no more. Pure."""

from __future__ import annotations

from llmlaunch.controller import grants
from llmlaunch.planning.types import Component, ProcessSpec

TOKEN_VARIABLE = "LLMLAUNCH_TOKEN"  # noqa: S105  # the name of a variable; as in controller/wire.py


def credentials(secret: str, spec: ProcessSpec) -> dict[str, str]:
    """Variables for ``spec``'s process; ``secret`` is the deployment's. An engine that the supervisor registers gets none."""
    match spec.component:
        case Component.CONTROLLER:
            return {TOKEN_VARIABLE: secret}
        case Component.API:
            return {TOKEN_VARIABLE: grants.gateway_token(secret)}
        case Component.WORKER if spec.self_registering:
            return {TOKEN_VARIABLE: grants.replica_token(secret, spec.address, spec.names)}
        case _:
            return {}
