"""How the next token is drawn when a request does not say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from llmlaunch.worker.api.completions.protocol import CompletionBody
from llmlaunch.worker.api.generation.sampling import sampling_parameters
from llmlaunch.worker.loading.generation_config import default_sampling


def temperature(generation_config: dict[str, Any], **request: Any) -> float:
    model = SimpleNamespace(generation_config=SimpleNamespace(**generation_config))
    loaded: Any = SimpleNamespace(defaults=default_sampling(model, None), tokenizer=None)
    return sampling_parameters(
        CompletionBody(model="m", prompt="x", **request), loaded, logprobs=None
    ).temperature


def test_a_model_that_does_not_speak_of_sampling_is_greedy() -> None:
    assert temperature({}) == 0.0
    assert temperature({"do_sample": None, "temperature": None}) == 0.0


def test_the_authors_advice_counts() -> None:
    assert temperature({"do_sample": True, "temperature": 0.6}) == 0.6
    assert temperature({"do_sample": True}) == 1.0


@pytest.mark.parametrize(
    "asked", [{"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}, {"seed": 3}, {"n": 2}, {"best_of": 2}]
)
def test_a_request_that_asks_for_chance_gets_it(asked: dict[str, Any]) -> None:
    assert temperature({}, **asked) == 1.0


def test_the_request_has_the_last_word() -> None:
    assert temperature({"do_sample": True, "temperature": 0.6}, temperature=0) == 0.0
    assert temperature({}, temperature=0.3, seed=1) == 0.3
