"""Seeded answers in a crowd, bit for bit; and answers that had to make room for others."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from llmlaunch.worker.engine import batching, scheduled_request
from llmlaunch.worker.engine.batching import ContinuousBatching
from llmlaunch.worker.kv.cache import ATTENTION
from llmlaunch.worker.kv.types import Capacity
from llmlaunch.worker.types import GenerationOutput, GenerationRequest
from tests.unit.worker import tiny

RULES: dict[str, Any] = {"temperature": 1.0, "top_p": 0.9, "seed": 11, "logprobs": 2}


def _told(strategy: ContinuousBatching, asked: GenerationRequest, crowd: int) -> list[tuple[int, float]]:
    """Tokens of the answer with their logprobs, while ``crowd`` others come and go."""
    chance = random.Random(crowd)
    run = tiny.Run(strategy)
    for at in range(crowd):
        prompt = [chance.randrange(3, tiny.VOCABULARY) for _ in range(chance.randint(1, 70))]
        run.add(tiny.request(f"r{at}", prompt, chance.randint(3, 40), temperature=1.0))
        run.step()
    run.add(asked)
    told: list[tuple[int, float]] = []
    while asked.request_id not in run.last:
        for name, output in run.step():
            if name == asked.request_id:
                told += [(entry.token, entry.logprob) for entry in output.logprobs]
    run.finish()
    return told


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_strict_seeds_give_the_same_bits_alone_and_in_every_crowd(dtype: torch.dtype) -> None:
    model = tiny.fresh("Llama").to(dtype)
    prompt = [random.Random(1).randrange(3, tiny.VOCABULARY) for _ in range(40)]
    asked = tiny.request("x", prompt, 30, **RULES)
    told = [
        _told(tiny.batching(model, rows=8, prompt_tokens=16, strict_seeds=True), asked, crowd)
        for crowd in (0, 3, 12)
    ]
    assert told[0] == told[1] == told[2]
    assert len(told[0]) == 30


def test_without_it_bfloat16_rounds_otherwise_in_a_crowd() -> None:
    """What the strict mode is for: should this fail, it is not needed any more."""
    model = tiny.fresh("Llama").to(torch.bfloat16)
    prompt = [random.Random(1).randrange(3, tiny.VOCABULARY) for _ in range(40)]
    asked = tiny.request("x", prompt, 30, **RULES)
    told = [_told(tiny.batching(model, rows=8, prompt_tokens=16), asked, crowd) for crowd in (0, 12)]
    assert told[0] != told[1]


def test_the_requests_beside_a_strict_one_are_answered_as_ever() -> None:
    model = tiny.fresh("Qwen2")
    prompts = [[at + 5] * 12 + [at] for at in range(4)]
    expected = [tiny.reference(model, prompt, 10) for prompt in prompts]
    run = tiny.Run(tiny.batching(model, rows=6, prompt_tokens=8, strict_seeds=True))
    for at, prompt in enumerate(prompts):
        seed = 5 if at % 2 else None
        run.add(tiny.request(f"r{at}", prompt, 10, seed=seed))
        run.step()
    run.finish()
    assert [run.tokens[f"r{at}"] for at in range(4)] == expected
    assert not run.strategy._exclusive


def _open(asked: GenerationRequest) -> GenerationRequest:
    return replace(asked, stopping=replace(asked.stopping, open_ended=True))


@pytest.mark.parametrize("seed", range(4))
def test_answers_that_made_room_are_those_of_generate(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduled_request, "GROWTH", 5)
    monkeypatch.setattr(batching, "EXPECTED_TOKENS", 3)
    chance = random.Random(seed)
    model = tiny.model(("Llama", "Gemma3", "GPT2", "Qwen2")[seed])
    prompts = [[chance.randrange(3, tiny.VOCABULARY) for _ in range(chance.randint(2, 20))] for _ in range(6)]
    expected = {f"r{at}": tiny.reference(model, prompt, 40) for at, prompt in enumerate(prompts)}
    model.set_attn_implementation(ATTENTION)
    run = tiny.Run(ContinuousBatching(model, Capacity(rows=4, columns=64, tokens=100)))
    for at, prompt in enumerate(prompts):
        run.add(_open(tiny.request(f"r{at}", prompt, 40)))
    run.finish()
    assert run.tokens == expected
    assert run.strategy.load().preempted > 0


def test_prompts_that_are_read_are_read_once_even_where_room_is_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduled_request, "GROWTH", 5)
    monkeypatch.setattr(batching, "EXPECTED_TOKENS", 3)
    model = tiny.model("Llama")
    model.set_attn_implementation(ATTENTION)
    run = tiny.Run(ContinuousBatching(model, Capacity(rows=4, columns=64, tokens=100)))
    first: dict[str, GenerationOutput] = {}
    for at in range(5):
        asked = _open(tiny.request(f"r{at}", [at + 3] * 8, 40))
        run.add(replace(asked, prompt_logprobs=0) if at % 2 else asked)
    while run.strategy.busy:
        for name, output in run.step():
            first.setdefault(name, output)
            assert output is first[name] or not output.prompt_logprobs
    assert [len(first[f"r{at}"].prompt_logprobs) for at in range(5)] == [0, 7, 0, 7, 0]
    assert all(len(tokens) == 40 for tokens in run.tokens.values())
