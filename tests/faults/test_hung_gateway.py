"""One of several gateway processes, or their parent, stands still."""

from __future__ import annotations

import signal

import psutil

from tests.integration.gateway.fakes import Bench, ask, chat, running
from tests.support.waiting import wait_until

IMPATIENT = "from llmlaunch.gateway.multiprocess import loop_liveness; loop_liveness.STALLED_S = 1.0"


def members(bench: Bench) -> list[psutil.Process]:
    return psutil.Process(bench.gateway.process.pid).children()


def test_a_gateway_process_that_hangs_is_replaced_and_no_new_connection_is_lost() -> None:
    with running("--processes", "2", prelude=IMPATIENT) as bench:
        bench.serve(bench.worker().replica("m"))
        hangs = members(bench)[0]
        hangs.send_signal(signal.SIGSTOP)
        # Half of these meet the one that hangs, and are answered by the next.
        for _ in range(10):
            assert chat(bench.port, "m").status == 200
        wait_until(lambda: "hangs: it has been stopped by a signal" in bench.gateway.log, 20)
        wait_until(lambda: len(members(bench)) == 2 and hangs not in members(bench))
        assert bench.metric("process_hangs_total") == 1
        assert bench.gateway.stop() == 0


def test_a_stopped_parent_of_the_gateway_is_continued() -> None:
    """Nobody else notices: its processes answer every probe."""
    with running("--processes", "2", prelude=IMPATIENT) as bench:
        parent = psutil.Process(bench.gateway.process.pid)
        wait_until(lambda: ask(bench.port, "GET", "/metrics").status == 200)
        parent.send_signal(signal.SIGSTOP)
        wait_until(lambda: "is back" in bench.gateway.log, 20)
        assert parent.status() != psutil.STATUS_STOPPED
        assert bench.gateway.stop() == 0
