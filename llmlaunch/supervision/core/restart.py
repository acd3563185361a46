"""When a component that failed starts again, and when it is given up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """All times in seconds."""

    first_delay_s: float = 1.0
    max_delay_s: float = 60.0
    jitter: float = 0.25
    """The share of a delay that chance may add, so that components that fell together do not rise together."""
    stable_s: float = 60.0
    """READY for this long forgives earlier failures."""
    max_failures: int = 5
    """In a row, then FAILED."""
    max_failed_probes: int = 3
    """In a row, then unhealthy."""
    probe_every_s: float = 2.0
    probe_timeout_s: float = 2.0
    unhealthy_grace_s: float = 2.0
    """A process that does not answer gets no long grace: it serves nobody."""
    least_term_grace_s: float = 3.0
    """What the process gets to end itself after draining used up the grace."""
    kill_again_s: float = 2.0
    memory_wait_s: float = 90.0
    """How long a start may wait for GPU memory to come back, then FAILED: somebody else has taken it."""
    unused_s: float = 60.0
    """A supervisor that was never told what to run ends by itself after this: whoever started it has failed."""
    look_for_socket_s: float = 5.0
    """How often a supervisor looks whether its control socket is still there."""


def delay(policy: Policy, failures: int, was_ready: bool, jitter: float) -> float:
    """Seconds until the next start after the ``failures``-th failure in a row. ``jitter`` is drawn from [0, 1).

    A component that had been ready goes back at once the first time: it has shown that it can run.
    """
    if failures <= 1 and was_ready:
        return 0.0
    base = min(policy.first_delay_s * 2.0 ** min(max(failures, 1) - 1, 30), policy.max_delay_s)
    return min(base * (1 + policy.jitter * jitter), policy.max_delay_s)
