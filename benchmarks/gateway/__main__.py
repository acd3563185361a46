"""Measure the gateway and those of its peers that are installed, each on one pinned core before the same mock upstream.

CPU per request is the number to trust: it is what the kernel charged the process, whoever else used the machine. A peer
is found in PATH or where an option says; one that is not there is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.gateway import load
from benchmarks.gateway.load import Load
from benchmarks.gateway.peers import (
    KEY,
    PEERS,
    Place,
    Proxy,
    child,
    find,
    free_port,
    llmlaunch,
    version,
    wait_for,
)
from benchmarks.report import record, table

CONNECTIONS = 32
HELD = 1000
"""Connections of each kind, idle and streaming, with which memory is measured."""
PACE_US, SLOW_PACE_US = 1000, 200_000
"""Between events of a stream: apart from each other for every proxy; and slow enough to be still going."""


def body(size: int, **more: object) -> bytes:
    text = ("The quick brown fox jumps over the lazy dog.\n" * (size // 44 + 1))[:size]
    value = {"messages": [{"role": "user", "content": text}], "model": "m", **more}
    return json.dumps(value, separators=(",", ":")).encode()


CHAT, STREAM = body(60), body(60, stream=True)
KINDS = {
    "small chat": CHAT,
    "64 events, apart": body(60, stream=True, seed=PACE_US),
    "64 events, at once": STREAM,
    "64 KB prompt": body(64 << 10),
}
HEADER = (
    "", *(f"CPU µs, {kind}" for kind in KINDS), "added p50 ms, chat", "added p50 ms, stream", "RSS MiB after that",
    f"RSS MiB, {HELD} idle + {HELD} streaming", "start s",
)  # fmt: skip


def measure(proxy: Proxy, place: Place, maker: Load, seconds: float) -> list[object]:
    """One row: CPU µs per request of each kind, added median ms at one connection, memory, start."""
    row: list[object] = [proxy.name]
    for content in KINDS.values():
        message = load.request(proxy.port, content, KEY)
        maker.run(proxy.port, message, CONNECTIONS, 0.5)
        before = proxy.cpu_s()
        answers = maker.run(proxy.port, message, CONNECTIONS, seconds).answers
        row.append(f"{(proxy.cpu_s() - before) / answers * 1e6:.0f}")
    for content in (CHAT, STREAM):
        through, direct = (
            maker.run(port, load.request(port, content, KEY), 1, seconds / 2).median_ms
            for port in (proxy.port, place.mock)
        )
        row.append(f"{through - direct:.3f}")
    row.append(f"{proxy.rss_mib():.0f}")
    slow = load.request(proxy.port, body(60, stream=True, seed=SLOW_PACE_US), KEY)
    with load.held(proxy.port, HELD), load.held(proxy.port, HELD, slow):
        row.append(f"{proxy.rss_mib():.0f}")
    return [*row, f"{proxy.start_s:.2f}"]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=3.0, help="of load per cell")
    for name in PEERS:
        options.add_argument(f"--{name}", metavar="PATH", help=f"where {name} is, if not in PATH")
    options.add_argument("--only", nargs="*", choices=[*PEERS], help="these peers and no others")
    options.add_argument("--record", action="store_true", help="put the table into RESULTS.md")
    asked = options.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    mine, others = cores[0], set(cores[1:]) or {cores[0]}
    os.sched_setaffinity(0, others)
    rows, versions = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        port = free_port()
        maker = Load(load.compiled("load", folder), folder)
        with child(load.compiled("mock", folder), str(port), cores=others):
            wait_for(f"http://127.0.0.1:{port}/")
            place = Place(folder, port, mine, others)
            with llmlaunch(place) as proxy:
                rows.append(measure(proxy, place, maker, asked.seconds))
            for peer, start in PEERS.items():
                if asked.only is not None and peer not in asked.only:
                    continue
                binary = find(peer, getattr(asked, peer.replace("-", "_")))
                if binary is None:
                    print(f"{peer} is not installed: its row is left out", file=sys.stderr)
                    continue
                with start(binary, place) as proxy:
                    rows.append(measure(proxy, place, maker, asked.seconds))
                versions.append(f"{peer} {version(binary)}")
    text = (
        f"{table(HEADER, rows)}\n\n{CONNECTIONS} connections, each proxy pinned to one core; mock upstream and load maker in"
        f" C on another. llmlaunch with API keys and metrics. The 64 events of a stream come {PACE_US / 1000:g} ms apart, or"
        f" as fast as they can be sent; then a slower proxy finds several of them together and has fewer to pass on."
        f" {', '.join(versions)}."
    )
    if asked.record:
        record("Gateway", text, "uvloop", "httptools")
    else:
        print(text)


if __name__ == "__main__":
    main()
