"""What this user's other deployments have been promised and have not taken yet: ports to be bound, memory to be filled.

The machine tells of neither. A replica that starts binds its port after seconds and fills its GPU after minutes; a plan that is
made in between would give both away again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping

from llmlaunch.control.types import Deployed
from llmlaunch.hardware.types import Inventory, OccupiedPort
from llmlaunch.planning.types import MemoryPromise, ProcessSpec

_AT_REST = ("stopped", "stopping")
"""Phases of components that take nothing soon."""
_LEFT_ALONE = (*_AT_REST, "failed")
"""The same of memory: who failed is tried again and wants its port then, but has shown no need for its memory yet."""


def running_beside(deployment: str) -> dict[str, Deployed]:
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


def claimed_ports(others: Mapping[str, Deployed]) -> tuple[OccupiedPort, ...]:
    """The ports that their components have or will bind."""
    return tuple(
        OccupiedPort(spec.host, spec.port, f"{spec.name} of deployment {name}", f"{name}/{spec.name}")
        for name, other in others.items()
        for spec in _coming(other, _AT_REST)
    )


def promised_memory(others: Mapping[str, Deployed], inventory: Inventory) -> tuple[MemoryPromise, ...]:
    """What their components claim of each GPU beyond what they hold of it already.

    Where the driver does not tell who holds what, one that is ready is taken to hold its claim, and one that is not to hold nothing.
    """
    from llmlaunch.hardware.gpu_usage import vram_by_component

    found = []
    for name, other in others.items():
        coming = _coming(other, _LEFT_ALONE)
        used_vram = vram_by_component(inventory, name, {spec.name: spec.gpus for spec in coming})
        for spec in coming:
            if spec.name not in used_vram and other.phases.get(spec.name, "ready") == "ready":
                continue
            for uuid, claim in zip(spec.gpus, spec.vram_per_gpu, strict=False):
                left = claim - used_vram.get(spec.name, {}).get(uuid, 0)
                if left > 0:
                    found.append(MemoryPromise(uuid, left, f"{name}/{spec.name}"))
    return tuple(found)


def _coming(other: Deployed, but: Collection[str]) -> list[ProcessSpec]:
    return [spec for spec in other.specs if other.phases.get(spec.name, "ready") not in but]
