"""Drawing tokens: each row by its own rules, checked against distributions worked out by hand."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlaunch.worker.sampler import CANDIDATES, Voice, sample
from llmlaunch.worker.values import Sampling


def draw(
    logits: list[float] | torch.Tensor, times: int = 1, prompt: tuple[int, ...] = (), **rules: float
) -> Counter[int]:
    """How often each token is drawn in ``times`` independent rows."""
    row = torch.as_tensor(logits, dtype=torch.float32)
    chance = random.Random(1)
    voices = [Voice.of(Sampling(**rules), prompt) for _ in range(times)]  # type: ignore[arg-type]
    for voice in voices:
        voice.chance = random.Random(chance.random())
    tokens, _ = sample(row.expand(times, -1), voices)
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
    voices = [
        Voice.of(Sampling(temperature=0.0), ()),
        Voice.of(Sampling(top_k=1), ()),
        Voice.of(Sampling(seed=5), ()),
        Voice.of(Sampling(logit_bias=((4, 100.0),), temperature=0.0), ()),
    ]
    tokens, _ = sample(rows, voices)
    assert tokens[0] == tokens[1] == 0
    assert tokens[3] == 4
    again, _ = sample(rows[2:3], [Voice.of(Sampling(seed=5), ())])
    assert again[0] == tokens[2]


def test_a_ban_holds() -> None:
    voice = Voice.of(Sampling(temperature=0.0), ())
    voice.banned = (0, 1)
    assert sample(torch.tensor([LOGITS]), [voice])[0] == [2]


def test_penalties_follow_their_definitions() -> None:
    logits = torch.tensor([[2.0, 1.9, -1.0]])
    voice = Voice.of(Sampling(temperature=0.0, presence_penalty=0.2), ())
    assert [sample(logits, [voice])[0][0] for _ in range(2)] == [0, 1]
    voice = Voice.of(Sampling(temperature=0.0, frequency_penalty=0.06), ())
    assert [sample(logits, [voice])[0][0] for _ in range(5)] == [0, 0, 1, 0, 1]
    voice = Voice.of(Sampling(temperature=0.0, repetition_penalty=1.2), prompt=(0,))
    assert sample(logits, [voice])[0][0] == 1
    negative = Voice.of(Sampling(temperature=0.0, repetition_penalty=2.0), prompt=(0, 1))
    assert sample(torch.tensor([[-1.0, -1.1, -1.5]]), [negative])[0][0] == 2


def test_logprobs_are_the_models_own() -> None:
    voice = Voice.of(Sampling(temperature=0.3, logprobs=2, logit_bias=((1, 50.0),)), ())
    tokens, (logprob,) = sample(torch.tensor([LOGITS]), [voice])
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
    (token,), _ = sample(torch.tensor([logits]), [Voice.of(rules, ())])
    assert 0 <= token < len(logits)
    if top_k:
        rounded = torch.tensor(logits).tolist()
        assert sum(value > rounded[token] for value in rounded) < top_k
    (again,), _ = sample(torch.tensor([logits]), [Voice.of(rules, ())])
    assert again == token
