"""Free TCP ports for tests, below the range the kernel hands to outgoing connections and beside llmlaunch's own defaults.

A port is free until its user binds it, and another test run may look in between. So every port that was handed out is noted in
a file of this user, under a lock, until the process that got it ends.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from pathlib import Path

from llmlaunch.common import process_identity

PORTS = range(22000, 32000)
_NOTES = Path(tempfile.gettempdir()) / f"llmlaunch-test-ports.{os.getuid()}"


def free_port(host: str = "127.0.0.1", notes: Path = _NOTES, together: int = 1) -> int:
    """A port nobody listens on; two calls never give the same one, in whatever process of this user, while both live.

    ``together``: the first of so many in a row.
    """
    with os.fdopen(
        os.open(notes, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "r+"
    ) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        noted = [_note(line) for line in file]
        last = noted[-1][0] if noted else PORTS[os.getpid() % len(PORTS)]
        alive = {who for who in {who for _, who in noted} if who.alive}
        kept = [(port, who) for port, who in noted if who in alive]
        port = _next(host, last, {port for port, _ in kept}, together)
        me = process_identity.identify(os.getpid()) or process_identity.ProcessId(os.getpid(), 0)
        kept += [(port + number, me) for number in range(together)]
        file.seek(0)
        file.truncate()
        file.writelines(f"{port} {who.pid} {who.started}\n" for port, who in kept)
        return port


def _next(host: str, last: int, held: set[int], together: int) -> int:
    """The first usable port after ``last``: the longer ago a port was used, the surer it is free again."""
    for step in range(1, len(PORTS)):
        port = PORTS[(last - PORTS.start + step) % len(PORTS)]
        wanted = range(port, port + together)
        if (
            wanted.stop <= PORTS.stop
            and not held.intersection(wanted)
            and all(_can_bind(host, p) for p in wanted)
        ):
            return port
    raise AssertionError(f"no free port in {PORTS}")


def _can_bind(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        try:
            sock.bind((host, port))
        except OSError:
            return False
        return True


def _note(line: str) -> tuple[int, process_identity.ProcessId]:
    """A port and its user; a line that somebody left unfinished counts as nobody's."""
    fields = [*map(int, line.split()), 0, 0, 0]
    return fields[0] if fields[0] in PORTS else PORTS.start, process_identity.ProcessId(fields[1], fields[2])
