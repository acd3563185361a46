"""/v1/chat/completions: a conversation in, an answer out, whole or streamed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmlaunch.worker.api import prompts, tools
from llmlaunch.worker.api.http import DONE, event
from llmlaunch.worker.api.inflight import InflightRequests
from llmlaunch.worker.api.protocol import ChatBody
from llmlaunch.worker.api.tools import Toolset
from llmlaunch.worker.api.usage import Usage
from llmlaunch.worker.errors import BadRequest, ContextOverflow
from llmlaunch.worker.loading.types import LoadedGenerator
from llmlaunch.worker.output import reasoning
from llmlaunch.worker.output.reasoning import ReasoningParser, ReasoningSplit
from llmlaunch.worker.output.tool_calls.json_format import MARKERS
from llmlaunch.worker.output.tool_calls.types import ToolCallDelta, ToolCallParser
from llmlaunch.worker.tokenization.tokenizer import Tokenizer
from llmlaunch.worker.types import FinishReason, GenerationOutput, GenerationRequest, TokenLogprob


@dataclass(slots=True)
class ChatCall:
    """One chat request, validated and tokenized."""

    body: ChatBody
    requests: list[GenerationRequest]
    usage: Usage
    tokenizer: Tokenizer
    toolset: Toolset
    reasoning: bool = False
    """Whether reasoning is separated from the answer."""
    thinking: bool = False
    """Whether the answers begin inside a reasoning block."""
    id: str = field(default_factory=lambda: prompts.new_id("chatcmpl"))
    created: int = field(default_factory=lambda: int(time.time()))

    def frame(self, kind: str, **fields: Any) -> dict[str, Any]:
        frame = {"id": self.id, "object": kind, "created": self.created, "model": self.body.model}
        return frame | fields


def prepare(body: ChatBody, loaded: LoadedGenerator) -> ChatCall:
    """Validate and tokenize ``body``. Raises ApiError."""
    _refuse(body)
    if len(body.messages) > loaded.context and body.truncate_prompt_tokens is None:
        raise ContextOverflow(
            f"this model's context is {loaded.context} tokens, but there are {len(body.messages)} messages",
            param="messages",
        )
    toolset = tools.read(body)
    messages, told = tools.for_template(
        prompts.plain_messages(body.messages), toolset, known=loaded.tokenizer.template_knows_tools
    )
    text = loaded.tokenizer.render(
        messages,
        add_generation_prompt=_generates(body),
        continue_final_message=bool(body.continue_final_message),
        **(_template_arguments(body) | told),
    )
    asked = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    last = prompts.kept(body.truncate_prompt_tokens, asked, loaded.context)
    # The template contains the special tokens.
    tokens = prompts.encoded(text, loaded, "messages", special=False, last=last)
    if not tokens:
        raise BadRequest("the chat template gives no text for these messages", param="messages")
    stopping = prompts.stopping_criteria(
        body,
        loaded.tokenizer,
        prompt=len(tokens),
        asked=asked,
        context=loaded.context,
        param="messages",
    )
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    # A tag that is a special token must be decoded to be recognized.
    marks = (MARKERS if toolset.active else ()) + (reasoning.MARKERS if loaded.reasoning else ())
    marked = any(loaded.tokenizer.hides(mark) for mark in marks)
    requests = prompts.choices(
        body,
        loaded,
        tokens,
        stopping,
        logprobs=logprobs,
        count=body.n or 1,
        schema=toolset.schema(),
        skip_special=not marked,
    )
    return ChatCall(
        body,
        requests,
        Usage(len(tokens), reasoning_tokens=0 if loaded.reasoning else None),
        loaded.tokenizer,
        toolset,
        # Structured output leaves no room for reasoning.
        reasoning=loaded.reasoning and requests[0].constraint is None,
        thinking=reasoning.starts_inside(text) or _continues_thought(body),
    )


def _continues_thought(body: ChatBody) -> bool:
    last = body.messages[-1].content
    return bool(body.continue_final_message) and isinstance(last, str) and reasoning.is_unclosed(last)


def _refuse(body: ChatBody) -> None:
    if body.top_logprobs is not None and not body.logprobs:
        raise BadRequest("top_logprobs needs logprobs: true", param="top_logprobs")
    if body.continue_final_message and body.add_generation_prompt:
        raise BadRequest(
            "continue_final_message and add_generation_prompt exclude each other",
            param="continue_final_message",
        )


def _generates(body: ChatBody) -> bool:
    if body.add_generation_prompt is not None:
        return body.add_generation_prompt
    return not body.continue_final_message


def _template_arguments(body: ChatBody) -> dict[str, Any]:
    given = dict(body.chat_template_kwargs or {})
    if body.reasoning_effort is not None:
        given.setdefault("reasoning_effort", body.reasoning_effort)
    for name in prompts.TEMPLATE_ARGUMENTS:
        if name in given:
            raise BadRequest(
                f"chat_template_kwargs: {name} cannot be set by clients", param="chat_template_kwargs"
            )
    return given


class ChatAnswer:
    """One answer as it grows: its reasoning, text and tool calls, and the delta of its next event."""

    def __init__(self, call: ChatCall) -> None:
        self._usage = call.usage
        self._shows_thoughts = call.body.include_reasoning is not False
        self._thoughts = ReasoningParser(inside=call.thinking) if call.reasoning else None
        self._parser: ToolCallParser | None = call.toolset.parser() if call.toolset.active else None
        self.thought = ""
        self.text = ""
        self.calls: list[dict[str, Any]] = []
        self.logprobs: list[TokenLogprob] = []
        self.last: GenerationOutput | None = None

    def take(self, output: GenerationOutput) -> dict[str, Any]:
        """Add ``output``; return the delta of its event."""
        self.logprobs.extend(output.logprobs)
        if output.last:
            self.last = output
        split = self._split(output)
        self.thought += split.reasoning
        thought = {"reasoning_content": split.reasoning} if split.reasoning else {}
        if self._parser is None:
            self.text += split.text
            return thought | ({"content": split.text} if split.text else {})
        deltas = self._parser.push(split.text) + (self._parser.flush() if output.last else [])
        text = "".join(delta.text for delta in deltas)
        self.text += text
        calls = [self._call(delta) for delta in deltas if delta.index >= 0]
        return thought | ({"content": text} if text else {}) | ({"tool_calls": calls} if calls else {})

    def _split(self, output: GenerationOutput) -> ReasoningSplit:
        """Reasoning and text of ``output``; counts the reasoning tokens."""
        if self._thoughts is None:
            return ReasoningSplit(text=output.text)
        split = self._thoughts.push(output.text)
        if output.last:
            rest = self._thoughts.flush()
            split = ReasoningSplit(split.reasoning + rest.reasoning, split.text + rest.text)
        if self._thoughts.inside or split.reasoning:
            self._usage.reasoning_tokens = (self._usage.reasoning_tokens or 0) + len(output.tokens)
        return split if self._shows_thoughts else ReasoningSplit(text=split.text)

    def _call(self, delta: ToolCallDelta) -> dict[str, Any]:
        if not delta.name:
            self.calls[delta.index]["function"]["arguments"] += delta.arguments
            return {"index": delta.index, "function": {"arguments": delta.arguments}}
        function = {"name": delta.name, "arguments": delta.arguments}
        call = {"id": prompts.new_id("call"), "type": "function", "function": function}
        self.calls.append(call)
        return {"index": delta.index} | call | {"function": dict(function)}

    @property
    def finish(self) -> str | None:
        """The finish reason; "tool_calls" if the answer ends after complete tool calls."""
        if self.last is None:
            return None
        return "tool_calls" if self.calls and self.last.finish is FinishReason.STOP else self.last.finish

    def message(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": self.text, "refusal": None}
        if self.thought:
            message["reasoning_content"] = self.thought
        if self.calls:
            message |= {"content": self.text.strip() or None, "tool_calls": self.calls}
        return message


async def whole(call: ChatCall, inflight: InflightRequests) -> dict[str, Any]:
    """The response object, once every answer is complete."""
    answers = [ChatAnswer(call) for _ in call.requests]
    async for index, output in inflight.outputs():
        call.usage.take(index, 0, output)
        answers[index].take(output)
    choices = [
        {
            "index": index,
            "message": answer.message(),
            "logprobs": logprobs_of(call, answer.logprobs),
            "finish_reason": answer.finish,
            "stop_reason": answer.last.stop_reason if answer.last else None,
        }
        for index, answer in enumerate(answers)
    ]
    return call.frame("chat.completion", choices=choices, usage=call.usage.report(), system_fingerprint=None)


async def events(
    call: ChatCall, inflight: InflightRequests, first: tuple[int, GenerationOutput] | None
) -> AsyncIterator[bytes]:
    """Server-sent events: the role of each answer, its deltas, its end; then the usage, if requested."""
    options = call.body.stream_options
    counted = options is not None and bool(options.include_usage)
    running = counted and options is not None and bool(options.continuous_usage_stats)
    answers = [ChatAnswer(call) for _ in call.requests]

    def chunk(index: int, delta: dict[str, Any], output: GenerationOutput | None = None) -> bytes:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": logprobs_of(call, output.logprobs) if output else None,
            "finish_reason": answers[index].finish,
        }
        if output is not None and output.last:
            choice["stop_reason"] = output.stop_reason
        usage = {"usage": call.usage.report() if running else None} if counted else {}
        return event(call.frame("chat.completion.chunk", choices=[choice], system_fingerprint=None, **usage))

    for index in range(len(call.requests)):
        yield chunk(index, {"role": "assistant", "content": ""})
    item = first
    while item is not None:
        index, output = item
        call.usage.take(index, 0, output)
        delta = answers[index].take(output)
        if delta or output.last or output.logprobs:
            yield chunk(index, delta, output)
        item = await inflight.next()
    if counted:
        usage = call.usage.report()
        yield event(call.frame("chat.completion.chunk", choices=[], usage=usage, system_fingerprint=None))
    yield DONE


def logprobs_of(call: ChatCall, tokens: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    if not call.body.logprobs:
        return None
    return {"content": [_entry(call.tokenizer, token) for token in tokens], "refusal": None}


def _entry(tokenizer: Tokenizer, entry: TokenLogprob) -> dict[str, Any]:
    top = [_named(tokenizer, token, logprob) for token, logprob in entry.top]
    return _named(tokenizer, entry.token, entry.logprob) | {"top_logprobs": top}


def _named(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    # JSON has no infinity; OpenAI reports impossible tokens as -9999.
    shown = max(logprob, -9999.0)
    return {"token": tokenizer.token_text(token), "logprob": shown, "bytes": tokenizer.token_bytes(token)}
