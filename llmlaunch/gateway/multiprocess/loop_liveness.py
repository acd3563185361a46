"""Whether a process still turns its loop, as one tells who looks about once a second. Pure: time and samples come in.

A beat that stands still says only that the loop does not turn. Under load that may be nobody's fault: such a process is
runnable, waits for a disk, or works. One that does none of these at any look will not come back by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

BEAT_S = 0.5
"""Seconds between two beats."""
LOOK_S = 1.0
STILL_S = 5.0
"""Without a beat, without CPU time, and asleep or stopped at every look: it hangs."""
BUSY_S = 30.0
"""Without a beat, whatever it did."""
LATE_S = 3.0
"""Between two looks: who looks was held up itself, and has seen nothing."""
_ASLEEP = frozenset("STt")
STOPPED = frozenset("Tt")
"""States of /proc/PID/stat (man 5 proc)."""


@dataclass(frozen=True, slots=True)
class ProcessSample:
    """A process at one moment, as the kernel has it."""

    state: str
    """Of its main thread: a letter of /proc/PID/stat."""
    cpu_s: float
    """Of all its threads, so far."""


@dataclass(slots=True)
class LoopLiveness:
    """What one process was seen doing."""

    _beat: float = math.nan
    _cpu_s: float = math.nan
    _began: bool = False
    """It has turned its loop: before, it may wait for whatever it needs to start."""
    _looked_at: float = -math.inf
    _quiet_since: float = 0.0
    _still_since: float = 0.0

    def look(self, beat: float, sample: ProcessSample | None, now: float) -> str:
        """Why it is taken to hang; empty: it is not. ``sample``: None when nothing could be seen."""
        first, late = math.isnan(self._beat), now - self._looked_at > LATE_S
        if beat != self._beat or late:
            self._began = self._began or (beat != self._beat and not first)
            self._quiet_since = self._still_since = now
        elif sample is None or sample.state not in _ASLEEP or sample.cpu_s != self._cpu_s:
            self._still_since = now
        self._beat, self._looked_at = beat, now
        self._cpu_s = math.nan if sample is None else sample.cpu_s
        stopped = sample is not None and sample.state in STOPPED
        if (stopped or (sample is not None and self._began)) and now - self._still_since >= STILL_S:
            how = "was stopped by a signal" if stopped else "stands still"
            return f"it {how}, for {now - self._quiet_since:.0f} s"
        if now - self._quiet_since >= BUSY_S:
            return f"its loop has not turned for {now - self._quiet_since:.0f} s"
        return ""


def read(stat: bytes, ticks_per_s: int) -> ProcessSample | None:
    """What a /proc/PID/stat says; None when it is not understood."""
    fields = stat.rpartition(b")")[2].split()  # a name may hold spaces and brackets
    try:
        return ProcessSample(fields[0].decode(), (int(fields[11]) + int(fields[12])) / ticks_per_s)
    except (IndexError, ValueError):
        return None
