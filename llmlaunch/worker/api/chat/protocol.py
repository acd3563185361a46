"""The body of /v1/chat/completions: OpenAI's fields, and those beyond them under vLLM's names."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from llmlaunch.worker.api.protocol import (
    MAX_TOP_LOGPROBS,
    GenerationBody,
    RequestBody,
    TokensToKeep,
    Whole,
)

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

CONTENT = "a string or a list of parts"
"""The forms of a message's content, for messages."""


class Message(RequestBody):
    """One message of a conversation, as in OpenAI's chat API."""

    model_config = ConfigDict(extra="allow")

    role: str
    """The chat template decides which there are."""
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None


class ChatBody(GenerationBody):
    """The body of OpenAI's POST /v1/chat/completions."""

    unions: ClassVar = GenerationBody.unions | {
        "messages.content": CONTENT,
        "tool_choice": "a string or an object",
        "function_call": "a string or an object",
    }

    messages: list[Message] = Field(min_length=1)
    max_tokens: Whole | None = Field(None, ge=1)
    max_completion_tokens: Whole | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: Whole | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    truncate_prompt_tokens: TokensToKeep | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: list[dict[str, Any]] | None = None
    function_call: str | dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    include_reasoning: bool | None = None
    reasoning_effort: ReasoningEffort | None = None
    chat_template_kwargs: dict[str, Any] | None = None
