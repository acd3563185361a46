"""Phases of an exchange, and what a failure leads to."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.gateway.exchange.lifecycle import (
    NEXT,
    STALE_S,
    AfterBreak,
    ExchangePhase,
    after_break,
    refused_connection,
)
from llmlaunch.gateway.failures import FailureKind


def test_every_phase_can_be_reached_and_ends() -> None:
    reached = {ExchangePhase.NEW}.union(*NEXT.values())
    assert reached == set(ExchangePhase) == set(NEXT)
    for phase in ExchangePhase:
        assert (ExchangePhase.ENDED in NEXT[phase]) is (phase is not ExchangePhase.ENDED)


def test_what_the_client_has_a_part_of_is_never_tried_again() -> None:
    assert NEXT[ExchangePhase.STREAMING] == {ExchangePhase.ENDED}
    assert not NEXT[ExchangePhase.ENDED]


def test_only_an_unanswered_request_is_sent_again_over_the_same_replicas_connection() -> None:
    assert [phase for phase in ExchangePhase if ExchangePhase.RECONNECTING in NEXT[phase]] == [
        ExchangePhase.SENT
    ]


@given(st.sampled_from(FailureKind), st.booleans(), st.booleans(), st.floats(0, 100))
def test_a_stream_that_breaks_is_interrupted_whatever_broke_it(
    kind: FailureKind, pooled: bool, began: bool, after_s: float
) -> None:
    step = after_break(ExchangePhase.STREAMING, kind, pooled=pooled, began=began, after_s=after_s)
    assert step is AfterBreak.INTERRUPT


@pytest.mark.parametrize("phase", [ExchangePhase.SENT, ExchangePhase.RESPONDING])
def test_an_answer_that_is_not_http_is_told_and_not_tried_again(phase: ExchangePhase) -> None:
    for pooled, began in itertools.product((True, False), repeat=2):
        step = after_break(phase, FailureKind.INVALID, pooled=pooled, began=began, after_s=0)
        assert step is AfterBreak.REFUSE


@pytest.mark.parametrize(
    ("kind", "pooled", "began", "after_s", "step"),
    [
        (FailureKind.RESET, True, False, 0.0, AfterBreak.RECONNECT),
        (FailureKind.RESET, True, False, STALE_S, AfterBreak.RETRY),  # it had the request for a while
        (FailureKind.RESET, True, True, 0.0, AfterBreak.RETRY),  # it had begun to answer
        (FailureKind.RESET, False, False, 0.0, AfterBreak.RETRY),  # a new connection is not stale
        (FailureKind.SILENT, True, False, 0.0, AfterBreak.RETRY),
        (FailureKind.EMPTY, False, False, 0.0, AfterBreak.RETRY),
        (FailureKind.TIMEOUT, False, False, 0.0, AfterBreak.RETRY),
    ],
)
def test_only_a_pooled_connection_that_breaks_at_once_is_replaced(
    kind: FailureKind, pooled: bool, began: bool, after_s: float, step: AfterBreak
) -> None:
    assert after_break(ExchangePhase.SENT, kind, pooled=pooled, began=began, after_s=after_s) is step


def test_a_replica_that_takes_no_connection_after_one_broke_has_died() -> None:
    assert refused_connection(ExchangePhase.CONNECTING, timed_out=False) is FailureKind.REFUSED
    assert refused_connection(ExchangePhase.RECONNECTING, timed_out=False) is FailureKind.RESET
    assert refused_connection(ExchangePhase.RECONNECTING, timed_out=True) is FailureKind.TIMEOUT


def test_which_failures_may_be_the_requests_doing() -> None:
    assert {kind for kind in FailureKind if kind.is_death} == {FailureKind.RESET, FailureKind.SILENT}
    assert {kind for kind in FailureKind if not kind.counts_against_health} == {FailureKind.UNAVAILABLE}
