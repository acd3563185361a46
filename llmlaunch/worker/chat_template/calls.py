"""Steps that change the tool calls and results of a conversation: each takes messages and returns new ones. Pure."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import string
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Message = dict[str, Any]
Call = dict[str, Any]

INSTRUCTION = """You may call functions to help the user. These are there, each with a JSON schema of its parameters:
<tools>
{tools}
</tools>
To call one, answer with nothing but this, once for each call:
<tool_call>
{{"name": "function name", "arguments": {{"parameter": "value"}}}}
</tool_call>"""

SHORT_ID = re.compile(r"[a-zA-Z0-9]{9}")
"""The only ids that templates of Mistral's models take."""
_ALPHANUMERIC = string.digits + string.ascii_letters


def completed(messages: Sequence[Message]) -> list[Message]:
    """Calls with ids and arguments as objects, results with the id and name of their call.

    Calls in the old fields ``function_call`` and ``role: function`` become those of today.
    """
    found: list[Message] = []
    unanswered = _Unanswered()
    for message in messages:
        if message["role"] in ("tool", "function"):
            found.append(_completed_result(message, unanswered))
        elif message["role"] == "assistant":
            made = _completed_calls(message, len(found))
            found.append(made)
            for call in made.get("tool_calls", ()):
                unanswered.add(call)
        else:
            found.append(message)
    return found


class _Unanswered:
    """The calls of a conversation so far that no result has answered, found in constant time."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        """Of all calls, by their ids."""
        self._ids: dict[str, None] = {}
        self._ids_by_name: dict[str, dict[str, None]] = {}

    def add(self, call: Call) -> None:
        """Take ``call`` in."""
        name = call["function"]["name"]
        self.names[call["id"]] = name
        self._ids[call["id"]] = None
        self._ids_by_name.setdefault(name, {})[call["id"]] = None

    def first(self, name: str | None) -> str | None:
        """The id of the first one of the function ``name``; of the first one at all if there is none of that name."""
        return next(iter(self._ids_by_name.get(name or "") or self._ids), None)

    def answer(self, call_id: str) -> None:
        """Take the call away."""
        self._ids.pop(call_id, None)
        self._ids_by_name.get(self.names.get(call_id, ""), {}).pop(call_id, None)


def _completed_calls(message: Message, at: int) -> Message:
    given = list(message.get("tool_calls") or ())
    old = message.get("function_call")
    if isinstance(old, dict) and not given:
        given = [{"type": "function", "function": old}]
    rest = {name: value for name, value in message.items() if name not in ("tool_calls", "function_call")}
    if not given:
        return rest  # templates ask whether there is a field of this name, not what is in it
    made = []
    for index, call in enumerate(given):
        function = dict(call["function"])
        function["arguments"] = _object(function.get("arguments"))
        name = call.get("id") or short_id(f"{at}.{index}")
        made.append(call | {"id": str(name), "type": "function", "function": function})
    return rest | {"tool_calls": made}


def _completed_result(message: Message, unanswered: _Unanswered) -> Message:
    # Clients of the old fields name the function; others answer in the order of the calls.
    call_id = str(message.get("tool_call_id") or unanswered.first(message.get("name")) or short_id(""))
    unanswered.answer(call_id)
    name = message.get("name") or unanswered.names.get(call_id)
    return message | {"role": "tool", "tool_call_id": call_id} | ({"name": name} if name else {})


def _object(arguments: Any) -> Any:
    """What the JSON in ``arguments`` says; text that is not JSON as it is."""
    if arguments is None or arguments == "":
        return {}
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def with_argument_strings(messages: Sequence[Message]) -> list[Message]:
    """Arguments as JSON strings."""

    def written(call: Call) -> Call:
        arguments = call["function"]["arguments"]
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        return call | {"function": call["function"] | {"arguments": text}}

    return [_each_call(message, written) for message in messages]


def with_short_ids(messages: Sequence[Message]) -> list[Message]:
    """Ids of nine letters and digits; the same on a call and its result."""
    found = []
    for message in messages:
        made = _each_call(message, lambda call: call | {"id": short_id(call["id"])})
        if made.get("tool_call_id"):
            made = made | {"tool_call_id": short_id(made["tool_call_id"])}
        found.append(made)
    return found


def with_named_ids(messages: Sequence[Message]) -> list[Message]:
    """Ids of the form ``functions.NAME:NUMBER``, as Kimi's models write them; the same on a call and its result."""
    ids: dict[str, str] = {}
    count = itertools.count()

    def named(call: Call) -> Call:
        ids[call["id"]] = f"functions.{call['function']['name']}:{next(count)}"
        return call | {"id": ids[call["id"]]}

    found = []
    for message in messages:
        made = _each_call(message, named)
        result_of = made.get("tool_call_id")
        found.append(made | {"tool_call_id": ids[result_of]} if result_of in ids else made)
    return found


def short_id(given: str) -> str:
    """``given`` if it is nine letters and digits, otherwise nine that depend on it alone."""
    if SHORT_ID.fullmatch(given):
        return given
    number = int.from_bytes(hashlib.sha256(given.encode(errors="replace")).digest())
    letters = []
    for _ in range(9):
        number, at = divmod(number, len(_ALPHANUMERIC))
        letters.append(_ALPHANUMERIC[at])
    return "".join(letters)


def _each_call(message: Message, change: Callable[[Call], Call]) -> Message:
    if not message.get("tool_calls"):
        return message
    return message | {"tool_calls": [change(call) for call in message["tool_calls"]]}


def single(messages: Sequence[Message]) -> list[Message]:
    """One call a message: several become messages in turn, each followed by its result."""
    found: list[Message] = []
    at = 0
    while at < len(messages):
        message = messages[at]
        at += 1
        if len(message.get("tool_calls") or ()) < 2:
            found.append(message)
            continue
        results = []
        while at < len(messages) and messages[at]["role"] == "tool":
            results.append(messages[at])
            at += 1
        found += _in_turn(message, results)
    return found


def _in_turn(message: Message, results: list[Message]) -> Iterator[Message]:
    by_id: dict[str, list[Message]] = {}
    for result in results:
        by_id.setdefault(result["tool_call_id"], []).append(result)
    for index, call in enumerate(message["tool_calls"]):
        yield message | {"tool_calls": [call]} | ({"content": ""} if index else {})
        yield from by_id.pop(call["id"], ())
    for others in by_id.values():
        yield from others


def as_text(messages: Sequence[Message]) -> list[Message]:
    """Calls as text of the assistant, and results as text of the user."""
    return [_as_text(message) for message in messages]


def strays_as_text(messages: Sequence[Message]) -> list[Message]:
    """Results as text of the user, if they do not directly follow the message with their call.

    They go behind those that do.
    """
    found: list[Message] = []
    strays: list[Message] = []
    waiting = set[str]()
    for message in messages:
        if message["role"] == "tool":
            stray = message.get("tool_call_id") not in waiting
            (strays if stray else found).append(_as_text(message) if stray else message)
            continue
        waiting = {call["id"] for call in message.get("tool_calls", ())}
        found += [*strays, message]
        strays = []
    return found + strays


def _as_text(message: Message) -> Message:
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    if not message.get("tool_calls"):
        return message
    texts = [message["content"]] if message.get("content") else []
    for call in message["tool_calls"]:
        written = {"name": call["function"]["name"], "arguments": call["function"]["arguments"]}
        texts.append(f"<tool_call>\n{json.dumps(written, ensure_ascii=False)}\n</tool_call>")
    return {"role": "assistant", "content": "\n".join(texts)}


def explained(messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> list[Message]:
    """With a description of ``tools`` at the end of the first system message, which is made if there is none."""
    listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    text = INSTRUCTION.format(tools=listed)
    if messages and messages[0]["role"] in ("system", "developer"):
        content = "\n\n".join(filter(None, (messages[0].get("content"), text)))
        return [messages[0] | {"content": content}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def in_system(messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> list[Message]:
    """With the functions as JSON in the field ``tools`` of the first system message, which is made if there is none."""
    field = {"tools": json.dumps([tool["function"] for tool in tools], ensure_ascii=False)}
    if messages and messages[0]["role"] in ("system", "developer"):
        return [messages[0] | field, *messages[1:]]
    return [{"role": "system", "content": ""} | field, *messages]


def completed_tools(tools: Sequence[dict[str, Any]], *, described: bool) -> list[dict[str, Any]]:
    """With parameters, and if ``described`` with descriptions: templates read them without asking whether there are any."""
    found = []
    for tool in tools:
        function = dict(tool["function"])
        if not function.get("parameters"):
            function["parameters"] = {"type": "object", "properties": {}}
        if described:
            function["description"] = function.get("description") or ""
        found.append(tool | {"function": function})
    return found
