"""Leases outlive what renews them."""

from __future__ import annotations

from llmlaunch.common.heartbeat import (
    FASTCHAT_LEASE_S,
    HEARTBEAT_S,
    LEASE_S,
    REPORT_AGAIN_S,
    REPORT_LEASE_S,
)


def test_one_heartbeat_may_be_lost() -> None:
    assert LEASE_S > 2 * HEARTBEAT_S
    assert FASTCHAT_LEASE_S > 2 * 45
    assert REPORT_LEASE_S > 2 * REPORT_AGAIN_S
