"""What this user's other deployments have been promised and have not taken yet: ports to be bound, memory to be filled.

The machine tells of neither. A replica that starts binds its port after seconds and fills its GPU after minutes; a plan that is
made in between would give both away again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping

from llmlaunch.control.types import Deployed
from llmlaunch.hardware.types import Inventory
from llmlaunch.planning.types import Occupied, ProcessSpec, Promise

_AT_REST = ("stopped", "stopping")
"""Phases of components that take nothing soon."""
_LEFT_ALONE = (*_AT_REST, "failed")
"""The same of memory: who failed is tried again and wants its port then, but has shown no need for its memory yet."""


def look(deployment: str) -> dict[str, Deployed]:
    """The deployments that run beside ``deployment``, by name. One whose supervisor does not answer is left out."""
    from llmlaunch.control.client import ControlClient
    from llmlaunch.control.discovery import running_deployments
    from llmlaunch.errors import ControlError, NotRunningError

    found = {}
    for name in running_deployments():
        if name != deployment:
            with contextlib.suppress(NotRunningError, ControlError):
                found[name] = ControlClient.connect(name).deployed()
    return found


def ports_of(others: Mapping[str, Deployed]) -> tuple[Occupied, ...]:
    """The ports that their components have or will bind."""
    return tuple(
        Occupied(spec.host, spec.port, f"{spec.name} of deployment {name}", f"{name}/{spec.name}")
        for name, other in others.items()
        for spec in _coming(other, _AT_REST)
    )


def promises_to(others: Mapping[str, Deployed], inventory: Inventory) -> tuple[Promise, ...]:
    """What their components claim of each GPU beyond what they hold of it already.

    Where the driver does not tell who holds what, one that is ready is taken to hold its claim, and one that is not to hold nothing.
    """
    from llmlaunch.hardware.gpu_usage import held_by_component

    found = []
    for name, other in others.items():
        coming = _coming(other, _LEFT_ALONE)
        held = held_by_component(inventory, name, coming)
        for spec in coming:
            if spec.name not in held and other.phases.get(spec.name, "ready") == "ready":
                continue
            for uuid, claim in zip(spec.gpus, spec.vram_per_gpu, strict=False):
                left = claim - held.get(spec.name, {}).get(uuid, 0)
                if left > 0:
                    found.append(Promise(uuid, left, f"{name}/{spec.name}"))
    return tuple(found)


def _coming(other: Deployed, but: Collection[str]) -> list[ProcessSpec]:
    return [spec for spec in other.specs if other.phases.get(spec.name, "ready") not in but]
