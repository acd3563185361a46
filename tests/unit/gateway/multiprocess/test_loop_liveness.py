"""Who hangs, and who is only slow: histories of looks, one a second."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from llmlaunch.gateway.multiprocess.loop_liveness import (
    STALLED_S,
    UNRESPONSIVE_S,
    LoopLiveness,
    ProcessSample,
    read,
)
from llmlaunch.gateway.multiprocess.parent import ParentWatch
from llmlaunch.gateway.multiprocess.shared_counters import ProcessGroup, SharedCounters

STILL, BUSY = int(STALLED_S), int(UNRESPONSIVE_S)


def first_verdict(
    beats: list[float], states: str, cpu: list[float], times: list[float] | None = None
) -> int | None:
    """The index of the look that takes it to hang. The last state and CPU time go on."""
    pulse = LoopLiveness()
    for at, beat in enumerate(beats):
        sight = ProcessSample(states[min(at, len(states) - 1)], cpu[min(at, len(cpu) - 1)])
        if pulse.observe(beat, sight, times[at] if times else float(at)):
            return at
    return None


STUCK = [1.0, 2.0, *[3.0] * 100]
"""Its last beat is seen at look 2."""
WORKS = [float(n) for n in range(200)]


@pytest.mark.parametrize(
    ("states", "cpu", "verdict"),
    [
        ("S", [0.0], 2 + STILL),
        ("T", [0.0], 2 + STILL),
        ("t", [0.0], 2 + STILL),
        ("SSSSTTTT", [0.0], 2 + STILL),
        ("R", WORKS, 2 + BUSY),
        ("S", WORKS, 2 + BUSY),
        ("R", [0.0], 2 + BUSY),
        ("D", [0.0], 2 + BUSY),
        ("SSSSSRS", [0.0], 6 + STILL - 1),
        ("RRRRRRRRRRRS", [0.0], 10 + STILL),
    ],
    ids=[
        "a deadlock", "SIGSTOP", "a debugger", "stopped while it hung", "an endless loop", "an endless loop with naps",
        "no CPU to be had", "a disk that does not answer", "seen running once", "works, then waits for ever",
    ],
)  # fmt: skip
def test_a_beat_that_stands_still(states: str, cpu: list[float], verdict: int) -> None:
    assert first_verdict(STUCK, states, cpu) == verdict


def test_whoever_beats_does_not_hang() -> None:
    chance = random.Random(7)
    beats = [float(n // 4) for n in range(400)]  # one in four seconds: a machine under load
    assert first_verdict(beats, "".join(chance.choices("SRDT", k=400)), [0.0]) is None


def test_a_start_may_wait_for_what_it_needs() -> None:
    """The beat of a predecessor stands in the board."""
    assert first_verdict([41.0] * 100, "S", [0.0]) == BUSY
    assert first_verdict([41.0] * 100, "T", [0.0]) == STILL


def test_whoever_looks_late_has_seen_nothing() -> None:
    """The one who looks was stopped, or the whole machine was."""
    times = [0.0, 1.0, 2.0, 3.0, 60.0, 61.0, 62.0]
    assert first_verdict(STUCK[:7], "S", [0.0], times) is None
    assert first_verdict(STUCK[:12], "S", [0.0], [*times, 63.0, 64.0, 65.0, 66.0, 67.0]) == 9


def test_nothing_seen_is_only_no_beat() -> None:
    pulse = LoopLiveness()
    assert [bool(pulse.observe(beat, None, float(at))) for at, beat in enumerate(STUCK)].index(
        True
    ) == 2 + BUSY


def test_the_kernels_words() -> None:
    assert read(b"7 (a (b) c) T 1 7 7 0 -1 4194304 1 2 3 4 250 50 0 0 20 0 1", 100) == ProcessSample("T", 3.0)
    assert read(b"", 100) is None
    assert read(b"7 (x) S 1", 100) is None
    own = read(Path("/proc/self/stat").read_bytes(), os.sysconf("SC_CLK_TCK"))
    assert own is not None
    assert own.state == "R"


@pytest.mark.parametrize("parent_beats", [True, False])
@pytest.mark.parametrize("other_beats", [True, False])
def test_a_process_that_nobody_replaces_is_a_fault_that_probes_must_see(
    parent_beats: bool, other_beats: bool, caplog: pytest.LogCaptureFixture
) -> None:
    boards = SharedCounters(1 << 12), SharedCounters(1 << 12)
    watch = ParentWatch(ProcessGroup(boards, 1))
    broken = False
    for second in range(2 * BUSY):
        boards[1].parent_beat += parent_beats
        boards[0].beat += other_beats
        broken = watch.observe(float(second))
    assert broken == (not parent_beats and not other_beats)
    assert ("are not replaced" in caplog.text) == (not parent_beats)
