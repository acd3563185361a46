"""What a probe of a READY component means: healthy, unknown, or unhealthy.

A healthy server may fail to answer: its probe waits for a token behind forty other requests, or one long call blocks its
interpreter. So an answer with an error, or a port where nothing listens, counts as a failure; silence only counts if the process
tree uses no CPU. One that is busy is left alone as long as it goes on answering requests, and for ``Policy.busy_limit_s`` if it
answers none. Whether requests are in flight does not matter: a client that has disconnected, or that bypassed the gateway, keeps
it just as busy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from llmlaunch.planning.types import ProcessSpec
from llmlaunch.supervision.core.restart import Policy
from llmlaunch.supervision.core.types import Probed, Record


@dataclass(frozen=True, slots=True)
class ProbeLimits:
    """How long a component may fail to answer. Times in seconds."""

    timeout_s: float
    failures: int
    busy_limit_s: float

    @classmethod
    def of(cls, spec: ProcessSpec, policy: Policy) -> ProbeLimits:
        """The limits of ``spec``, or the policy's where it has none."""
        timeout = policy.probe_timeout_s if spec.probe_timeout_s is None else spec.probe_timeout_s
        failures = policy.max_failed_probes if spec.probe_failures is None else spec.probe_failures
        # Whoever allows an idle component more than the limit wants at least that for a busy one.
        limit = max(policy.busy_limit_s, 2 * failures * (timeout + policy.probe_every_s))
        return cls(timeout, failures, limit)


def judge(record: Record, event: Probed, spec: ProcessSpec, policy: Policy, now: float) -> tuple[Record, str]:
    """``record`` after a liveness probe, and why it is unhealthy; empty as long as it is not."""
    if event.ok:
        return replace(record, failed_probes=0, unanswered_since=None), ""
    patience = ProbeLimits.of(spec, policy)
    since = now if record.unanswered_since is None or event.answered else record.unanswered_since
    busy = event.unanswered and event.cpu is not None and event.cpu >= policy.busy_cpu
    failed = 0 if busy else record.failed_probes + 1
    record = replace(record, failed_probes=failed, unanswered_since=since)
    if failed >= patience.failures:
        many = (
            f"{failed} probes of {spec.live_path} in a row" if failed > 1 else f"a probe of {spec.live_path}"
        )
        return record, f"unhealthy: {many} failed ({event.detail})"
    if now - since >= patience.busy_limit_s:
        silent = f"{now - since:.0f} s"
        return (
            record,
            f"unhealthy: busy, but no probe of {spec.live_path} has been answered for {silent} ({event.detail})",
        )
    return record, ""
