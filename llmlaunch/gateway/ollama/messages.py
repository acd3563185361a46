"""Translates the messages and tools of a conversation from Ollama's form to OpenAI's. Pure.

Ollama's form differs in four ways: images stand beside the text, arguments of tool calls are objects, calls need no ids, and a
tool's result names the tool (``tool_name``).
"""

from __future__ import annotations

from typing import Any

from llmlaunch.gateway.ollama.fields import items, mapping, text
from llmlaunch.gateway.payload.model_field import InvalidBody, dump

_IMAGE_TYPES = {"/9j/": "jpeg", "iVBORw0KGgo": "png", "UklGR": "webp", "R0lGOD": "gif"}
"""How the base64 text of an image begins → the subtype of its media type."""


def messages(given: list[Any]) -> list[dict[str, Any]]:
    """Translate ``given``. Raises InvalidBody."""
    calls = _Calls()
    return [_message(item, f"messages[{at}]", calls) for at, item in enumerate(given)]


def user_message(prompt: str, images: list[Any]) -> dict[str, Any]:
    """The message for a prompt with images, each as base64 text. Raises InvalidBody."""
    return {"role": "user", "content": _content(prompt, images)}


def tools(body: dict[str, Any]) -> dict[str, Any]:
    """The parameter for ``tools``. Raises InvalidBody."""
    given = items(body, "tools")
    if not given:
        return {}
    for at, tool in enumerate(given):
        if not isinstance(tool, dict):
            raise InvalidBody(f"tools[{at}] must be an object.", "tools")
    return {"tools": [{"type": "function", **tool} for tool in given]}


class _Calls:
    """The tool calls of a conversation, which get ids in their order."""

    def __init__(self) -> None:
        self._count = 0
        self._unanswered: list[tuple[str, str]] = []
        """Name and id."""

    def add(self, name: str, identity: str) -> str:
        """The id of a call of ``name``: ``identity``, or a new one."""
        identity = identity or self._new()
        self._unanswered.append((name, identity))
        return identity

    def answered_by(self, name: str, identity: str) -> str:
        """The id of the call that a result belongs to: of the first one without a result, and of that tool if there is one."""
        found = next((call for call in self._unanswered if call[1] == identity), None) if identity else None
        if found is None and not identity:
            of_tool = (call for call in self._unanswered if call[0] == name)
            found = next(of_tool, self._unanswered[0] if self._unanswered else None)
        if found is None:
            return identity or self._new()
        self._unanswered.remove(found)
        return found[1]

    def _new(self) -> str:
        self._count += 1
        return f"call{self._count:05}"  # nine letters and digits: what every chat template accepts


def _message(given: object, where: str, calls: _Calls) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise InvalidBody(f"{where} must be an object.", "messages")
    try:
        return _translated(given, calls)
    except InvalidBody as error:
        raise InvalidBody(f"{where}.{error.message}", "messages") from None


def _translated(given: dict[str, Any], calls: _Calls) -> dict[str, Any]:
    role = text(given, "role")
    if not role:
        raise InvalidBody("role is missing.")
    message: dict[str, Any] = {
        "role": role,
        "content": _content(_said(given), items(given, "images")),
    }
    if thought := text(given, "thinking"):
        message["reasoning_content"] = thought
    if made := items(given, "tool_calls"):
        message["tool_calls"] = [_call(item, calls) for item in made]
    if role == "tool":
        name = text(given, "tool_name") or text(given, "name")
        message["tool_call_id"] = calls.answered_by(name, text(given, "tool_call_id"))
        if name:
            message["name"] = name
    return message


def _call(given: object, calls: _Calls) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise InvalidBody("tool_calls must be a list of objects.")
    function = mapping(given, "function")
    name = text(function, "name")
    if not name:
        raise InvalidBody("tool_calls: function.name is missing.")
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = dump({} if arguments is None else arguments).decode()
    identity = calls.add(name, text(given, "id"))
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def _said(given: dict[str, Any]) -> str | list[Any]:
    """The content: text, or parts in OpenAI's form, which some clients send here too."""
    content = given.get("content")
    return content if isinstance(content, list) else text(given, "content")


def _content(content: str | list[Any], images: list[Any]) -> str | list[Any]:
    if not images:
        return content
    parts: list[Any] = content if isinstance(content, list) else []
    if isinstance(content, str) and content:
        parts = [{"type": "text", "text": content}]
    return parts + [{"type": "image_url", "image_url": {"url": _url(image)}} for image in images]


def _url(image: object) -> str:
    if not isinstance(image, str) or not image:
        raise InvalidBody("images must be a list of images in base64.", "images")
    if image.startswith("data:"):
        return image
    kind = next((kind for start, kind in _IMAGE_TYPES.items() if image.startswith(start)), "png")
    return f"data:image/{kind};base64,{image}"
