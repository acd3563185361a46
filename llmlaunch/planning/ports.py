"""Who listens where: addresses by construction, free ports by counting up, taken ones by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmlaunch.common.addresses import is_loopback, is_wildcard, overlap, without_brackets
from llmlaunch.errors import PlanError, PortTakenError
from llmlaunch.manifest.types import DEFAULT_API_PORT, DEFAULT_CONTROLLER_PORT, DEFAULT_WORKER_PORT, Manifest
from llmlaunch.planning import naming
from llmlaunch.planning.formatting import listed
from llmlaunch.planning.types import Occupied, ProcessSpec, World

_LAST = 65535


@dataclass(frozen=True, slots=True)
class Wish:
    """One listener to be given a port."""

    name: str
    host: str
    port: int | None
    """As the manifest asks; it must be free."""
    start: int
    """Where to look from when nothing was asked."""


def wishes(manifest: Manifest, stems: Sequence[str]) -> tuple[Wish, ...]:
    """The controller's, the API's and every replica's, in the order in which free ports are given away."""
    controller, api = manifest.controller, manifest.api
    found = [
        Wish(naming.CONTROLLER, controller.host, controller.port, DEFAULT_CONTROLLER_PORT),
        Wish(naming.API, api.host, api.port, DEFAULT_API_PORT),
    ]
    for stem, model in zip(stems, manifest.models, strict=True):
        first = model.port or DEFAULT_WORKER_PORT
        for replica in range(model.replicas):
            # Only the first replica's port was asked for; the others start counting beside it.
            asked = model.port if replica == 0 else None
            found.append(
                Wish(f"{stem}-{replica + 1}", model.host, asked, first + replica if model.port else first)
            )
    return tuple(found)


def assign(wanted: Sequence[Wish], world: World) -> dict[str, int]:
    """A port for each name, no two alike on overlapping hosts.

    A running component keeps its port unless the manifest asks for another, or a stranger took it while nothing of the component
    ran. Raises PortTakenError when a port that was asked for is held by somebody else, and PlanError when there is none left.
    """
    taken = _Taken(world)
    _refuse_taken(wanted, taken)
    ports = {wish.name: wish.port for wish in wanted if wish.port is not None}
    used = set(ports.values())
    before = {spec.name: spec for spec in world.running if not taken.by_strangers(spec)}
    for wish in wanted:
        old = before.get(wish.name)
        if wish.name not in ports and old and old.host == wish.host and old.port not in used:
            ports[wish.name] = old.port
            used.add(old.port)
    used |= {spec.port for spec in world.running}
    cursor: dict[int, int] = {}
    for wish in wanted:
        if wish.name in ports:
            continue
        port = max(wish.start, cursor.get(wish.start, 0))
        while port <= _LAST and (port in used or taken.on(wish.host, port)):
            port += 1
        if port > _LAST:
            raise PlanError(f"no free port for {wish.name} on {wish.host} from {wish.start} up")
        ports[wish.name], cursor[wish.start] = port, port + 1
        used.add(port)
    return ports


def moved(wanted: Sequence[Wish], assigned: Mapping[str, int], world: World) -> tuple[str, ...]:
    """In words, which well-known default ports were taken, so that the plan has others now."""
    taken, before = _Taken(world), {(spec.name, spec.port) for spec in world.running}
    found = []
    for wish in wanted:
        port = assigned[wish.name]
        told_already = wish.port is not None or port == wish.start or (wish.name, port) in before
        if told_already or wish.name not in (naming.CONTROLLER, naming.API):
            continue
        holder = taken.on(wish.host, wish.start)
        why = f"{holder.holder} holds" if holder else "another component has"
        found.append(f"{wish.name} listens on port {port}, because {why} {wish.start}")
    return tuple(found)


class _Taken:
    """Look-ups in a long list of occupied ports."""

    def __init__(self, world: World) -> None:
        self._rows: dict[int, list[Occupied]] = {}
        for row in world.occupied:
            self._rows.setdefault(row.port, []).append(row)
        self._own = {f"{world.deployment}/{spec.name}": spec for spec in world.running}
        self._idle = world.idle

    def on(self, host: str, port: int) -> Occupied | None:
        return next((row for row in self._rows.get(port, ()) if overlap(row.host, host)), None)

    def by_strangers(self, spec: ProcessSpec) -> bool:
        """Whether somebody else holds the port of ``spec``, which is one of the deployment's own."""
        if spec.name not in self._idle:
            return False
        holder = self.on(spec.host, spec.port)
        return holder is not None and holder.owner not in self._own

    def by_ours(self, wish: Wish) -> bool:
        """Whether the deployment itself holds the port that was asked for."""
        return any(
            spec.port == wish.port and overlap(spec.host, wish.host) and not self.by_strangers(spec)
            for spec in self._own.values()
        )


def _refuse_taken(wanted: Sequence[Wish], taken: _Taken) -> None:
    found = []
    for wish in wanted:
        holder = taken.on(wish.host, wish.port) if wish.port is not None else None
        if holder and not taken.by_ours(wish):
            found.append(f"{wish.name} asks for port {wish.port} on {wish.host}, which {holder.holder} holds")
    if found:
        raise PortTakenError(
            "\n".join(found),
            hint="stop what holds it, or choose another port, or leave port out to get a free one",
        )


def refuse_wrong_hosts(manifest: Manifest, world: World) -> None:
    """Raise PlanError for every host that is no address of this machine, or has none."""
    hosts = [("controller", manifest.controller.host), ("api", manifest.api.host)]
    hosts += [(f"model {model.names[0]}", model.host) for model in manifest.models]
    foreign = [f"{what}: host {host} is not this machine" for what, host in hosts if not _local(host, world)]
    if foreign:
        known = sorted(world.local_addresses | {"127.0.0.1", "localhost"})
        raise PlanError(
            "\n".join(foreign),
            hint=f"the local runtime starts processes on this machine alone, which is called {listed(known, 'or')}; "
            "run llmlaunch on the other machine for its models",
        )

    wrong = [f"{what}: host {host} {world.unusable[host]}" for what, host in hosts if host in world.unusable]
    if wrong:
        raise PlanError(
            "\n".join(wrong),
            hint="write an address, such as 127.0.0.1 or 0.0.0.0, or mend the name in /etc/hosts",
        )


def _local(host: str, world: World) -> bool:
    known = {name.lower() for name in world.local_addresses}
    return is_wildcard(host) or is_loopback(host) or without_brackets(host).lower() in known
