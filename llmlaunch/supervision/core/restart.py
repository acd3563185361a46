"""When a component that failed starts again, and how patient the supervisor is."""

from __future__ import annotations

from dataclasses import dataclass

from llmlaunch.common import backoff


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
    """Of starts, in a row, then FAILED."""
    first_retry_s: float = 60.0
    """How long FAILED lasts the first time, unless the fault is permanent."""
    later_retry_s: float = 300.0
    """How long it lasts when the retry failed, too."""
    max_failed_probes: int = 3
    """In a row, then unhealthy."""
    probe_every_s: float = 2.0
    probe_timeout_s: float = 5.0
    """For components whose spec says nothing else: the controller and the API server."""
    start_probe_timeout_s: float = 30.0
    """The least that a probe of a start may take. A server that is slow to answer is no failure before it is ready; who
    serves others already is held to ``probe_timeout_s``."""
    busy_cpu: float = 0.05
    """CPUs that a process tree must keep busy to count as alive while it does not answer. One that hangs on a lock, a
    socket or a stop signal uses none, but for a thread that looks at a clock; one that computes uses a whole one."""
    busy_limit_s: float = 300.0
    """For so long may it be busy without any answer, to a probe or to a request that the gateway knows of: a loop without an
    end would be busy for ever. It is far longer than what is seen in servers that are well (tokenizing, compiling, collecting
    garbage, a batch that holds the interpreter), and the gateway sends requests elsewhere meanwhile."""
    unhealthy_grace_s: float = 2.0
    """A process that does not answer gets no long grace: it serves nobody."""
    least_term_grace_s: float = 3.0
    """What the process gets to end itself after draining used up the grace."""
    kill_again_s: float = 2.0
    memory_wait_s: float = 90.0
    """How long a start may wait for GPU memory to come back, then FAILED: somebody else has taken it."""
    unused_s: float = 60.0
    """A supervisor that was never told what to run ends by itself after this: whoever started it has failed."""
    look_for_socket_s: float = 1.0
    """How often a supervisor looks whether its control socket is still there."""


def delay(policy: Policy, failures: int, was_ready: bool, jitter: float) -> float:
    """Seconds until the next start after the ``failures``-th failure in a row. ``jitter`` is drawn from [0, 1).

    A component that had been ready goes back at once the first time: it has shown that it can run.
    """
    if failures <= 1 and was_ready:
        return 0.0
    base = backoff.delay(failures, policy.first_delay_s, policy.max_delay_s)
    return min(base * (1 + policy.jitter * jitter), policy.max_delay_s)


def retry_delay(policy: Policy, failures: int, gave_up: int, ran: bool, jitter: float) -> float:
    """Seconds that FAILED lasts when it is reached for the ``gave_up``-th time in a row.

    Where no process came to be (its port is taken, the disk is full, no descriptors are left) a try costs next to nothing, so
    the growing delays go on to their maximum instead.
    """
    if not ran:
        return delay(policy, failures, False, jitter)
    return policy.first_retry_s if gave_up <= 1 else policy.later_retry_s
