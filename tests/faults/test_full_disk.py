"""A disk that takes no line any more, from the first one on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.integration.gateway.fakes import ask
from tests.support.ports import free_port
from tests.support.waiting import wait_until

FULL = "/dev/full"
"""man 4 full: every write to it fails with ENOSPC."""
VERBS = {
    "the gateway": ("api", "--access-log"),
    "two gateway processes": ("api", "--processes", "2", "--access-log"),
    "the controller": ("controller",),
}


@pytest.mark.skipif(not Path(FULL).exists(), reason=f"there is no {FULL}")
@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_a_component_starts_serves_and_ends_on_a_full_disk(verb: tuple[str, ...]) -> None:
    port = free_port()
    with open(FULL, "wb") as full:  # noqa: PTH123
        process = subprocess.Popen(
            [sys.executable, "-m", "llmlaunch", *verb, "--port", str(port)], stdout=full, stderr=full
        )
    path = "/health" if verb[0] == "controller" else "/metrics"

    def answers() -> bool:
        assert process.poll() is None, "it ended"
        try:
            return ask(port, "GET", path).status == 200
        except OSError:
            return False

    try:
        wait_until(answers, 20)
        # Every process prints that one of them is gone.
        before = set(psutil.Process(process.pid).children())
        for child in list(before)[:1]:
            child.kill()
            wait_until(lambda: set(psutil.Process(process.pid).children()) - before)
        for _ in range(20):
            assert answers()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait(20)
