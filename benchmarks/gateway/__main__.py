"""Measure the gateway and those of its peers that are installed, each on one pinned core before the same mock upstream.

CPU per request is the number to trust: it is what the kernel charged the process, whoever else used the machine. A peer
is found in PATH or where an option says; one that is not there is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gateway import load
from benchmarks.gateway.load import Load
from benchmarks.gateway.peers import (
    KEY,
    PEERS,
    Place,
    Proxy,
    child,
    free_port,
    llmlaunch,
    version,
    wait_for,
)
from benchmarks.report import record, table
from llmlaunch.gateway.http1.coalesce import GATHER_S

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


Found = defaultdict[Any, list[float]]


@dataclass
class Row:
    """What was found of one proxy in every round."""

    proxy: Proxy
    cpu_us: Found = field(default_factory=lambda: defaultdict(list))
    """Per request, by kind."""
    median_ms: Found = field(default_factory=lambda: defaultdict(list))
    """Of one connection, by body."""
    rss_mib: float = 0.0
    held_rss_mib: float = 0.0

    def measure_cpu(self, maker: Load, kind: str, seconds: float) -> None:
        proxy, message = self.proxy, load.request(self.proxy.port, KINDS[kind], KEY)
        maker.run(proxy.port, message, CONNECTIONS, seconds / 4)
        before = proxy.cpu_s()
        answers = maker.run(proxy.port, message, CONNECTIONS, seconds).answers
        self.cpu_us[kind].append((proxy.cpu_s() - before) / answers * 1e6)

    def measure_memory(self) -> None:
        port = self.proxy.port
        self.rss_mib = self.proxy.rss_mib()
        slow = load.request(port, body(60, stream=True, seed=SLOW_PACE_US), KEY)
        with load.held(port, HELD), load.held(port, HELD, slow):
            self.held_rss_mib = self.proxy.rss_mib()

    def cells(self, direct_ms: Found) -> list[str]:
        added = [
            f"{usual(self.median_ms[content]) - usual(direct_ms[content]):.3f}" for content in (CHAT, STREAM)
        ]
        memory = [f"{self.rss_mib:.0f}", f"{self.held_rss_mib:.0f}"]
        return [
            self.proxy.name,
            *(f"{usual(self.cpu_us[k]):.0f}" for k in KINDS),
            *added,
            *memory,
            f"{self.proxy.start_s:.2f}",
        ]


def usual(values: Sequence[float]) -> float:
    """The lower quartile: what disturbs a measurement adds to it, and the very least is luck."""
    return sorted(values)[len(values) // 4]


def median_ms(maker: Load, port: int, content: bytes, seconds: float) -> float:
    return maker.run(port, load.request(port, content, KEY), 1, seconds).median_ms


def measure(
    proxies: Sequence[Proxy], place: Place, maker: Load, seconds: float, rounds: int
) -> list[list[str]]:
    """The rows of the table. Proxies take turns, so that a busy moment of the machine does not meet one of them alone."""
    rows = [Row(proxy) for proxy in proxies]
    direct_ms: Found = defaultdict(list)
    for _ in range(rounds):
        for kind in KINDS:
            for row in rows:
                row.measure_cpu(maker, kind, seconds)
        for content in (CHAT, STREAM):
            direct_ms[content].append(median_ms(maker, place.mock, content, seconds / 2))
            for row in rows:
                row.median_ms[content].append(median_ms(maker, row.proxy.port, content, seconds / 2))
    for row in rows:
        row.measure_memory()
    return [row.cells(direct_ms) for row in rows]


def main() -> None:
    asked = options()
    cores = sorted(os.sched_getaffinity(0))
    mine, others = cores[0], set(cores[1:]) or {cores[0]}
    os.sched_setaffinity(0, others)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder, port = Path(name), free_port()
        maker = Load(load.compiled("load", folder), folder)
        stack.enter_context(child(load.compiled("mock", folder), str(port), cores=others))
        wait_for(f"http://127.0.0.1:{port}/")
        place = Place(folder, port, mine, others)
        proxies, versions = [stack.enter_context(llmlaunch(place))], []
        for peer in asked.only:
            binary = shutil.which(getattr(asked, peer.replace("-", "_")) or peer)
            if binary is None:
                print(f"{peer} is not installed: its row is left out", file=sys.stderr)
                continue
            proxies.append(stack.enter_context(PEERS[peer](binary, place)))
            versions.append(f"{peer} {version(binary)}")
        rows = measure(proxies, place, maker, asked.seconds, asked.rounds)
    text = (
        f"{table(HEADER, rows)}\n\n{CONNECTIONS} connections, all proxies pinned to one core, one at work at a time; mock"
        " upstream and load maker in C on another core. llmlaunch with API keys and metrics, access log off. Of"
        f" {asked.rounds} rounds, in which they take turns, the lower quartile. The 64 events of a stream come"
        f" {PACE_US / 1000:g} ms apart, or as fast as they can be sent; then a slower proxy finds several of them together"
        f" and has fewer to pass on. Where very many come, llmlaunch holds them for up to {GATHER_S * 1000:g} ms."
        f" {', '.join(versions)}."
    )
    if asked.record:
        record("Gateway", text, "uvloop", "httptools")
    else:
        print(text)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.4, help="of load per cell and round")
    parser.add_argument("--rounds", type=int, default=12)
    for name in PEERS:
        parser.add_argument(f"--{name}", metavar="PATH", help=f"where {name} is, if not in PATH")
    parser.add_argument(
        "--only", nargs="*", choices=[*PEERS], default=[*PEERS], help="these peers and no others"
    )
    parser.add_argument("--record", action="store_true", help="put the table into RESULTS.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
