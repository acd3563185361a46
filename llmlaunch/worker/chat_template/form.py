"""The form in which one chat template takes a conversation, and the steps that bring one into it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from llmlaunch.worker.chat_template import calls, turns

Message = dict[str, Any]


class SystemPlace(Enum):
    """Where a template takes system messages."""

    ANYWHERE = "anywhere"
    FIRST = "first"
    """Only one, at the beginning."""
    IN_USER = "in user"
    """Nowhere: what they say goes before the first user message."""


class ToolsPlace(Enum):
    """Where a template looks for the tools."""

    ARGUMENT = "argument"
    IN_SYSTEM = "in system"
    """In a field of the system message, as in Phi-4-mini's."""
    AS_TEXT = "as text"
    """Nowhere: they are described in the system message, and calls and results are text."""


@dataclass(frozen=True, slots=True)
class Form:
    """What a template insists on. The default is the form in which clients send conversations."""

    system: SystemPlace = SystemPlace.ANYWHERE
    system_with_question: bool = False
    """Whether the system message is left out unless the last message is the user's, as in Mistral's older ones."""
    developer: bool = False
    """Whether it knows the developer role; otherwise that becomes "system"."""
    parts: bool = False
    """Whether content is a list of parts, never a string."""
    joined: bool = False
    """Whether user and assistant must alternate."""
    user_first: bool = False
    """Whether the first message after the system message must be the user's."""
    user_needed: bool = False
    """Whether there must be a message of the user."""
    user_last: bool = False
    """Whether the last message must not be the assistant's, if an answer is to follow."""
    tools: ToolsPlace = ToolsPlace.ARGUMENT
    described: bool = False
    """Whether each function must have a description."""
    calls_as_text: bool = False
    """Whether calls and their results must become text of the assistant and the user."""
    strays_as_text: bool = False
    """The same for results that do not follow their call, as in a history of which a client keeps only the end."""
    argument_strings: bool = False
    """Whether arguments of calls are JSON strings instead of objects."""
    short_ids: bool = False
    """Whether ids of calls must be nine letters and digits."""
    named_ids: bool = False
    """Whether ids of calls must contain the function's name, because the template shows nothing else of it."""
    no_empty_content: bool = False
    """Whether a message with calls and no text must have no content at all."""
    single_calls: bool = False
    """Whether a message may have only one call."""
    answered: bool = False
    """Whether an assistant's message must stand between a tool's result and the next user message."""


def bring(
    messages: Sequence[Message], tools: Sequence[dict[str, Any]], form: Form, *, answer_follows: bool = True
) -> list[Message]:
    """Return ``messages`` in ``form``; ``answer_follows``: whether the template is asked to open an answer."""
    found = calls.completed(messages)
    if form.calls_as_text:
        found = calls.as_text(found)
    if not form.developer:
        found = [m | {"role": "system"} if m["role"] == "developer" else m for m in found]
    if tools and form.tools is ToolsPlace.AS_TEXT:
        found = calls.explained(found, tools)
    place = form.system
    if form.system_with_question and found[-1]["role"] != "user":
        place = SystemPlace.IN_USER
    if place is SystemPlace.FIRST:
        found = turns.system_first(found)
    elif place is SystemPlace.IN_USER:
        found = turns.system_in_user(found)
    if tools and form.tools is ToolsPlace.IN_SYSTEM:
        found = calls.in_system(found, tools)
    if form.strays_as_text:
        found = calls.strays_as_text(found)
    if form.user_needed:
        found = turns.with_user(found)
    if form.joined:
        found = turns.joined(found)
    if form.user_first:
        found = turns.user_first(found)
    if form.answered:
        found = turns.answered(found)
    if form.user_last and answer_follows:
        found = turns.user_last(found)
    return [_content(message, form) for message in _calls(found, form)]


def shown_tools(tools: Sequence[dict[str, Any]], form: Form) -> list[dict[str, Any]]:
    """Return what a template that takes ``form`` gets as its argument ``tools``."""
    if form.tools is not ToolsPlace.ARGUMENT:
        return []
    return calls.completed_tools(tools, described=form.described)


def stricter(form: Form) -> Iterator[Form]:
    """Forms to try when a conversation in ``form`` is refused: the second would be taken by almost any template."""
    once = replace(
        form,
        system=form.system if form.system is SystemPlace.IN_USER else SystemPlace.FIRST,
        joined=True,
        user_first=True,
        user_needed=True,
        calls_as_text=True,
        single_calls=True,
        described=True,
    )
    yield once
    yield replace(once, system=SystemPlace.IN_USER, tools=ToolsPlace.AS_TEXT, user_last=True)


def _calls(messages: list[Message], form: Form) -> list[Message]:
    if form.single_calls:
        messages = calls.single(messages)
    if form.short_ids:
        messages = calls.with_short_ids(messages)
    if form.named_ids:
        messages = calls.with_named_ids(messages)
    if form.argument_strings:
        messages = calls.with_argument_strings(messages)
    return messages


def _content(message: Message, form: Form) -> Message:
    content = message.get("content")
    if form.no_empty_content and not content and message.get("tool_calls"):
        return {name: value for name, value in message.items() if name != "content"}
    if form.parts and isinstance(content, str):
        return message | {"content": [{"type": "text", "text": content}]}
    return message
