"""What a gateway holds after a million requests is what it held after the first thousands."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.gateway import load
from benchmarks.gateway.__main__ import CHAT, STREAM, body
from benchmarks.gateway.peers import KEY, Place, Proxy, child, free_port, llmlaunch, wait_for

REQUESTS = 1_000_000
WARM = 30_000
SECONDS = 3.0
"""Of load by one message, before it is another one's turn."""
GROWTH_MIB = 4.0


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Proxy]:
    cores = os.sched_getaffinity(0)
    mine = min(cores)
    others = (cores - {mine}) or cores
    port = free_port()
    with child(load.compiled("mock", tmp_path), str(port), cores=others):
        wait_for(f"http://127.0.0.1:{port}/")
        with llmlaunch(Place(tmp_path, port, mine, others)) as proxy:
            yield proxy


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("cc")), reason="the load is made by a C program")
def test_memory_is_flat_over_a_million_requests(gateway: Proxy, tmp_path: Path) -> None:
    maker = load.Load(load.compiled("load", tmp_path), tmp_path)
    bodies = itertools.cycle((CHAT, CHAT, CHAT, STREAM, CHAT, CHAT, body(20_000), CHAT))
    began, sent, warm = time.monotonic(), 0, 0.0
    for number, content in enumerate(bodies):
        message = load.request(gateway.port, content, KEY)
        # A head that is new every time, as far as memory of heads goes.
        message = message.replace(b"\r\naccept:", b"\r\nx-run: %d\r\naccept:" % number, 1)
        sent += maker.run(gateway.port, message, 64, SECONDS).answers
        if not warm and sent > WARM and number >= 8:
            warm = gateway.rss_mib()
        if sent >= REQUESTS:
            break
    after = gateway.rss_mib()
    print(f"{sent} requests in {time.monotonic() - began:.0f} s; {warm:.1f} MiB then {after:.1f} MiB")
    assert after - warm < GROWTH_MIB
