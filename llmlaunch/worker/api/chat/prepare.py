"""Validates and tokenizes one chat request."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from llmlaunch.worker.api.chat import tools
from llmlaunch.worker.api.chat.messages import plain_messages
from llmlaunch.worker.api.chat.protocol import ChatBody
from llmlaunch.worker.api.chat.tools import Toolset
from llmlaunch.worker.api.generation import response_format
from llmlaunch.worker.api.generation.prompts import prompt_tokens_to_keep, tokenize_prompt
from llmlaunch.worker.api.generation.requests import AnswerOptions, generation_requests
from llmlaunch.worker.api.generation.usage import Usage
from llmlaunch.worker.api.ids import new_id
from llmlaunch.worker.errors import BadRequest, ContextOverflow
from llmlaunch.worker.loading.types import LoadedGenerator
from llmlaunch.worker.output import reasoning
from llmlaunch.worker.output.tool_calls.formats import ModelOutput
from llmlaunch.worker.output.tool_calls.types import ToolCallParser
from llmlaunch.worker.tokenization.tokenizer import Tokenizer
from llmlaunch.worker.types import GenerationRequest

TEMPLATE_ARGUMENTS = (
    "conversation", "messages", "tools", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize",
    "padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask",
    "tokenizer_kwargs",
)  # fmt: skip
"""Arguments of transformers' ``apply_chat_template`` that are not template variables."""


@dataclass(slots=True)
class PreparedChat:
    """One chat request, validated and tokenized."""

    body: ChatBody
    requests: list[GenerationRequest]
    """One for each answer."""
    usage: Usage
    tokenizer: Tokenizer
    toolset: Toolset
    output: ModelOutput
    """How the model writes tool calls."""
    json_imposed: bool = False
    """Whether the answer is JSON that response_format describes: such an answer is never a call."""
    separates_reasoning: bool = False
    """Whether reasoning is separated from the answer."""
    starts_in_reasoning: bool = False
    """Whether the answers begin inside a reasoning block."""
    id: str = field(default_factory=lambda: new_id("chatcmpl"))
    created: int = field(default_factory=lambda: int(time.time()))

    def tool_call_parser(self) -> ToolCallParser | None:
        """Return a new parser for one answer; None if calls are not looked for."""
        if self.json_imposed:
            return None
        toolset = self.toolset
        return self.output.calls(toolset.parameters, parallel=toolset.parallel, imposed=toolset.required)

    def response_object(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Return OpenAI's object of type ``kind`` with ``fields``."""
        common = {"id": self.id, "object": kind, "created": self.created, "model": self.body.model}
        return common | fields


def prepare(body: ChatBody, loaded: LoadedGenerator) -> PreparedChat:
    """Validate and tokenize ``body``. Raises ApiError."""
    _check(body)
    if len(body.messages) > loaded.context and body.truncate_prompt_tokens is None:
        raise ContextOverflow.of(loaded.context, f"there are {len(body.messages)} messages", "messages")
    toolset = tools.read(body)
    text = _rendered(body, toolset, loaded)
    max_tokens = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    last = prompt_tokens_to_keep(body.truncate_prompt_tokens, max_tokens, loaded.context)
    # The template contains the special tokens.
    prompt = tokenize_prompt(text, loaded, "messages", special=False, last=last)
    if not prompt:
        raise BadRequest("the chat template gives no text for these messages", param="messages")
    options = AnswerOptions(
        prompt_param="messages",
        max_tokens=max_tokens,
        count=body.n or 1,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        calls=toolset.calls_only(),
        skip_special_tokens=not _needs_special_tokens(toolset, loaded),
    )
    requests = generation_requests(body, loaded, prompt, options)
    return PreparedChat(
        body,
        requests,
        Usage(len(prompt), reasoning_tokens=0 if loaded.reasoning else None),
        loaded.tokenizer,
        toolset,
        loaded.output,
        json_imposed=not toolset.required and response_format.imposes_json(body),
        # Structured output leaves no room for reasoning.
        separates_reasoning=loaded.reasoning and requests[0].constraint is None,
        starts_in_reasoning=reasoning.starts_inside(text) or _continues_reasoning(body),
    )


def count_prompt(body: ChatBody, loaded: LoadedGenerator) -> int:
    """Return the number of tokens of the prompt that ``body`` becomes, which may exceed the context. Raises BadRequest."""
    _check(body)
    text = _rendered(body, tools.read(body), loaded)
    return sum(map(len, loaded.tokenizer.encode_chunks(text, special=False)))


def _rendered(body: ChatBody, toolset: Toolset, loaded: LoadedGenerator) -> str:
    """The prompt as the chat template writes it. Raises BadRequest."""
    return loaded.tokenizer.render(
        plain_messages(body.messages),
        toolset.described(),
        add_generation_prompt=_adds_generation_prompt(body),
        continue_final_message=bool(body.continue_final_message),
        **_template_arguments(body),
    )


def _check(body: ChatBody) -> None:
    if body.top_logprobs and not body.logprobs:
        raise BadRequest("top_logprobs needs logprobs: true", param="top_logprobs")
    if body.continue_final_message and body.add_generation_prompt:
        raise BadRequest(
            "continue_final_message and add_generation_prompt exclude each other",
            param="continue_final_message",
        )


def _adds_generation_prompt(body: ChatBody) -> bool:
    if body.add_generation_prompt is not None:
        return body.add_generation_prompt
    return not body.continue_final_message


def _template_arguments(body: ChatBody) -> dict[str, Any]:
    given = dict(body.chat_template_kwargs or {})
    if body.reasoning_effort is not None:
        given.setdefault("reasoning_effort", body.reasoning_effort)
    for name in TEMPLATE_ARGUMENTS:
        if name in given:
            raise BadRequest(
                f"chat_template_kwargs: {name} cannot be set by clients", param="chat_template_kwargs"
            )
    return given


def _needs_special_tokens(toolset: Toolset, loaded: LoadedGenerator) -> bool:
    """Whether a marker that is parsed is a special token: it must be decoded to be recognized."""
    markers = loaded.output.markers(tools=toolset.active) + (reasoning.MARKERS if loaded.reasoning else ())
    return not loaded.hidden_markers.isdisjoint(markers)


def _continues_reasoning(body: ChatBody) -> bool:
    last = body.messages[-1].content
    return bool(body.continue_final_message) and isinstance(last, str) and reasoning.is_unclosed(last)
