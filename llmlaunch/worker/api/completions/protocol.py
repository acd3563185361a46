"""The body of /v1/completions: OpenAI's fields, and those beyond them under vLLM's names."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from llmlaunch.worker.api.protocol import (
    MAX_CHOICES,
    MAX_TOP_LOGPROBS,
    TEXT_INPUT,
    GenerationBody,
    TokenCount,
    TokensToKeep,
    Whole,
)


class CompletionBody(GenerationBody):
    """The body of OpenAI's POST /v1/completions.

    ``n_predict`` is llama.cpp's name for ``max_tokens``, which goes before it; -1 is as many as fit the context, which OpenAI's
    API has no way to say.
    """

    unions: ClassVar = GenerationBody.unions | {"prompt": TEXT_INPUT}

    prompt: str | list[int] | list[str] | list[list[int]]
    max_tokens: TokenCount | None = None
    n_predict: Whole | None = Field(None, ge=-1)
    logprobs: Whole | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    echo: bool | None = None
    suffix: str | None = None
    best_of: Whole | None = Field(None, ge=1, le=MAX_CHOICES)
    truncate_prompt_tokens: TokensToKeep | None = None
    add_special_tokens: bool | None = None
