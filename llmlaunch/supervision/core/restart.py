"""When a component that failed starts again, and the supervisor's time limits."""

from __future__ import annotations

from dataclasses import dataclass

from llmlaunch.common import backoff


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits and delays. All times are in seconds."""

    first_delay_s: float = 1.0
    max_delay_s: float = 60.0
    jitter: float = 0.25
    """The largest random share that is added to a delay, so that components that failed together do not restart together."""
    stable_s: float = 60.0
    """Being READY for this long resets the count of failures."""
    max_failures: int = 5
    """Failed starts in a row that lead to FAILED."""
    first_retry_s: float = 60.0
    """How long FAILED lasts the first time, unless the fault is permanent."""
    later_retry_s: float = 300.0
    """How long it lasts after the retry has failed, too."""
    max_failed_probes: int = 3
    """Failed probes in a row that make a component unhealthy."""
    probe_every_s: float = 2.0
    probe_timeout_s: float = 5.0
    """For components whose spec says nothing else: the controller and the API server."""
    start_probe_timeout_s: float = 30.0
    """The least timeout of a readiness probe. A server that is slow to answer has not failed before it is ready; one that
    serves requests is held to ``probe_timeout_s``."""
    busy_cpu: float = 0.05
    """CPUs that a process tree must keep busy to count as alive while it does not answer. One that is blocked by a lock, a
    socket or a stop signal uses hardly any; one that computes uses a whole CPU."""
    busy_limit_s: float = 300.0
    """How long it may be busy without any answer, to a probe or to a request through the gateway: an infinite loop would be
    busy forever. It is far longer than what healthy servers take (tokenizing, compiling, collecting garbage, a batch that blocks
    the interpreter), and the gateway sends requests elsewhere meanwhile."""
    unhealthy_grace_s: float = 2.0
    """The grace of a process that does not answer, and so has no requests to finish."""
    least_term_grace_s: float = 3.0
    """What remains for SIGTERM when draining has used up the grace."""
    kill_again_s: float = 2.0
    memory_wait_s: float = 90.0
    """How long a start may wait for GPU memory to be freed; then FAILED, since another process has taken it."""
    unused_s: float = 60.0
    """A supervisor that has received no plan exits after this: whoever started it has failed."""
    look_for_socket_s: float = 1.0
    """How often a supervisor checks that its control socket is still there."""


def delay(policy: Policy, failures: int, was_ready: bool, jitter: float) -> float:
    """Seconds until the next start after the ``failures``-th failure in a row. ``jitter`` is drawn from [0, 1).

    The first restart of a component that had been READY is immediate: it has shown that it can run.
    """
    if failures <= 1 and was_ready:
        return 0.0
    base = backoff.delay(failures, policy.first_delay_s, policy.max_delay_s)
    return min(base * (1 + policy.jitter * jitter), policy.max_delay_s)


def retry_delay(policy: Policy, failures: int, gave_up: int, ran: bool, jitter: float) -> float:
    """Seconds that FAILED lasts when it is reached for the ``gave_up``-th time in a row.

    ``ran``: a process was created. Where none was (its port is taken, the disk is full, no descriptors are left), a retry costs
    next to nothing, so the delays of BACKOFF go on to their maximum instead.
    """
    if not ran:
        return delay(policy, failures, False, jitter)
    return policy.first_retry_s if gave_up <= 1 else policy.later_retry_s
