"""Turns an answer's deltas into output items and events. Pure apart from the ids.

Every item goes through ``added → (part added →) deltas → done``, and is done before the next begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from llmlaunch.worker.api.responses.tools import OfferedTools, custom_input

Event = dict[str, Any]


class ItemWriter:
    """Writes the items of one answer. ``new_id`` makes an id with the given prefix."""

    def __init__(self, new_id: Callable[[str], str], offered: OfferedTools) -> None:
        self._new_id = new_id
        self._offered = offered
        self.items: list[dict[str, Any]] = []
        self._kind = ""
        self._blank = ""
        """Whitespace before the first word: part of the message only if a word follows."""
        self._arguments = ""
        """Of the current call of a custom tool: its input is a part of them."""

    def take(self, delta: dict[str, Any], logprobs: list[dict[str, Any]]) -> Iterator[Event]:
        """Yield the events of a chat delta: ``reasoning_content``, ``content``, ``tool_calls``."""
        if thought := delta.get("reasoning_content"):
            yield from self._begin("reasoning")
            yield self._grow(thought)
        if text := delta.get("content"):
            yield from self._write(text, logprobs)
        for call in delta.get("tool_calls", ()):
            if "id" in call:
                yield from self._begin_call(call)
            if arguments := call["function"]["arguments"]:
                yield from self._grow_arguments(arguments)

    def end(self, status: str) -> Iterator[Event]:
        """Yield the events at the end of the answer. ``status`` of its last item: completed or incomplete."""
        if not self.items or (self._kind == "reasoning" and status == "completed"):
            yield from self._begin("message")  # clients expect a message, even an empty one
        yield from self._finish(status)

    def _write(self, text: str, logprobs: list[dict[str, Any]]) -> Iterator[Event]:
        if self._kind != "message":
            self._blank += text
            if self._blank.isspace():
                return
            text, self._blank = self._blank, ""
            yield from self._begin("message")
        yield self._grow(text, logprobs)

    def _begin_call(self, call: dict[str, Any]) -> Iterator[Event]:
        function = self._offered.function(call["function"]["name"])
        known = {"call_id": call["id"], "name": function.name}
        if function.custom:
            self._arguments = ""
            yield from self._begin("custom_tool_call", {"id": self._new_id("ctc"), **known, "input": ""})
            return
        if function.namespace:
            known["namespace"] = function.namespace
        yield from self._begin("function_call", {"id": self._new_id("fc"), **known, "arguments": ""})

    def _begin(self, kind: str, call: dict[str, Any] | None = None) -> Iterator[Event]:
        if kind == self._kind and call is None:
            return
        if self._kind:
            yield from self._finish("completed")
        self._kind, self._blank = kind, ""
        item: dict[str, Any] = {"type": kind, "status": "in_progress"}
        if call is not None:
            item |= call
        elif kind == "reasoning":
            item |= {"id": self._new_id("rs"), "summary": [], "content": []}
        else:
            item |= {"id": self._new_id("msg"), "role": "assistant", "content": []}
        self.items.append(item)
        yield {"type": "response.output_item.added", "output_index": self._index, "item": _copy(item)}
        if call is None:
            part: dict[str, Any] = {"type": "reasoning_text", "text": ""}
            if kind == "message":
                part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            item["content"].append(part)
            yield self._event("response.content_part.added", content_index=0, part=_copy(part))

    def _grow(self, text: str, logprobs: list[dict[str, Any]] | None = None) -> Event:
        part = self.items[-1]["content"][0]
        part["text"] += text
        if self._kind == "reasoning":
            return self._event("response.reasoning_text.delta", content_index=0, delta=text)
        part["logprobs"].extend(logprobs or ())
        return self._event(
            "response.output_text.delta", content_index=0, delta=text, logprobs=list(logprobs or ())
        )

    def _grow_arguments(self, arguments: str) -> Iterator[Event]:
        if self._kind == "custom_tool_call":
            self._arguments += arguments
            return
        self.items[-1]["arguments"] += arguments
        yield self._event("response.function_call_arguments.delta", delta=arguments)

    def _finish(self, status: str) -> Iterator[Event]:
        item = self.items[-1]
        item["status"] = status
        if self._kind == "function_call":
            call = {"name": item["name"], "arguments": item["arguments"]}
            yield self._event("response.function_call_arguments.done", **call)
        elif self._kind == "custom_tool_call":
            item["input"] = custom_input(self._arguments)
            yield self._event("response.custom_tool_call_input.delta", delta=item["input"])
            yield self._event("response.custom_tool_call_input.done", input=item["input"])
        else:
            part = item["content"][0]
            if self._kind == "reasoning":
                yield self._event("response.reasoning_text.done", content_index=0, text=part["text"])
            else:
                yield self._event(
                    "response.output_text.done",
                    content_index=0,
                    text=part["text"],
                    logprobs=list(part["logprobs"]),
                )
            yield self._event("response.content_part.done", content_index=0, part=_copy(part))
        yield {"type": "response.output_item.done", "output_index": self._index, "item": _copy(item)}
        self._kind = ""

    @property
    def _index(self) -> int:
        return len(self.items) - 1

    def _event(self, kind: str, **fields: Any) -> Event:
        return {"type": kind, "item_id": self.items[-1]["id"], "output_index": self._index} | fields


def _copy(value: dict[str, Any]) -> dict[str, Any]:
    """A snapshot, because the original grows."""
    return {
        name: [dict(part) for part in field] if name == "content" else field for name, field in value.items()
    }
