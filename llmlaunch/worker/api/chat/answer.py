"""One answer of a chat request as it grows: reasoning, text and tool calls."""

from __future__ import annotations

from typing import Any

from llmlaunch.worker.api.chat.prepare import PreparedChat
from llmlaunch.worker.api.ids import new_call_id
from llmlaunch.worker.output.reasoning import ReasoningParser, ReasoningSplit
from llmlaunch.worker.output.tool_calls.types import ToolCallDelta
from llmlaunch.worker.types import FinishReason, GenerationOutput, TokenLogprob


class ChatAnswer:
    """Collects one answer, and returns what each output adds to it."""

    def __init__(self, prepared: PreparedChat) -> None:
        self._usage = prepared.usage
        self._shows_reasoning = prepared.body.include_reasoning is not False
        self._reasoning_parser = (
            ReasoningParser(inside=prepared.starts_in_reasoning) if prepared.separates_reasoning else None
        )
        self._tool_call_parser = prepared.tool_call_parser()
        self._old_fields = prepared.toolset.old
        self.reasoning = ""
        self.text = ""
        self.tool_calls: list[dict[str, Any]] = []
        self.logprobs: list[TokenLogprob] = []
        self.last: GenerationOutput | None = None
        """The last output, once there is one."""

    def take(self, output: GenerationOutput) -> dict[str, Any]:
        """Add ``output``; return it as OpenAI's ``delta`` object."""
        self.logprobs.extend(output.logprobs)
        if output.last:
            self.last = output
        split = self._split(output)
        parser = self._tool_call_parser
        if parser is None:
            self.reasoning += split.reasoning
            self.text += split.text
            reasoning = {"reasoning_content": split.reasoning} if split.reasoning else {}
            return reasoning | ({"content": split.text} if split.text else {})
        deltas = parser.push(split.text) + (parser.flush() if output.last else [])
        thought = "".join(delta.reasoning for delta in deltas)
        if thought:
            self._usage.reasoning_tokens = (self._usage.reasoning_tokens or 0) + len(output.tokens)
        thought = split.reasoning + (thought if self._shows_reasoning else "")
        reasoning = {"reasoning_content": thought} if thought else {}
        text = "".join(delta.text for delta in deltas)
        self.reasoning += thought
        self.text += text
        calls = [self._tool_call(delta) for delta in deltas if delta.index >= 0]
        return reasoning | ({"content": text} if text else {}) | (self._calls_field(calls) if calls else {})

    def _calls_field(self, calls: list[dict[str, Any]]) -> dict[str, Any]:
        """``calls`` in the field that the client knows."""
        return {"function_call": calls[0]["function"]} if self._old_fields else {"tool_calls": calls}

    def _split(self, output: GenerationOutput) -> ReasoningSplit:
        """Reasoning and text of ``output``; counts the reasoning tokens."""
        parser = self._reasoning_parser
        if parser is None:
            return ReasoningSplit(text=output.text)
        split = parser.push(output.text)
        if output.last:
            rest = parser.flush()
            split = ReasoningSplit(split.reasoning + rest.reasoning, split.text + rest.text)
        if parser.inside or split.reasoning:
            self._usage.reasoning_tokens = (self._usage.reasoning_tokens or 0) + len(output.tokens)
        return split if self._shows_reasoning else ReasoningSplit(text=split.text)

    def _tool_call(self, delta: ToolCallDelta) -> dict[str, Any]:
        if not delta.name:
            self.tool_calls[delta.index]["function"]["arguments"] += delta.arguments
            return {"index": delta.index, "function": {"arguments": delta.arguments}}
        function = {"name": delta.name, "arguments": delta.arguments}
        call = {"id": new_call_id(), "type": "function", "function": function}
        self.tool_calls.append(call)
        return {"index": delta.index} | call | {"function": dict(function)}

    @property
    def finish(self) -> str | None:
        """The finish reason; "tool_calls" or "function_call" if the answer ends after complete calls."""
        if self.last is None:
            return None
        if self.tool_calls and self.last.finish is FinishReason.STOP:
            return "function_call" if self._old_fields else "tool_calls"
        return self.last.finish

    def message(self) -> dict[str, Any]:
        """Return the whole answer as OpenAI's message object."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text, "refusal": None}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.tool_calls:
            message |= {"content": self.text.strip() or None} | self._calls_field(self.tool_calls)
        return message
