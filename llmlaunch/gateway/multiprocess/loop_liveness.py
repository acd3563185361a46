"""Whether a process's event loop still runs, decided from one sample each second. Pure: time and samples are arguments.

A heartbeat that stands still shows only that the loop does not run. Under load that may be harmless: then the process is
runnable, waits for a disk, or uses CPU time. A process that does none of these in any sample will not recover by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

HEARTBEAT_S = 0.5
"""Seconds between two heartbeats."""
SAMPLE_S = 1.0
"""Seconds between two samples."""
STALLED_S = 5.0
"""Seconds without a heartbeat or CPU time, and asleep or stopped in every sample, after which a process hangs."""
UNRESPONSIVE_S = 30.0
"""Seconds without a heartbeat after which a process hangs, whatever it does."""
OBSERVER_LATE_S = 3.0
"""Seconds between two samples beyond which the observer itself was held up, so that its observations start again."""
_ASLEEP = frozenset("STt")
STOPPED = frozenset("Tt")
"""States of /proc/PID/stat (man 5 proc)."""


@dataclass(frozen=True, slots=True)
class ProcessSample:
    """What the kernel reports of a process at one moment."""

    state: str
    """The state of its main thread: a letter of /proc/PID/stat."""
    cpu_s: float
    """CPU time of all its threads so far, in seconds."""


@dataclass(slots=True)
class LoopLiveness:
    """What was observed of one process."""

    _beat: float = math.nan
    _cpu_s: float = math.nan
    _has_run: bool = False
    """Its loop has run. Before that it may wait for something that it needs to start."""
    _observed_at: float = -math.inf
    _silent_since: float = 0.0
    _stalled_since: float = 0.0

    def observe(self, beat: float, sample: ProcessSample | None, now: float) -> str:
        """Why the process counts as hung; empty: it does not. ``sample``: None if the kernel reported nothing."""
        first, late = math.isnan(self._beat), now - self._observed_at > OBSERVER_LATE_S
        if beat != self._beat or late:
            self._has_run = self._has_run or (beat != self._beat and not first)
            self._silent_since = self._stalled_since = now
        elif sample is None or sample.state not in _ASLEEP or sample.cpu_s != self._cpu_s:
            self._stalled_since = now
        self._beat, self._observed_at = beat, now
        self._cpu_s = math.nan if sample is None else sample.cpu_s
        stopped = sample is not None and sample.state in STOPPED
        if (stopped or (sample is not None and self._has_run)) and now - self._stalled_since >= STALLED_S:
            how = "has been stopped by a signal" if stopped else "has done nothing"
            return f"it {how} for {now - self._silent_since:.0f} s"
        if now - self._silent_since >= UNRESPONSIVE_S:
            return f"its event loop has not run for {now - self._silent_since:.0f} s"
        return ""


def read(stat: bytes, ticks_per_s: int) -> ProcessSample | None:
    """Parse a /proc/PID/stat; None when it has an unknown format."""
    fields = stat.rpartition(b")")[2].split()  # the name may contain spaces and brackets
    try:
        return ProcessSample(fields[0].decode(), (int(fields[11]) + int(fields[12])) / ticks_per_s)
    except (IndexError, ValueError):
        return None
