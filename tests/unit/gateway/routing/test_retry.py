"""Whether a failed request gets another try, and the budget of retries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.gateway.routing.retry import ATTEMPTS, NextStep, RetryBudget, after_failure, tried_after


def test_who_breaks_replicas_gets_no_other_one() -> None:
    for attempts in range(1, ATTEMPTS + 1):
        for alternative in (True, False):
            step = after_failure(refused_s=1.0, attempts=attempts, has_alternative=alternative)
            assert step is NextStep.REFUSE_CULPRIT


def test_another_replica_is_asked_until_there_were_enough() -> None:
    steps = [
        after_failure(refused_s=0.0, attempts=n, has_alternative=n < ATTEMPTS) for n in range(1, ATTEMPTS + 1)
    ]
    assert steps == [*[NextStep.TRY_ANOTHER] * (ATTEMPTS - 1), NextStep.GIVE_UP]
    assert after_failure(refused_s=0.0, attempts=1, has_alternative=False) is NextStep.CHOOSE_AGAIN


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=9), st.sets(st.sampled_from("abc")))
def test_the_one_that_just_failed_is_never_asked_next(failures: list[str], serving: set[str]) -> None:
    tried: tuple[str, ...] = ()
    for failed in failures:
        tried = tried_after(tried, failed, tuple(serving))
        assert failed in tried
        if len(serving) > 1:
            assert not serving <= set(tried), "somebody may be back"


def test_an_only_replica_that_failed_is_not_asked_again() -> None:
    assert tried_after((), "a", ("a",)) == ("a",)


# -- the budget


def test_retries_are_a_part_of_the_requests() -> None:
    budget, done = RetryBudget(), 0
    for _ in range(10_000):
        budget.request()
        done += budget.take(now=0.0)
    # The reserve, a fifth of the requests, and what rounding makes of it.
    assert 2095 <= done <= 2126


def test_a_quiet_gateway_gets_retries_with_time_up_to_the_reserve() -> None:
    budget = RetryBudget(level=0.0, at=0.0)
    assert not budget.take(0.05)
    assert budget.take(0.125)
    assert not budget.take(0.125)
    assert budget.take(1000.0)
    assert budget.level == RetryBudget.RESERVE - 1


@given(st.lists(st.one_of(st.none(), st.floats(0, 5)), max_size=300))
def test_the_budget_is_never_overdrawn(history: list[float | None]) -> None:
    budget, now, requests, taken = RetryBudget(), 0.0, 0, 0
    for step in history:
        if step is None:
            budget.request()
            requests += 1
        else:
            now += step
            taken += budget.take(now)
        assert 0 <= budget.level <= RetryBudget.MOST + 1
        assert taken <= RetryBudget.RESERVE + RetryBudget.SHARE * requests + RetryBudget.PER_S * now + 1
