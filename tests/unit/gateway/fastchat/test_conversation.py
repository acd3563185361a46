"""Prompts against those of the real package: ``prompts.json`` was written by fschat 0.2.36 and FastChat's main branch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmlaunch.gateway.fastchat.conversation import parse, prompt

ROWS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "prompts.json").read_text())
GOOD = {"roles": ["U", "A"], "sep_style": 1}


@pytest.mark.parametrize("row", ROWS, ids=[row["of"] for row in ROWS])
def test_prompts_are_fastchats_own(row: dict[str, Any]) -> None:
    turns = [(i % 2 == 0, text) for i, text in enumerate(row["messages"])]
    assert prompt(parse(row["conv"]), row["system"], turns) == row["prompt"]


def test_a_worker_says_what_ends_its_answers() -> None:
    assert parse(GOOD | {"stop_str": "###", "stop_token_ids": [2, 7]}).stops == ("###",)
    found = parse(GOOD | {"stop_str": ["a", "", "b"], "stop_token_ids": [2, 7]})
    assert (found.stops, found.stop_token_ids) == (("a", "b"), (2, 7))
    assert parse(GOOD | {"stop_str": None, "stop_token_ids": None}).stops == ()


def test_a_template_is_text_and_no_format_that_could_ask_for_a_terabyte() -> None:
    template = parse(GOOD | {"system_template": "{system_message:>99999999999}", "system_message": "x"})
    assert len(prompt(template, None, [(True, "hi")])) < 100


@pytest.mark.parametrize(
    ("conv", "reason"),
    [
        (None, "no conversation template"),
        ({"sep_style": 1}, "not name two roles"),
        (GOOD | {"roles": ["U"]}, "not name two roles"),
        (GOOD | {"sep_style": 20}, "style 20"),
        (GOOD | {"sep_style": 0}, "style 0"),
        (GOOD | {"sep_style": "CHATML"}, "style 'CHATML'"),
        (GOOD | {"sep": 5}, "where a text belongs"),
        (GOOD | {"messages": ["hi"]}, "not pairs"),
    ],
)
def test_a_template_that_can_not_be_used_says_why(conv: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse(conv)
