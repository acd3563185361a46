"""The body of POST /v1/messages. What its fields may hold is checked where they are translated."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict

from llmlaunch.worker.api.protocol import RequestBody, Whole


class MessagesBody(RequestBody):
    """Anthropic's fields. Those without a counterpart here are ignored."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[Any]
    max_tokens: Whole | None = None
    system: Any = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Whole | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    thinking: Any = None
    output_config: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
