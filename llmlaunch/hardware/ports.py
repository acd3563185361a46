"""Which TCP ports of this machine are taken, and by whom.

A port is not only taken by a listener: the local end of an outgoing connection blocks a bind as well, and the kernel
hands out such ends from ``ip_local_port_range``. The verdict is always a real bind, the way servers bind (with
SO_REUSEADDR, so that connections in TIME_WAIT which a closed server left behind do not count). The socket table only
tells which ports to try, and who holds them.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from pathlib import Path

import psutil

from llmlaunch.common.addresses import IPAddress, overlap, parse, without_brackets
from llmlaunch.hardware.process_owners import owner
from llmlaunch.hardware.types import OccupiedPort

UNKNOWN_HOLDER = "another user's process"
UNNAMED_HOLDER = "a process that cannot be named"  # bound, neither listening nor connected: in no table
CLOSED_HOLDER = "a closed connection that the kernel keeps for a minute (TIME_WAIT)"


def can_bind(host: str, port: int) -> bool:
    """Whether a server could listen on ``host`` (an address or a name of this machine) and ``port`` now."""
    addresses = _addresses(host)
    return bool(addresses) and all(_bind_error(address, port) == 0 for address in addresses)


def occupied_ports(hosts: Iterable[str]) -> tuple[OccupiedPort, ...]:
    """The ports on which a bind to one of ``hosts`` would fail, sorted, each with the ``host`` as it was asked for.

    Hosts that are not this machine's give nothing. A port that is bound but neither listens nor is connected is in no
    table; :func:`can_bind` tells about those.
    """
    table = _table()
    found = []
    names: dict[int, tuple[str, str]] = {}
    for host in sorted(set(hosts)):
        addresses = _addresses(host, local_only=True)
        holders: dict[int, list[tuple[int | None, str]]] = {}
        for bound, port, pid, status in table:
            if any(overlap(bound, address) for address in addresses):
                holders.setdefault(port, []).append((pid, status))
        for port, rows in sorted(holders.items()):
            if any(_taken(address, port, rows) for address in addresses):
                found.append(OccupiedPort(host, port, *_holder(rows, names)))
    return tuple(found)


def holder_of(host: str, port: int) -> str:
    """Who holds the TCP ``port`` that ``host`` could not be bound to, in words: "python (pid 4711)".

    A process of a deployment is called by its component: "tiny-1 of deployment lab (pid 4711)".
    """
    addresses = _addresses(host)
    rows = [
        (pid, status)
        for bound, taken, pid, status in _table()
        if taken == port and any(overlap(bound, address) for address in addresses)
    ]
    return _holder(rows, {})[0] if rows else UNNAMED_HOLDER


def bind_problem(host: str) -> str:
    """Why no server could listen on ``host``, whatever its port, as the rest of a sentence; empty when one could."""
    address = _parsed(host)
    addresses = _look_up(host) if address is None else (address,)
    if not addresses:
        return "has no address: neither /etc/hosts nor DNS knows this name"
    failures = {address: _try_bind(address, 0, reuse=True) for address in addresses}
    if not all(failures.values()):
        return ""
    address, error = next(iter(failures.items()))
    if error == errno.EADDRNOTAVAIL:
        return (
            f"is {address}, which is not an address of this machine"
            if str(address) != host
            else "is not an address of this machine"
        )
    return f"cannot be bound: {os.strerror(error)}"


def local_addresses() -> frozenset[str]:
    """Addresses and names by which this machine is called, the wildcards included."""
    names = {"localhost", "0.0.0.0", "::", "127.0.0.1", "::1", socket.gethostname()}  # noqa: S104
    names.add(socket.gethostname().partition(".")[0])
    for interface in psutil.net_if_addrs().values():
        for entry in interface:
            if entry.family in (socket.AF_INET, socket.AF_INET6):
                names.add(entry.address.partition("%")[0])
    return frozenset(names)


def _table() -> list[tuple[IPAddress, int, int | None, str]]:
    """The local end of every TCP socket: address, port, pid where it is known, status."""
    return [
        (address, row.laddr.port, row.pid, row.status)
        for row in psutil.net_connections(kind="tcp")
        if row.laddr and (address := _parsed(row.laddr.ip)) is not None
    ]


def _taken(address: IPAddress, port: int, rows: list[tuple[int | None, str]]) -> bool:
    error = _try_bind(address, port, reuse=True)
    if error == errno.EACCES:  # a privileged port: the table alone has to tell
        return any(status == psutil.CONN_LISTEN for _, status in rows)
    return error == errno.EADDRINUSE


def _bind_error(address: IPAddress, port: int) -> int:
    """The errno of binding to ``address`` and ``port``, 0 when it works."""
    strict = _try_bind(address, port, reuse=False)
    if strict != errno.EADDRINUSE:
        return strict
    relaxed = _try_bind(address, port, reuse=True)
    # Two sockets with SO_REUSEADDR may both be bound as long as neither listens. Such a socket is in no table, while
    # the leftovers of closed servers are.
    return relaxed if relaxed or _in_table(port) else errno.EADDRINUSE


def _try_bind(address: IPAddress, port: int, reuse: bool) -> int:
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(reuse))
            sock.bind((str(address), port))
    except OSError as error:
        return error.errno or errno.EINVAL
    return 0


def _in_table(port: int) -> bool:
    wanted = f":{port:04X}"
    for name in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", name).read_text().splitlines()[1:]
        except OSError:
            continue
        if any(line.split()[1].endswith(wanted) for line in lines):
            return True
    return False


def _parsed(host: str) -> IPAddress | None:
    """Without its zone; None for a name."""
    return parse(without_brackets(host).partition("%")[0])


def _addresses(host: str, local_only: bool = False) -> tuple[IPAddress, ...]:
    address = _parsed(host)
    if address is None:
        # Only names of this machine are worth a look-up: a foreign one could block on DNS, and is no place to bind.
        if local_only and host not in (local := local_addresses()) and host.lower() not in local:
            return ()
        return _resolve(host)
    return (address,)


def _resolve(host: str) -> tuple[IPAddress, ...]:
    # A machine without IPv6 may still name ::1 in /etc/hosts; a server skips it there.
    return tuple(a for a in _look_up(host) if a.version == 4 or _bind_error(a, 0) == 0)


def _look_up(host: str) -> tuple[IPAddress, ...]:
    # Never remembered: names get other addresses while a supervisor runs, and a failure may be over in a moment.
    try:
        rows = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # no such name; no name at all
        return ()
    found = (_parsed(str(row[4][0])) for row in rows)
    return tuple(dict.fromkeys(address for address in found if address is not None))


def _holder(rows: list[tuple[int | None, str]], names: dict[int, tuple[str, str]]) -> tuple[str, str]:
    """In words, and as :func:`owner` calls it. ``names`` remembers both by pid."""
    for pid, _ in sorted(rows, key=lambda row: row[1] != psutil.CONN_LISTEN):
        if pid is not None:
            if pid not in names:
                names[pid] = _process(pid)
            return names[pid]
    if all(status == psutil.CONN_TIME_WAIT for _, status in rows):
        return CLOSED_HOLDER, ""
    return UNKNOWN_HOLDER, ""


def _process(pid: int) -> tuple[str, str]:
    if ours := owner(pid):
        deployment, _, component = ours.partition("/")
        return f"{component} of deployment {deployment} (pid {pid})", ours
    try:
        return f"{psutil.Process(pid).name()} (pid {pid})", ""
    except psutil.Error:
        return f"pid {pid}", ""
