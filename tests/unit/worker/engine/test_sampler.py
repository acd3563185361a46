"""Drawing tokens: each row by its own rules, checked against distributions worked out by hand."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlaunch.worker.engine.sampler import (
    CANDIDATES,
    FEW_CANDIDATES,
    SamplingState,
    fast_argmax,
    fast_topk,
    sample,
)
from llmlaunch.worker.types import Sampling


def draw(
    logits: list[float] | torch.Tensor, times: int = 1, prompt: tuple[int, ...] = (), **rules: Any
) -> Counter[int]:
    """How often each token is drawn in ``times`` independent rows."""
    row = torch.as_tensor(logits, dtype=torch.float32)
    chance = random.Random(1)
    states = [SamplingState.of(Sampling(**rules), prompt) for _ in range(times)]
    for state in states:
        state.generator = random.Random(chance.random())
    tokens, _ = sample(row.expand(times, -1), states)
    return Counter(tokens)


def near(counts: Counter[int], weights: list[float], times: int) -> bool:
    total = sum(weights)
    return all(
        abs(counts[token] / times - weight / total) < 5 * math.sqrt(0.25 / times)
        for token, weight in enumerate(weights)
    )


WEIGHTS = [0.5, 0.25, 0.15, 0.07, 0.03]
LOGITS = [math.log(weight) for weight in WEIGHTS]


def test_temperature_zero_takes_the_likeliest() -> None:
    assert draw([0.0, 3.0, 2.0], 50, temperature=0.0) == {1: 50}


def test_plain_sampling_follows_the_distribution() -> None:
    assert near(draw(LOGITS, 4000), WEIGHTS, 4000)


def test_temperature_sharpens() -> None:
    assert near(draw(LOGITS, 4000, temperature=0.5), [w * w for w in WEIGHTS], 4000)


def test_top_k_leaves_k() -> None:
    assert near(draw(LOGITS, 4000, top_k=2), WEIGHTS[:2], 4000)


@pytest.mark.parametrize(("top_p", "kept"), [(0.4, 1), (0.5, 1), (0.74, 2), (0.76, 3), (0.95, 4), (0.99, 5)])
def test_top_p_leaves_the_smallest_set_that_weighs_as_much(top_p: float, kept: int) -> None:
    assert near(draw(LOGITS, 4000, top_p=top_p), WEIGHTS[:kept], 4000)


def test_min_p_drops_what_is_far_less_likely_than_the_best() -> None:
    assert near(draw(LOGITS, 4000, min_p=0.2), WEIGHTS[:3], 4000)


def test_top_p_counts_within_top_k() -> None:
    # Of 0.5 and 0.25 alone the first one weighs 2/3.
    assert draw(LOGITS, 200, top_k=2, top_p=0.6) == {0: 200}


def test_a_nucleus_larger_than_the_candidates_is_exact() -> None:
    size = 4 * CANDIDATES
    counts = draw(torch.zeros(size), 4000, top_p=0.99)
    assert len(counts) > 2 * CANDIDATES


def test_rows_of_one_step_keep_their_own_rules() -> None:
    rows = torch.tensor([LOGITS] * 4)
    states = [
        SamplingState.of(Sampling(temperature=0.0), ()),
        SamplingState.of(Sampling(top_k=1), ()),
        SamplingState.of(Sampling(seed=5), ()),
        SamplingState.of(Sampling(logit_bias=((4, 100.0),), temperature=0.0), ()),
    ]
    tokens, _ = sample(rows, states)
    assert tokens[0] == tokens[1] == 0
    assert tokens[3] == 4
    again, _ = sample(rows[2:3], [SamplingState.of(Sampling(seed=5), ())])
    assert again[0] == tokens[2]


def test_a_ban_holds() -> None:
    state = SamplingState.of(Sampling(temperature=0.0), ())
    state.banned = (0, 1)
    assert sample(torch.tensor([LOGITS]), [state])[0] == [2]


def test_penalties_follow_their_definitions() -> None:
    logits = torch.tensor([[2.0, 1.9, -1.0]])
    state = SamplingState.of(Sampling(temperature=0.0, presence_penalty=0.2), ())
    assert [sample(logits, [state])[0][0] for _ in range(2)] == [0, 1]
    state = SamplingState.of(Sampling(temperature=0.0, frequency_penalty=0.06), ())
    assert [sample(logits, [state])[0][0] for _ in range(5)] == [0, 0, 1, 0, 1]
    state = SamplingState.of(Sampling(temperature=0.0, repetition_penalty=1.2), prompt=(0,))
    assert sample(logits, [state])[0][0] == 1
    negative = SamplingState.of(Sampling(temperature=0.0, repetition_penalty=2.0), prompt=(0, 1))
    assert sample(torch.tensor([[-1.0, -1.1, -1.5]]), [negative])[0][0] == 2


def test_logprobs_are_the_models_own() -> None:
    state = SamplingState.of(Sampling(temperature=0.3, logprobs=2, logit_bias=((1, 50.0),)), ())
    tokens, (logprob,) = sample(torch.tensor([LOGITS]), [state])
    assert tokens == [1]
    assert logprob is not None
    assert logprob.logprob == pytest.approx(math.log(0.25), abs=1e-5)
    assert [token for token, _ in logprob.top] == [0, 1]
    assert [value for _, value in logprob.top] == pytest.approx([math.log(0.5), math.log(0.25)], abs=1e-5)


@given(
    st.lists(st.floats(-30, 30), min_size=2, max_size=30),
    st.floats(0, 2), st.floats(0.01, 1), st.integers(0, 40), st.floats(0, 1), st.integers(0, 2**32),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_any_rules_draw_a_token_that_they_allow(
    logits: list[float], temperature: float, top_p: float, top_k: int, min_p: float, seed: int
) -> None:
    rules = Sampling(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, seed=seed)
    (token,), _ = sample(torch.tensor([logits]), [SamplingState.of(rules, ())])
    assert 0 <= token < len(logits)
    if top_k:
        rounded = torch.tensor(logits).tolist()
        assert sum(value > rounded[token] for value in rounded) < top_k
    (again,), _ = sample(torch.tensor([logits]), [SamplingState.of(rules, ())])
    assert again == token


EXTREMES = st.builds(
    Sampling,
    temperature=st.sampled_from((0.0, 1e-5, 1.1e-5, 1.0, 2.0)),
    top_p=st.sampled_from((1e-9, 0.5, 1.0)),
    top_k=st.sampled_from((0, 1, 300, 2**31, 2**63, 10**400)),
    min_p=st.sampled_from((0.0, 1e-300, 1.0)),
    repetition_penalty=st.sampled_from((1.0, 1e-308, 5e-324, 10.0)),
    presence_penalty=st.sampled_from((-2.0, 0.0, 2.0)),
    frequency_penalty=st.sampled_from((-2.0, 0.0, 2.0)),
    logit_bias=st.sampled_from(((), ((0, 100.0), (1, -100.0)), ((10**9, 1.0),), tuple((t, -100.0) for t in range(20)))),
    seed=st.sampled_from((None, 0, -(2**63), 2**64 + 5)),
    logprobs=st.sampled_from((None, 0, 20)),
)  # fmt: skip


@given(
    st.lists(
        st.tuples(EXTREMES, st.sampled_from(((), (0,), (18, 19), (1, 2, 3), tuple(range(20))))),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from((1e-3, 1.0, 80.0, 1e30)),
)
@settings(max_examples=150, deadline=None)
def test_the_most_extreme_rules_that_a_request_may_have_draw_a_token_that_is_not_banned(
    rows: list[tuple[Sampling, tuple[int, ...]]], scale: float
) -> None:
    """What one row raises fails all the others."""
    torch.manual_seed(5)
    logits = torch.randn(len(rows), 20).abs() * scale
    logits[:, 7:9] *= -1
    states = [SamplingState.of(rules, (1, 2, 19)) for rules, _ in rows]
    for state, (_, banned) in zip(states, rows, strict=True):
        state.banned = banned
    for _ in range(3):
        tokens, told = sample(logits, states)
        for token, logprob, (rules, banned) in zip(tokens, told, rows, strict=True):
            assert 0 <= token < 20
            assert token not in banned or len(banned) == 20
            assert (logprob is None) == (rules.logprobs is None)


@pytest.mark.parametrize("penalty", [5e-324, 1e-308, 1e-39])
@pytest.mark.parametrize("top_p", [0.5, 1.0])
def test_a_penalty_beyond_all_measure_still_draws_what_it_favours(penalty: float, top_p: float) -> None:
    state = SamplingState.of(Sampling(repetition_penalty=penalty, top_p=top_p, seed=1), (1,))
    state.banned = (4,)
    assert sample(torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]]), [state])[0] == [1]


@pytest.mark.parametrize("vocabulary", [40, 4099, 64 * 32, 4 * 64 * 32, 49152])
@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_the_search_for_the_likeliest_finds_what_sorting_finds(vocabulary: int, spread: float) -> None:
    torch.manual_seed(3)
    logits = (torch.randn(3, vocabulary) * spread).bfloat16().float()  # some are alike
    logits[1, :] = float("-inf")
    logits[1, vocabulary // 2] = 0.0
    assert torch.equal(fast_argmax(logits), logits.argmax(-1))
    for count in (1, min(vocabulary, FEW_CANDIDATES), min(vocabulary, CANDIDATES)):
        values, tokens = fast_topk(logits, count)
        assert torch.equal(values, logits.sort(-1, descending=True).values[:, :count])
        assert torch.equal(values, logits.gather(1, tokens))
        assert all(len(set(row)) == count for row in tokens.tolist())


def test_a_seed_means_the_same_whatever_others_ask_for() -> None:
    """The others decide how many candidates are looked at."""
    torch.manual_seed(4)
    logits = torch.randn(2, 8192) * 3
    wide = Sampling(top_p=0.999, temperature=2.0)
    for seed in range(100):
        mine = Sampling(top_k=40, top_p=0.9, seed=seed)
        alone, _ = sample(logits[:1], [SamplingState.of(mine, ())])
        together, _ = sample(logits, [SamplingState.of(mine, ()), SamplingState.of(wide, ())])
        assert together[0] == alone[0]
