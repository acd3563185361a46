"""Token buckets, accounts, estimates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.gateway.limits.api_key import KeyLimits
from llmlaunch.gateway.limits.rates import KeyAccount, TokenMeter


def test_a_minute_of_requests_at_once_then_steadily() -> None:
    account, limits = KeyAccount(), KeyLimits(rpm=60)
    assert [account.admit(limits, 0.0, 1) for _ in range(60)] == [None] * 60
    refusal = account.admit(limits, 0.5, 1)
    assert refusal is not None
    assert (refusal.what, refusal.wait_s) == ("requests", 1)
    assert account.admit(limits, 1.0, 1) is None
    assert account.admit(limits, 1.5, 1) is not None
    assert [account.admit(limits, 100.0, 1) is None for _ in range(61)] == [True] * 60 + [False]


def test_concurrency_counts_what_is_not_over() -> None:
    account, limits = KeyAccount(), KeyLimits(concurrency=2)
    assert [account.admit(limits, 0.0, 1) for _ in range(2)] == [None, None]
    refusal = account.admit(limits, 0.0, 1)
    assert refusal is not None
    assert refusal.what == "concurrency"
    account.settle(1, 1)
    assert account.admit(limits, 0.0, 1) is None


def test_tokens_are_settled_at_the_end_and_debts_are_waited_for() -> None:
    account, limits = KeyAccount(), KeyLimits(tpm=600)
    assert account.admit(limits, 0.0, 100) is None
    account.settle(100, 900)  # it was much more than it looked like
    refusal = account.admit(limits, 0.0, 10)
    assert refusal is not None
    assert (refusal.what, refusal.wait_s) == ("tokens", 31)
    assert account.admit(limits, 30.9, 10) is not None
    assert account.admit(limits, 31.0, 10) is None
    account.settle(10, 0)  # it failed and took nothing
    assert account.admit(limits, 31.0, 10) is None


def test_a_request_larger_than_a_minute_gets_its_turn() -> None:
    account, limits = KeyAccount(), KeyLimits(tpm=100)
    assert account.admit(limits, 0.0, 5000) is None
    refusal = account.admit(limits, 0.0, 1)
    assert refusal is not None
    assert refusal.wait_s == (4900 + 1) * 60 // 100 + 1


def test_a_refusal_takes_nothing() -> None:
    account = KeyAccount()
    both = KeyLimits(rpm=10, tpm=100)
    assert account.admit(both, 0.0, 100) is None
    for _ in range(50):
        assert account.admit(both, 0.0, 50) is not None
    assert account.requests is not None
    assert account.requests.level == 9
    assert account.in_flight == 1


def test_new_limits_count_at_once() -> None:
    account = KeyAccount()
    assert account.admit(KeyLimits(rpm=1000), 0.0, 1) is None
    assert [account.admit(KeyLimits(rpm=2), 0.0, 1) is None for _ in range(3)] == [True, True, False]
    assert [account.admit(KeyLimits(rpm=5), 0.0, 1) is None for _ in range(4)] == [True, True, True, False]


@given(
    st.integers(1, 30), st.integers(1, 2000),
    st.lists(st.tuples(st.floats(0, 20), st.integers(0, 300), st.integers(0, 600)), max_size=60),
)  # fmt: skip
def test_no_window_holds_more_than_the_limits_allow(
    rpm: int, tpm: int, history: list[tuple[float, int, int]]
) -> None:
    account, limits, now = KeyAccount(), KeyLimits(rpm=rpm, tpm=tpm), 0.0
    requests, largest, used_up = 0, 0, 0
    for wait, estimate, used in history:
        now += wait
        refusal = account.admit(limits, now, estimate)
        if refusal is None:
            account.settle(estimate, used)
            requests += 1
            used_up += used
            largest = max(largest, used, estimate)
        else:
            assert refusal.wait_s >= 1
        assert requests <= rpm + rpm * now / 60 + 1e-6
        assert used_up <= tpm + tpm * now / 60 + largest + 1e-6
        assert account.in_flight == 0


@pytest.mark.parametrize(
    ("pieces", "tokens"),
    [([b"data: {}\n\ndata: {}\n\n", b"data: [DONE]\n\n"], 3), ([b"x" * 400], 100), ([], 0)],
)
def test_an_answer_that_tells_nothing_is_estimated(pieces: list[bytes], tokens: int) -> None:
    meter = TokenMeter()
    for piece in pieces:
        meter.feed(piece)
    assert meter.tokens == tokens


def test_processes_share_what_is_limited_and_none_gets_nothing() -> None:
    limits = KeyLimits(rpm=60, tpm=1001, concurrency=2, models=frozenset("m"), priority=3)
    assert limits.share_of(1) == limits
    assert limits.share_of(4) == KeyLimits(rpm=15, tpm=251, concurrency=1, models=frozenset("m"), priority=3)
    assert KeyLimits(rpm=1).share_of(64) == KeyLimits(rpm=1)
