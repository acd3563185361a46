"""The body of /v1/responses: OpenAI's fields, and those beyond them under vLLM's names."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from llmlaunch.worker.api.protocol import MAX_TOP_LOGPROBS, GenerationBody, Whole


class ResponsesBody(GenerationBody):
    """The body of OpenAI's POST /v1/responses and /v1/responses/input_tokens."""

    unions: ClassVar = GenerationBody.unions | {
        "input": "a string or a list of items",
        "tool_choice": "a string or an object",
        "prompt": "an object",
        "conversation": "a string or an object",
    }

    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    max_output_tokens: Whole | None = Field(None, ge=1)
    previous_response_id: str | None = None
    store: bool | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    include: list[str] | None = None
    top_logprobs: Whole | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    truncation: Literal["auto", "disabled"] | None = None
    metadata: dict[str, str] | None = None
    background: bool | None = None
    conversation: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    max_tool_calls: Any = None
    service_tier: Any = None
    prompt_cache_key: Any = None
    safety_identifier: Any = None
