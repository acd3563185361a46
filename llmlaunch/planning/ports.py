"""Which component listens where: free ports are found by counting up, taken ones are named with their holder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmlaunch.common.addresses import is_loopback, is_wildcard, overlap, without_brackets
from llmlaunch.errors import PlanError, PortTakenError
from llmlaunch.hardware.types import OccupiedPort
from llmlaunch.manifest.types import DEFAULT_API_PORT, DEFAULT_CONTROLLER_PORT, DEFAULT_WORKER_PORT, Manifest
from llmlaunch.planning import naming
from llmlaunch.planning.formatting import listed
from llmlaunch.planning.types import PlanningContext, ProcessSpec

_LAST = 65535


@dataclass(frozen=True, slots=True)
class PortRequest:
    """One listener to be given a port."""

    name: str
    host: str
    port: int | None
    """As the manifest asks; it must be free."""
    start: int
    """Where to look from when nothing was asked."""


def port_requests(manifest: Manifest, stems: Sequence[str]) -> tuple[PortRequest, ...]:
    """The controller's, the API's and every replica's, in the order in which free ports are given away."""
    controller, api = manifest.controller, manifest.api
    found = [
        PortRequest(naming.CONTROLLER, controller.host, controller.port, DEFAULT_CONTROLLER_PORT),
        PortRequest(naming.API, api.host, api.port, DEFAULT_API_PORT),
    ]
    for stem, model in zip(stems, manifest.models, strict=True):
        first = model.port or DEFAULT_WORKER_PORT
        for replica in range(model.replicas):
            # Only the first replica's port was asked for; the others start counting beside it.
            asked = model.port if replica == 0 else None
            found.append(
                PortRequest(
                    f"{stem}-{replica + 1}", model.host, asked, first + replica if model.port else first
                )
            )
    return tuple(found)


def assign(wanted: Sequence[PortRequest], context: PlanningContext) -> dict[str, int]:
    """A port for each name, no two alike on overlapping hosts.

    A running component keeps its port unless the manifest asks for another, or a stranger took it while nothing of the component
    ran. Raises PortTakenError when a port that was asked for is held by somebody else, and PlanError when there is none left.
    """
    taken = _OccupiedPorts(context)
    _refuse_taken(wanted, taken)
    ports = {request.name: request.port for request in wanted if request.port is not None}
    used = set(ports.values())
    before = {spec.name: spec for spec in context.running if not taken.held_by_others(spec)}
    for request in wanted:
        old = before.get(request.name)
        if request.name not in ports and old and old.host == request.host and old.port not in used:
            ports[request.name] = old.port
            used.add(old.port)
    used |= {spec.port for spec in context.running}
    cursor: dict[int, int] = {}
    for request in wanted:
        if request.name in ports:
            continue
        port = max(request.start, cursor.get(request.start, 0))
        while port <= _LAST and (port in used or taken.on(request.host, port)):
            port += 1
        if port > _LAST:
            raise PlanError(f"no free port for {request.name} on {request.host} from {request.start} up")
        ports[request.name], cursor[request.start] = port, port + 1
        used.add(port)
    return ports


def reassignment_notes(
    wanted: Sequence[PortRequest], assigned: Mapping[str, int], context: PlanningContext
) -> tuple[str, ...]:
    """In words, which well-known default ports were taken, so that the plan has others now."""
    taken, before = _OccupiedPorts(context), {(spec.name, spec.port) for spec in context.running}
    found = []
    for request in wanted:
        port = assigned[request.name]
        told_already = request.port is not None or port == request.start or (request.name, port) in before
        if told_already or request.name not in (naming.CONTROLLER, naming.API):
            continue
        holder = taken.on(request.host, request.start)
        why = f"{holder.holder} holds" if holder else "another component has"
        found.append(f"{request.name} listens on port {port}, because {why} {request.start}")
    return tuple(found)


class _OccupiedPorts:
    """A long list of occupied ports, made for look-ups."""

    def __init__(self, context: PlanningContext) -> None:
        self._rows: dict[int, list[OccupiedPort]] = {}
        for row in context.occupied_ports:
            self._rows.setdefault(row.port, []).append(row)
        self._own = {f"{context.deployment}/{spec.name}": spec for spec in context.running}
        self._idle = context.idle

    def on(self, host: str, port: int) -> OccupiedPort | None:
        return next((row for row in self._rows.get(port, ()) if overlap(row.host, host)), None)

    def held_by_others(self, spec: ProcessSpec) -> bool:
        """Whether somebody else holds the port of ``spec``, which is one of the deployment's own."""
        if spec.name not in self._idle:
            return False
        holder = self.on(spec.host, spec.port)
        return holder is not None and holder.owner not in self._own

    def held_by_deployment(self, request: PortRequest) -> bool:
        """Whether the deployment itself holds the port that was asked for."""
        return any(
            spec.port == request.port and overlap(spec.host, request.host) and not self.held_by_others(spec)
            for spec in self._own.values()
        )


def _refuse_taken(wanted: Sequence[PortRequest], taken: _OccupiedPorts) -> None:
    found = []
    for request in wanted:
        holder = taken.on(request.host, request.port) if request.port is not None else None
        if holder and not taken.held_by_deployment(request):
            found.append(
                f"{request.name} requests port {request.port} on {request.host}, which {holder.holder} holds"
            )
    if found:
        raise PortTakenError(
            "\n".join(found),
            hint="stop what holds it, or choose another port, or leave port out to get a free one",
        )


def refuse_unusable_hosts(manifest: Manifest, context: PlanningContext) -> None:
    """Raise PlanError for every host that is no address of this machine, or has none."""
    hosts = [("controller", manifest.controller.host), ("api", manifest.api.host)]
    hosts += [(f"model {model.names[0]}", model.host) for model in manifest.models]
    foreign = [
        f"{what}: host {host} is not this machine" for what, host in hosts if not _local(host, context)
    ]
    if foreign:
        known = sorted(context.local_addresses | {"127.0.0.1", "localhost"})
        raise PlanError(
            "\n".join(foreign),
            hint=f"the local runtime starts processes on this machine alone, which is known as {listed(known, 'or')}; "
            "run llmlaunch on the other machine for its models",
        )

    wrong = [
        f"{what}: host {host} {context.unusable_hosts[host]}"
        for what, host in hosts
        if host in context.unusable_hosts
    ]
    if wrong:
        raise PlanError(
            "\n".join(wrong),
            hint="write an address, such as 127.0.0.1 or 0.0.0.0, or fix the name in /etc/hosts",
        )


def _local(host: str, context: PlanningContext) -> bool:
    known = {name.lower() for name in context.local_addresses}
    return is_wildcard(host) or is_loopback(host) or without_brackets(host).lower() in known
