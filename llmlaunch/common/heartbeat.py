"""Heartbeats and the leases that they renew, in seconds: what the two ends of a connection must agree on. Pure."""

from __future__ import annotations

HEARTBEAT_S = 5.0
"""Interval between two heartbeats of a worker."""
LEASE_S = 15.0
"""After which a worker without a heartbeat is forgotten; a verified one is asked first, and kept while it answers."""
FASTCHAT_LEASE_S = 100.0
"""The same for FastChat's own workers, which send a heartbeat every 45 s."""
REPORT_LEASE_S = 10.0
"""After which a gateway's report of its requests in flight does not count any more."""
REPORT_AGAIN_S = 4.0
"""After which a gateway repeats a report that still holds, so that one may be lost."""
