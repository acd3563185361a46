"""Answers from the shared cache equal transformers' own, token for token, whoever else is in the batch."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from llmlaunch.worker.engine import batching_support
from llmlaunch.worker.types import GenerationOutput
from tests.unit.worker import tiny

KINDS = sorted(tiny.SETTINGS)


def prompts(chance: random.Random, count: int, longest: int = 40) -> list[list[int]]:
    """Some of them begin alike, as conversations do."""
    shared = [chance.randrange(3, tiny.VOCABULARY) for _ in range(20)]
    found = []
    for _ in range(count):
        own = [chance.randrange(3, tiny.VOCABULARY) for _ in range(chance.randint(1, longest))]
        found.append(shared[: chance.choice((0, 12, 20))] + own)
    return found


def check_staggered_joins(seed: str, model: Any, change: Callable[[Any], None] = lambda model: None) -> None:
    """Requests that join by and by are answered as ``generate`` answers them, also after ``change`` of the model."""
    chance = random.Random(seed)
    asked = {f"r{at}": prompt for at, prompt in enumerate(prompts(chance, 7))}
    expected = {name: tiny.reference(model, prompt, 14) for name, prompt in asked.items()}
    change(model)
    run = tiny.Run(tiny.batching(model, rows=3, prompt_tokens=8))
    for name, prompt in asked.items():
        run.add(tiny.request(name, prompt, 14))
        for _ in range(chance.randint(0, 6)):
            run.step()
    run.finish()
    assert run.tokens == expected


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_answers_equal_generate_with_staggered_joins(kind: str) -> None:
    check_staggered_joins(kind, tiny.model(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_here_is_fit_for_slots(kind: str) -> None:
    model = tiny.model(kind)
    assert batching_support.why_unsupported(model) == ""
    assert batching_support.trial(model) == ""


@pytest.mark.parametrize("seed", range(12))
def test_any_order_of_joins_and_cancels_leaves_answers_as_they_are(seed: int) -> None:
    chance = random.Random(seed)
    model = tiny.model(chance.choice(("Llama", "Qwen2", "GPT2", "Mistral")))
    asked = {f"r{at}": prompt for at, prompt in enumerate(prompts(chance, 10))}
    lengths = {name: chance.randint(1, 16) for name in asked}
    expected = {name: tiny.reference(model, prompt, lengths[name]) for name, prompt in asked.items()}
    run = tiny.Run(
        tiny.batching(model, rows=chance.randint(1, 4), columns=80, prompt_tokens=chance.choice((1, 5, 64)))
    )
    waiting = list(asked)
    while waiting or run.strategy.busy:
        if waiting and chance.random() < 0.4:
            name = waiting.pop(0)
            run.add(tiny.request(name, asked[name], lengths[name]))
        if chance.random() < 0.05 and (here := sorted(run.strategy.scheduler.requests())):
            run.cancel(chance.choice(here))
        run.step()
    for name, tokens in run.tokens.items():
        assert tokens == expected[name][: len(tokens)]
        assert run.last[name].finish == "cancelled" or len(tokens) == lengths[name]


def test_a_shared_beginning_is_computed_once_and_counted() -> None:
    model = tiny.model("Llama")
    shared = [5 + at % 60 for at in range(40)]
    expected = tiny.reference(model, [*shared, 9], 6)
    run = tiny.Run(tiny.batching(model, rows=4))
    run.add(tiny.request("first", [*shared, 8], 6))
    run.finish()
    run.add(tiny.request("second", [*shared, 9], 6))
    run.finish()
    assert run.tokens["second"] == expected
    assert run.last["first"].cached_tokens == 0
    assert run.last["second"].cached_tokens == 40


def test_answers_to_one_prompt_share_its_computation() -> None:
    model = tiny.model("Llama")
    prompt = [5 + at % 60 for at in range(30)]
    expected = tiny.reference(model, prompt, 6)
    run = tiny.Run(tiny.batching(model, rows=4, prompt_tokens=8))
    run.add(tiny.request("a", prompt, 6))
    run.add(tiny.request("b", prompt, 6, after="a"))
    run.add(tiny.request("c", prompt, 6, after="a"))
    run.finish()
    assert run.tokens == dict.fromkeys("abc", expected)
    assert [run.last[name].cached_tokens for name in "abc"] == [0, 29, 29]


def test_seeded_answers_are_the_same_alone_and_in_a_crowd() -> None:
    model = tiny.model("Llama")
    chance = random.Random(3)
    crowd = prompts(chance, 6)
    rules: dict[str, Any] = {"temperature": 1.0, "top_p": 0.9, "seed": 11}
    alone = tiny.Run(tiny.batching(model, rows=8))
    alone.add(tiny.request("x", crowd[0], 20, **rules))
    alone.finish()
    run = tiny.Run(tiny.batching(model, rows=8, prompt_tokens=16))
    for at, prompt in enumerate(crowd):
        run.add(tiny.request(f"r{at}", prompt, 20, temperature=1.0))
        run.step()
    run.add(tiny.request("x", crowd[0], 20, **rules))
    run.finish()
    assert run.tokens["x"] == alone.tokens["x"]


def test_logprobs_of_prompts_are_the_models_also_in_pieces_and_in_a_crowd() -> None:
    model = tiny.fresh("Llama")
    crowd = prompts(random.Random(1), 4)
    run = tiny.Run(tiny.batching(model, rows=6, prompt_tokens=7))
    for at, prompt in enumerate(crowd):
        run.add(tiny.request(f"r{at}", prompt, 30))
        run.step()
    asked = crowd[0] + crowd[1]
    for name, new in (("reads and answers", 3), ("only reads", 0)):
        run.add(replace(tiny.request(name, asked, new), prompt_logprobs=2))
    first: dict[str, GenerationOutput] = {}
    while run.strategy.busy:
        for name, output in run.step():
            first.setdefault(name, output)
    with torch.inference_mode():
        model.set_attn_implementation("eager")
        expected = model(torch.tensor([asked])).logits[0].log_softmax(-1)
    for name in ("reads and answers", "only reads"):
        told = first[name].prompt_logprobs
        assert [entry.token for entry in told] == asked[1:]
        for at, entry in enumerate(told):
            assert entry.logprob == pytest.approx(float(expected[at, asked[at + 1]]), abs=1e-3)
            assert [token for token, _ in entry.top] == expected[at].topk(2).indices.tolist()
    assert first["only reads"].finish == "length"
    assert first["only reads"].completion_tokens == 0
    assert run.tokens["reads and answers"] == tiny.reference(model, asked, 3)
    assert run.tokens["r0"] == tiny.reference(model, crowd[0], 30)
