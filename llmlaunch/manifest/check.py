"""What no single value shows: keys that exclude each other, ports and names that clash."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmlaunch.manifest.schema import ApiPart, ControllerPart, ModelPart
from llmlaunch.manifest.tree import Path, Tree
from llmlaunch.manifest.types import DEFAULT_API_PORT, DEFAULT_CONTROLLER_PORT, EngineName, ModelSpec


@dataclass(frozen=True, slots=True)
class _Claim:
    host: str
    port: int
    who: str
    path: Path
    given: bool
    """False: a default that gives way."""


def model(tree: Tree, part: ModelPart, own: Mapping[str, Any], path: Path) -> None:
    """Keys of one model that need or exclude each other."""
    is_command = part.engine == EngineName.COMMAND.value
    if is_command and not part.command:
        tree.problem(
            path, "engine: command needs the key 'command'", expected='command: [program, --port, "{port}"]'
        )
    if part.command and not is_command:
        tree.problem(
            (*path, "command"), f"command is for engine: command, and this engine is {part.engine}", key=True
        )
    if part.port is not None and part.port + part.replicas - 1 > 65535:
        tree.problem((*path, "port"), f"{part.replicas} replicas from port {part.port} up go past 65535")
    if is_command and part.engine_args:
        where = (*path, "engine_args") if "engine_args" in own else ("defaults", "engine_args")
        tree.problem(where, "engine: command takes no engine_args; write them into command", key=True)


def names(tree: Tree, models: Sequence[tuple[Path, ModelSpec]]) -> None:
    """Every served name belongs to one entry."""
    seen: dict[str, Path] = {}
    for path, spec in models:
        for index, name in enumerate(spec.names):
            here: Path = (*path, "names", index)
            where = here if here in tree.values else (*path, "names")
            first = seen.get(name)
            if first is None:
                seen[name] = where
            elif first[:2] == where[:2]:
                tree.problem(where, f"the name {name!r} stands here twice")
            else:
                line, _ = tree.place(first)
                tree.problem(
                    where,
                    f"the name {name!r} is taken by the model on line {line}",
                    expected="names: of its own",
                )


def ports(
    tree: Tree, controller: ControllerPart, api: ApiPart, models: Sequence[tuple[Path, ModelSpec]]
) -> None:
    """No two components ask for one port on the same address; replicas take the ports after their model's."""
    claims = [
        _claim(
            "the controller",
            controller.host,
            controller.port,
            DEFAULT_CONTROLLER_PORT,
            ("controller", "port"),
        ),
        _claim("the api", api.host, api.port, DEFAULT_API_PORT, ("api", "port")),
    ]
    for path, spec in models:
        if spec.port is None:
            continue
        where: Path = (*path, "port")
        for number in range(spec.replicas):
            who = f"model {spec.names[0]}" + (f" replica {number + 1}" if spec.replicas > 1 else "")
            claims.append(_Claim(spec.host, spec.port + number, who, where, True))
    told: set[Path] = set()
    for i, later in enumerate(claims):
        for first in claims[:i]:
            if later.port != first.port or not _overlap(first.host, later.host):
                continue
            at, other = (later, first) if later.given else (first, later)
            if not at.given or at.path in told:
                continue
            told.add(at.path)
            default = "" if other.given else ", by default"
            tree.problem(
                at.path,
                f"port {at.port} of {at.who} is taken by {other.who}{default}",
                expected="a port of its own",
            )


def _claim(who: str, host: str, port: int | None, default: int, path: Path) -> _Claim:
    return _Claim(host, default if port is None else port, who, path, port is not None)


def _overlap(a: str, b: str) -> bool:
    """Whether listening on both would clash. A wildcard of either family may cover the other."""
    x, y = _address(a), _address(b)
    if x == y:
        return True
    return any(
        isinstance(v, ipaddress.IPv4Address | ipaddress.IPv6Address) and v.is_unspecified for v in (x, y)
    )


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | str:
    if host == "localhost":
        return ipaddress.ip_address("127.0.0.1")
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return host.lower()
