"""Free TCP ports for tests, outside the range the kernel hands to outgoing connections."""

from __future__ import annotations

import itertools
import os
import socket

_counter = itertools.count()


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on; two calls never give the same one, nor do two test workers (pytest-xdist)."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    base = 20000 + worker * 1000
    for _ in range(1000):
        port = base + (os.getpid() + next(_counter)) % 1000
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as sock:
            try:
                sock.bind((host, port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port in 1000 tries")
