"""Steps that change whose turn it is in a conversation: each takes messages and returns new ones. Pure.

Messages have text as content. Texts are joined by a blank line, in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

Message = dict[str, Any]

SYSTEM_ROLES = ("system", "developer")


def system_first(messages: Sequence[Message]) -> list[Message]:
    """One system message at the beginning instead of several anywhere."""
    systems, others = _apart(messages)
    if not systems:
        return others
    return [systems[0] | {"content": _text(systems)}, *others]


def system_in_user(messages: Sequence[Message]) -> list[Message]:
    """No system message: its text goes before the first message of the user, which is made if another one is first."""
    systems, others = _apart(messages)
    text = _text(systems)
    if not text:
        return others or [{"role": "user", "content": ""}]
    if others and others[0]["role"] == "user":
        return [others[0] | {"content": _text([{"content": text}, others[0]])}, *others[1:]]
    return [{"role": "user", "content": text}, *others]


def joined(messages: Sequence[Message]) -> list[Message]:
    """Neighbours that are both the user's, or both the assistant's, as one message."""
    found: list[Message] = []
    for role, group in groupby(messages, key=lambda message: message["role"]):
        same = list(group)
        found += [_together(same)] if role in ("user", "assistant") and len(same) > 1 else same
    return found


def _together(messages: list[Message]) -> Message:
    calls = [call for message in messages for call in message.get("tool_calls", ())]
    fields = {name: value for message in messages for name, value in message.items()}
    return fields | {"content": _text(messages)} | ({"tool_calls": calls} if calls else {})


def with_user(messages: Sequence[Message]) -> list[Message]:
    """With an empty message of the user behind the system messages, if there is none at all."""
    if any(message["role"] == "user" for message in messages):
        return list(messages)
    return _user_at(messages, _start(messages))


def user_first(messages: Sequence[Message]) -> list[Message]:
    """With an empty message of the user behind the system messages, if another one comes first."""
    start = _start(messages)
    if start < len(messages) and messages[start]["role"] == "user":
        return list(messages)
    return _user_at(messages, start)


def user_last(messages: Sequence[Message]) -> list[Message]:
    """With an empty message of the user behind an assistant's that is the last."""
    if not messages or messages[-1]["role"] != "assistant":
        return list(messages)
    return _user_at(messages, len(messages))


def answered(messages: Sequence[Message]) -> list[Message]:
    """With an empty message of the assistant wherever the user follows the result of a tool."""
    found: list[Message] = []
    for message in messages:
        if message["role"] == "user" and found and found[-1]["role"] == "tool":
            found.append({"role": "assistant", "content": ""})
        found.append(message)
    return found


def _apart(messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    systems = [message for message in messages if message["role"] in SYSTEM_ROLES]
    return systems, [message for message in messages if message["role"] not in SYSTEM_ROLES]


def _text(messages: Sequence[Message]) -> str:
    return "\n\n".join(message["content"] for message in messages if message.get("content"))


def _start(messages: Sequence[Message]) -> int:
    """The first message that is no system message."""
    at = 0
    while at < len(messages) and messages[at]["role"] in SYSTEM_ROLES:
        at += 1
    return at


def _user_at(messages: Sequence[Message], at: int) -> list[Message]:
    return [*messages[:at], {"role": "user", "content": ""}, *messages[at:]]
