"""What form templates with the checks of well-known models are found to take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from llmlaunch.worker.chat_template.form import Form, SystemPlace
from llmlaunch.worker.chat_template.probe import find_form
from tests.unit.worker.chat_template.samples import TEMPLATES, tokenizer

STRICT = {"joined": True, "user_first": True}
IN_WORDS = {"calls_as_text": True}
FIRST, IN_USER = {"system": SystemPlace.FIRST}, {"system": SystemPlace.IN_USER}

FORMS: dict[str, dict[str, Any]] = {
    "content_or_calls": {"user_last": True, "no_empty_content": True, "answered": True},
    "deepseek_v3": {"argument_strings": True},
    "gemma_2": IN_USER | STRICT | IN_WORDS,
    "gemma_3": FIRST | STRICT | IN_WORDS,
    "gpt_oss": FIRST | {"developer": True, "single_calls": True},
    "granite_3": FIRST,
    "ids_of_nine": {"short_ids": True},
    "kimi_k2": {},
    "lists_only": {"parts": True} | IN_WORDS,
    "llama_3_1": {"single_calls": True},
    "mistral_tekken": FIRST | STRICT | {"answered": True},
    "mistral_v0_1": IN_USER | STRICT | IN_WORDS,
    "mistral_v0_3": FIRST | STRICT | {"short_ids": True, "answered": True},
    "no_system_alternating": IN_USER | STRICT | IN_WORDS,
    "phi_3": IN_WORDS,
    "phi_4_mini": IN_WORDS,
    "qwen3_5": FIRST | {"user_needed": True},
    "qwen_2_5": {},
    "system_at_the_beginning": FIRST | IN_WORDS,
}
SHOW_NO_TOOLS = {
    "gemma_2", "gemma_3", "lists_only", "mistral_v0_1", "no_system_alternating", "phi_3", "phi_4_mini",
    "system_at_the_beginning",
}  # fmt: skip


def test_every_template_is_here() -> None:
    assert set(FORMS) == set(TEMPLATES)


@pytest.mark.parametrize("name", FORMS)
def test_the_form_without_tools(name: str) -> None:
    assert tokenizer(name)._chat_template.form(with_tools=False) == Form(**FORMS[name])


@pytest.mark.parametrize("name", FORMS)
def test_the_form_with_tools(name: str) -> None:
    # Llama puts tools into the first question, so that there must be one.
    more = {"user_needed": True} if name == "llama_3_1" else {}
    expected = Form(**FORMS[name] | more, tools_as_text=name in SHOW_NO_TOOLS)
    assert tokenizer(name)._chat_template.form(with_tools=True) == expected


def test_a_template_that_takes_nothing_gets_what_was_sent() -> None:
    def refuse(messages: Sequence[Any], tools: Sequence[Any]) -> str:
        raise ValueError("no")

    assert find_form(refuse, "", with_tools=False) == Form()
