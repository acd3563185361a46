"""Answers equal transformers' own ``generate`` in every history: joins, cancels, pieces, reuse, neighbours of all kinds.

Hypothesis writes the histories. The prompts come from a small pool, so that each reference is computed once.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast
from unittest.mock import patch

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from llmlaunch.worker.engine import batching, scheduled_request
from llmlaunch.worker.engine.prefill_budget import PrefillBudget
from llmlaunch.worker.engine.sequential import SequentialGeneration
from tests.unit.worker import tiny
from tests.unit.worker.engine.test_sequential import unfit

NEW = 12
"""Tokens of the longest answer."""
POOL = 14
SURE = 1e-3
"""Between the likeliest token and the next: less is left to rounding, and says nothing about the cache."""
KINDS = sorted(tiny.SETTINGS)


@dataclass(frozen=True)
class Known:
    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@cache
def pool(kind: str) -> tuple[Known, ...]:
    """Prompts of 1 to 60 tokens, many of which begin alike or go on where another's answer ended."""
    chance = random.Random(kind)
    model = tiny.model(kind)
    shared = [chance.randrange(3, tiny.VOCABULARY) for _ in range(40)]
    found: list[Known] = []
    while len(found) < POOL:
        own = [chance.randrange(3, tiny.VOCABULARY) for _ in range(chance.randint(1, 20))]
        if found and chance.random() < 0.25:
            earlier = chance.choice(found)
            prompt = [*earlier.prompt, *earlier.answer, *own][:60]
        else:
            prompt = shared[: chance.choice((0, 0, 8, 25, 40))] + own
        answer, margin = reference(model, prompt)
        if margin > SURE:
            found.append(Known(tuple(prompt), answer))
    return tuple(found)


def reference(model: Any, prompt: Sequence[int], **generate: Any) -> tuple[tuple[int, ...], float]:
    """What greedy ``generate`` answers, and by how much its least certain token was ahead."""
    model.set_attn_implementation("eager")
    ids = torch.tensor([list(prompt)])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, eos_token_id=[-1], do_sample=False,
        pad_token_id=2, return_dict_in_generate=True, output_logits=True, **generate,
    )  # fmt: skip
    two = torch.cat(out.logits).topk(2).values
    return tuple(out.sequences[0, -NEW:].tolist()), float((two[:, 0] - two[:, 1]).min())


class Paced:
    """In place of the budget that learns from a clock: the history says how much of prompts a step takes."""

    def __init__(self, budgets: Sequence[int]) -> None:
        self._budgets = budgets
        self._at = 0

    def tokens(self, _: int) -> int:
        self._at += 1
        return self._budgets[self._at % len(self._budgets)]

    def burst(self, _: int, prompts: Sequence[scheduled_request.PendingPrompt]) -> int:
        return sum(prompt.tokens for prompt in prompts) if self._at % 3 == 0 else 0

    def observe(self, *_: object) -> None: ...


WHICH = st.integers(0, POOL - 1)
LENGTHS = st.integers(1, NEW)
ACTIONS = st.one_of(
    st.tuples(st.just("join"), WHICH, LENGTHS),
    st.tuples(st.just("join"), WHICH, LENGTHS),
    st.tuples(st.just("crowd"), WHICH),
    st.tuples(st.just("crowd"), WHICH),
    st.tuples(st.just("twins"), WHICH, LENGTHS),
    st.tuples(st.just("reader"), WHICH, st.integers(0, 3)),
    st.tuples(st.just("ends"), WHICH, LENGTHS, st.integers(0, NEW - 1)),
    st.tuples(st.just("dice"), WHICH, LENGTHS, st.sampled_from((0.7, 1.3))),
    st.tuples(st.just("seeded"), WHICH, LENGTHS),
    st.tuples(st.just("bent"), WHICH, LENGTHS, st.integers(3, tiny.VOCABULARY - 1)),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("fault")),
    st.tuples(st.just("step"), st.integers(1, 8)),
)
HISTORIES = st.fixed_dictionaries(
    {
        "rows": st.sampled_from((1, 2, 3, 5)),
        "tokens": st.sampled_from((32, 32, 60, 100, 1000)),
        "budgets": st.lists(st.sampled_from((1, 3, 16, 17, 500)), min_size=1, max_size=4),
        "strict": st.booleans(),
        "expected": st.sampled_from((0, 1, 5)),
        "growth": st.sampled_from((1, 3)),
        "reuse": st.sampled_from((True, True, True, False)),
        "actions": st.lists(ACTIONS, min_size=6, max_size=22),
    }
)


class Play:
    """One history on one engine; knows what every request must have said."""

    def __init__(self, kind: str, history: dict[str, Any], **engine: Any) -> None:
        model = tiny.model(kind)
        columns = 60 + NEW
        rows = history["rows"]
        tokens = min(rows * columns, history["tokens"])
        self.known = [known for known in pool(kind) if len(known.prompt) + NEW <= tokens]
        strategy = tiny.batching(
            model,
            rows=rows,
            columns=columns,
            tokens=tokens,
            reuse=history["reuse"],
            strict_seeds=history["strict"],
            **engine,
        )
        strategy._prefill = cast("PrefillBudget", Paced(history["budgets"]))
        self.run = tiny.Run(strategy)
        self.expected: dict[str, tuple[int, ...]] = {}
        self.lost: set[str] = set()
        with (
            patch.object(batching, "EXPECTED_TOKENS", history["expected"]),
            patch.object(scheduled_request, "GROWTH", history["growth"]),
        ):
            for action in history["actions"]:
                self.act(*action)
            self.run.finish()

    def act(self, kind: str, *values: Any) -> None:
        if kind == "step":
            for _ in range(values[0]):
                if self.run.strategy.busy:
                    self.run.step()
        elif kind == "cancel":
            here = sorted(self.run.strategy.scheduler.requests())
            if here:
                self.cancel(here[values[0] % len(here)])
        elif kind == "crowd":
            for next_one in range(3):
                self.join("open", values[0] + next_one)
        elif kind == "fault":
            for name in list(self.run.strategy.scheduler.requests()):
                self.cancel(name)
            self.run.strategy.recover()
        else:
            self.join(kind, *values)

    def cancel(self, name: str) -> None:
        self.run.cancel(name)
        self.lost.add(name)

    def join(self, kind: str, which: int, new: int = NEW, extra: Any = None) -> None:
        known = self.known[which % len(self.known)]
        name = f"r{len(self.run.tokens)}"
        asked = tiny.request(name, known.prompt, new)
        expected = known.answer[:new]
        if kind == "open":  # nobody bounded it: it may be sent back to make room
            asked = replace(asked, stopping=replace(asked.stopping, open_ended=True))
        elif kind == "seeded":  # greedy all the same
            asked = replace(asked, sampling=replace(asked.sampling, seed=which))
        elif kind == "reader":
            asked = replace(asked, prompt_logprobs=1)
        elif kind == "ends":
            token = known.answer[extra]
            asked = replace(asked, stopping=replace(asked.stopping, stop_token_ids=frozenset({token})))
            # The stop token itself is not part of the answer.
            expected = expected[: expected.index(token)] if token in expected else expected
        elif kind in ("dice", "bent"):
            rules = {"temperature": extra} if kind == "dice" else {"logit_bias": ((extra, 100.0),)}
            asked = tiny.request(name, known.prompt, new, **rules)
            expected = (extra,) * new if kind == "bent" else ()
        self.run.add(asked)
        if kind != "dice":
            self.expected[name] = expected
        if kind == "twins":
            twin = tiny.request(f"r{len(self.run.tokens)}", known.prompt, NEW, after=name)
            self.run.add(twin)
            self.expected[twin.request_id] = known.answer

    def check(self) -> None:
        for name, expected in self.expected.items():
            said = tuple(self.run.tokens[name])
            assert said == (expected[: len(said)] if name in self.lost else expected), name
        strategy = self.run.strategy
        assert set(self.run.last) == set(self.run.tokens)
        assert not strategy._answers
        assert not strategy._states
        assert not strategy._prompt_logprobs
        assert strategy.load().running == strategy.load().waiting == strategy.load().kv_used == 0


QUICK = settings(
    max_examples=10, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_any_history_answers_as_generate_does(kind: str) -> None:
    pool(kind)

    @QUICK
    @given(history=HISTORIES)
    def check(history: dict[str, Any]) -> None:
        Play(kind, history).check()

    check()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", KINDS)
def test_hundreds_of_histories_answer_as_generate_does(kind: str) -> None:
    pool(kind)

    @settings(QUICK, max_examples=150)
    @given(history=HISTORIES)
    def check(history: dict[str, Any]) -> None:
        Play(kind, history).check()

    check()


@cache
def unfit_pool(kind: str) -> tuple[Any, tuple[Known, ...]]:
    model = unfit(kind)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    chance = random.Random(kind)
    found: list[Known] = []
    while len(found) < 6:
        prompt = [chance.randrange(3, tiny.VOCABULARY) for _ in range(chance.randint(1, 30))]
        answer, margin = reference(model, prompt)
        if margin > SURE:
            found.append(Known(tuple(prompt), answer))
    return model, tuple(found)


@pytest.mark.parametrize("kind", ["Gemma2", "Mamba", "T5"])
@settings(QUICK, max_examples=5)
@given(
    actions=st.lists(
        st.one_of(
            st.tuples(st.just("join"), st.integers(0, 5), LENGTHS),
            st.tuples(st.just("cancel"), st.integers(0, 9), st.none()),
            st.tuples(st.just("step"), st.integers(1, 9), st.none()),
        ),
        min_size=3,
        max_size=12,
    )
)
def test_any_history_of_the_slower_path_answers_as_generate_does(
    kind: str, actions: list[tuple[str, int, Any]]
) -> None:
    model, known = unfit_pool(kind)
    run = tiny.Run(SequentialGeneration(model))
    expected: dict[str, tuple[int, ...]] = {}
    for action, value, new in actions:
        if action == "join":
            name = f"r{len(expected)}"
            run.add(tiny.request(name, known[value].prompt, new))
            expected[name] = known[value].answer[:new]
        elif action == "cancel":
            here = [name for name in expected if name not in run.last]
            if here:
                run.cancel(here[value % len(here)])
        else:
            for _ in range(value):
                if run.strategy.busy:
                    run.step()
    run.finish()
    assert set(run.last) == set(expected)
    for name, answer in expected.items():
        said = tuple(run.tokens[name])
        assert said == (answer if run.last[name].finish != "cancelled" else answer[: len(said)])
