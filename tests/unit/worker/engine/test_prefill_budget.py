"""How much of the prompts a step takes on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from llmlaunch.worker.engine.prefill_budget import MOST_BURST_S, PrefillBudget
from llmlaunch.worker.engine.scheduled_request import PendingPrompt, ScheduledRequest
from llmlaunch.worker.engine.scheduler import Scheduler
from llmlaunch.worker.kv.types import Capacity

DECODE_S = 0.03
TOKEN_S = 0.001


@pytest.fixture
def prefill() -> PrefillBudget:
    """Of a machine that takes 30 ms to decode, and 1 ms for each token of a prompt."""
    prefill = PrefillBudget(2048)
    prefill.observe(decoded=1, prompt=0, seconds=DECODE_S)
    prefill.observe(decoded=0, prompt=100, seconds=DECODE_S + 100 * TOKEN_S)
    return prefill


@pytest.mark.parametrize(
    ("decoding", "left", "tokens"),
    [
        (1, [20] * 8, 160),  # eight first tokens for one pause of 160 ms
        (1, [20] * 50, 800),  # never more than so much
        (1, [4000], 0),  # one long prompt: the ordinary budget
        (1, [4000] * 30, 0),  # many long ones: none would be complete
        (1, [20], 0),  # one alone, neither
        (8, [20] * 8, 0),  # as many wait as speak: 160 ms for what 105 ms are worth
        (8, [13] * 8, 104),
        (3, [25] * 29, 725),
        (1, [4000, 20, 20], 0),  # those behind a long one do not pass it
        (1, [10, 10, 4000], 20),
        (1, [], 0),
        (0, [20] * 8, 0),  # nobody is held up: the ordinary budget is all there is
    ],
)
def test_a_burst_buys_first_tokens(
    prefill: PrefillBudget, decoding: int, left: list[int], tokens: int
) -> None:
    assert prefill.burst(decoding, [PendingPrompt(tokens) for tokens in left]) == tokens
    assert tokens * TOKEN_S <= MOST_BURST_S


def test_the_last_piece_of_a_long_prompt_buys_nothing(prefill: PrefillBudget) -> None:
    tail = PendingPrompt(60, begun=True)
    assert prefill.burst(1, [tail]) == 0
    assert prefill.burst(1, [tail, PendingPrompt(20)]) == 0
    assert prefill.burst(1, [tail, PendingPrompt(20), PendingPrompt(20)]) == 100, (
        "but it is read where others pay"
    )


def test_nothing_is_bought_before_the_price_is_known() -> None:
    assert PrefillBudget(2048).burst(1, [PendingPrompt(20)] * 8) == 0


def test_the_price_is_right_as_soon_as_a_decode_was_seen() -> None:
    """A worker's first step computes a prompt alone, and reads the weights for that as for a decode."""
    prefill = PrefillBudget(2048)
    prefill.observe(decoded=0, prompt=50, seconds=DECODE_S + 50 * TOKEN_S)
    prefill.observe(decoded=1, prompt=1, seconds=DECODE_S)
    assert prefill.burst(1, [PendingPrompt(20)] * 8) == 160
    assert prefill.tokens(1) == 30


def test_a_burst_keeps_to_the_longest_step() -> None:
    prefill = PrefillBudget(64)
    prefill.observe(decoded=1, prompt=0, seconds=DECODE_S)
    prefill.observe(decoded=0, prompt=100, seconds=DECODE_S + 1e-6)
    assert prefill.burst(1, [PendingPrompt(20)] * 8) == 60


def test_the_scheduler_tells_what_is_left_and_takes_the_larger_budget() -> None:
    scheduler = Scheduler(Capacity(rows=4, columns=64, tokens=256))
    for at in range(3):
        scheduler.add(ScheduledRequest(f"r{at}", tuple(range(at * 20, at * 20 + 10 + at)), 4))
    told: list[list[PendingPrompt]] = []

    def burst(prompts: Sequence[PendingPrompt]) -> int:
        told.append(list(prompts))
        return 21

    step = scheduler.step(4, burst)
    assert told == [[PendingPrompt(10), PendingPrompt(11), PendingPrompt(12)]]
    assert [(span.request_id, len(span.tokens), span.samples) for span in step.spans] == [
        ("r0", 10, True),
        ("r1", 11, True),
    ]
