"""Finds out what form a chat template takes, by rendering small conversations. Pure: rendering comes as an argument.

Some templates refuse what they do not take, others leave it out without a word. So each word of a trial must be found
in what the template makes of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from llmlaunch.worker.chat_template.form import (
    Form,
    Message,
    SystemPlace,
    ToolsPlace,
    bring,
    shown_tools,
)

Render = Callable[[Sequence[Message], Sequence[dict[str, Any]]], str]
"""Messages and tools to text; raises anything."""

_WORDS = re.compile(r"zq[a-z]+?qz")
"""The words of trials: no template contains any."""

_BADLY_WRITTEN = ("'zqpartqz'", '\\"zqpartqz\\"')
"""Arguments as Python writes them, or as a string in a string: not what the model has learnt."""

_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "zqtoolqz",
        "description": "zqhelpqz",
        "parameters": {
            "type": "object",
            "properties": {"zqkeyqz": {"type": "string"}},
            "required": ["zqkeyqz"],
        },
    },
}


def _said(role: str, word: str) -> Message:
    return {"role": role, "content": f"zq{word}qz"}


def _call(word: str) -> dict[str, Any]:
    function = {"name": "zqcalledqz", "arguments": {"zqpartqz": f"zq{word}qz"}}
    return {"id": f"call_{word}", "type": "function", "function": function}


def _result(word: str) -> Message:
    return _said("tool", f"result{word}") | {"tool_call_id": f"call_{word}"}


def _calling(*words: str) -> Message:
    return {"role": "assistant", "content": "", "tool_calls": [_call(word) for word in words]}


_USER, _ASSISTANT, _SYSTEM = _said("user", "ask"), _said("assistant", "reply"), _said("system", "rule")
_MORE = _said("user", "more")

_ONE_CALL = [_USER, _calling("one"), _result("one")]
_TWO_CALLS = [_USER, _calling("one", "two"), _result("one"), _result("two")]


def find_form(render: Render, source: str, *, with_tools: bool) -> Form:
    """Return the form of the template of text ``source``; ``with_tools``: for requests that offer tools.

    Each trial tries the form so far first, then its stricter variants; if none passes, it changes nothing.
    """
    form = _Trial(render, []).first([_USER], Form(), [{"parts": True}])
    form = _with_tools(render, form) if with_tools else form
    trial = _Trial(render, [_TOOL] if with_tools and form.tools is not ToolsPlace.AS_TEXT else [])
    return _with_calls(trial, _with_turns(trial, _with_systems(trial, form, source)))


def _with_tools(render: Render, form: Form) -> Form:
    trial = _Trial(render, [_TOOL])
    for place in (ToolsPlace.ARGUMENT, ToolsPlace.IN_SYSTEM):
        made = replace(form, tools=place)
        if trial.passes([_USER], made, "zqtoolqz"):
            bare = {"name": "zqtoolqz", "parameters": _TOOL["function"]["parameters"]}
            undescribed = _Trial(render, [_TOOL | {"function": bare}])
            return undescribed.first([_USER], made, [{"described": True}])
    # The model is told to write calls as text, so those of the history are.
    return replace(form, tools=ToolsPlace.AS_TEXT, calls_as_text=True)


def _with_systems(trial: _Trial, form: Form, source: str) -> Form:
    first, in_user = {"system": SystemPlace.FIRST}, {"system": SystemPlace.IN_USER}
    form = trial.first([_SYSTEM, _USER], form, [in_user])
    form = trial.first(_several("system"), form, [first])
    if "developer" not in source:
        return form
    return _known(trial, form, [_several("developer"), [_said("developer", "rule"), _USER]])


def _several(role: str) -> list[Message]:
    return [_SYSTEM, _said(role, "extra"), _USER, _ASSISTANT, _said(role, "late"), _MORE]


def _known(trial: _Trial, form: Form, conversations: list[list[Message]]) -> Form:
    knows = replace(form, developer=True)
    return knows if all(trial.passes(conversation, knows) for conversation in conversations) else form


def _with_turns(trial: _Trial, form: Form) -> Form:
    again = [_USER, _said("user", "again"), _ASSISTANT, _said("assistant", "also"), _MORE]
    form = trial.first(again, form, [{"joined": True}])
    form = trial.first([_ASSISTANT, _USER], form, [{"user_first": True}])
    form = trial.first([_SYSTEM], form, [{"user_needed": True}])
    return trial.first([_USER, _ASSISTANT], form, [{"user_last": True}])


def _with_calls(trial: _Trial, form: Form) -> Form:
    text = {"calls_as_text": True}
    names = ("argument_strings", "no_empty_content", "short_ids")
    ways = [dict(zip(names, chosen, strict=True)) for chosen in product((False, True), repeat=len(names))]
    form = trial.first(_ONE_CALL, form, [*ways[1:], text])
    form = trial.first(_TWO_CALLS, form, [{"single_calls": True}, text])
    form = trial.first(_ONE_CALL[:2], form, [{"named_ids": True}])
    form = trial.first([_USER, _result("one"), _ASSISTANT, _MORE], form, [{"strays_as_text": True}])
    form = trial.first([_SYSTEM, *_ONE_CALL], form, [{"system_with_question": True}])
    return trial.first([*_ONE_CALL, _MORE], form, [{"answered": True}])


class _Trial:
    """Tries conversations with one template."""

    def __init__(self, render: Render, tools: Sequence[dict[str, Any]]) -> None:
        self._render = render
        self._tools = tools

    def first(self, messages: list[Message], form: Form, changes: Sequence[dict[str, Any]]) -> Form:
        """``form``, or the first of ``changes`` to it that makes the template take ``messages``."""
        if self.passes(messages, form):
            return form
        changed = (replace(form, **change) for change in changes)
        return next((made for made in changed if self.passes(messages, made)), form)

    def passes(self, messages: list[Message], form: Form, *more: str) -> bool:
        """Whether the template shows all of ``messages``, brought into ``form``, and the words ``more``."""
        try:
            text = self._render(bring(messages, self._tools, form), shown_tools(self._tools, form))
        except Exception:  # a template is a program, and can fail in any way
            return False
        expected = {*_WORDS.findall(repr(messages)), *more}
        return expected <= set(_WORDS.findall(text)) and not any(bad in text for bad in _BADLY_WRITTEN)
