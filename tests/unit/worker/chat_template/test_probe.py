"""What form templates with the checks of well-known models are found to take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from llmlaunch.worker.chat_template.form import Form, SystemPlace, ToolsPlace
from llmlaunch.worker.chat_template.probe import find_form
from tests.unit.worker.chat_template.samples import TEMPLATES, tokenizer

STRICT = {"joined": True, "user_first": True}
IN_WORDS = {"calls_as_text": True}
FIRST, IN_USER = {"system": SystemPlace.FIRST}, {"system": SystemPlace.IN_USER}

FORMS: dict[str, dict[str, Any]] = {
    "content_or_calls": {
        "user_last": True,
        "no_empty_content": True,
        "answered": True,
        "strays_as_text": True,
    },
    "deepseek_v3": {"argument_strings": True},
    "gemma_2": IN_USER | STRICT | IN_WORDS,
    "gemma_3": FIRST | STRICT | IN_WORDS,
    "gemma_4": {"developer": True, "strays_as_text": True},
    "gpt_oss": FIRST | {"developer": True, "single_calls": True, "strays_as_text": True},
    "granite_3": FIRST,
    "ids_of_nine": {"short_ids": True},
    "kimi_k2": {"named_ids": True},
    "lists_only": {"parts": True} | IN_WORDS,
    "llama_3_1": {"single_calls": True},
    "mistral_tekken": FIRST | STRICT | {"answered": True},
    "mistral_v0_1": IN_USER | STRICT | IN_WORDS,
    "mistral_v0_3": FIRST | STRICT | {"system_with_question": True, "short_ids": True, "answered": True},
    "no_system_alternating": IN_USER | STRICT | IN_WORDS,
    "phi_3": IN_WORDS,
    "phi_4_mini": IN_WORDS,
    "qwen3_5": FIRST | {"user_needed": True},
    "qwen3_coder": {},
    "qwen_2_5": {},
    "system_at_the_beginning": FIRST | IN_WORDS,
}
NOT_SHOWN = {"tools": ToolsPlace.AS_TEXT} | IN_WORDS
WITH_TOOLS: dict[str, dict[str, Any]] = {
    "gemma_2": NOT_SHOWN,
    "gemma_3": NOT_SHOWN,
    "gpt_oss": {"described": True},
    "lists_only": NOT_SHOWN,
    "llama_3_1": {"user_needed": True},  # it puts tools into the first question
    "mistral_v0_1": NOT_SHOWN,
    "no_system_alternating": NOT_SHOWN,
    "phi_3": NOT_SHOWN,
    "phi_4_mini": {"tools": ToolsPlace.IN_SYSTEM},
    "system_at_the_beginning": NOT_SHOWN,
}
"""What is more than without tools."""


def test_every_template_is_here() -> None:
    assert set(FORMS) == set(TEMPLATES)


@pytest.mark.parametrize("name", FORMS)
def test_the_form_without_tools(name: str) -> None:
    assert tokenizer(name)._chat_template.form(with_tools=False) == Form(**FORMS[name])


@pytest.mark.parametrize("name", FORMS)
def test_the_form_with_tools(name: str) -> None:
    expected = Form(**FORMS[name] | WITH_TOOLS.get(name, {}))
    assert tokenizer(name)._chat_template.form(with_tools=True) == expected


def test_a_template_that_takes_nothing_gets_what_was_sent() -> None:
    def refuse(messages: Sequence[Any], tools: Sequence[Any]) -> str:
        raise ValueError("no")

    assert find_form(refuse, "", with_tools=False) == Form()
