"""Validates and tokenizes one request for completions."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from llmlaunch.worker.api.completions.protocol import CompletionBody
from llmlaunch.worker.api.generation.prompts import prompt_tokens_to_keep, tokenize_prompt
from llmlaunch.worker.api.generation.requests import AnswerOptions, generation_requests
from llmlaunch.worker.api.generation.usage import Usage
from llmlaunch.worker.api.ids import new_id
from llmlaunch.worker.api.protocol import MAX_CHOICES
from llmlaunch.worker.api.token_inputs import input_count, token_lists
from llmlaunch.worker.errors import BadRequest
from llmlaunch.worker.loading.types import LoadedGenerator
from llmlaunch.worker.tokenization.tokenizer import Tokenizer
from llmlaunch.worker.types import GenerationRequest

DEFAULT_MAX_TOKENS = 16
"""OpenAI's default."""


@dataclass(slots=True)
class PreparedCompletion:
    """One request for completions, validated and tokenized. Answer ``i`` is to prompt ``i // n``."""

    body: CompletionBody
    prompts: list[list[int]]
    requests: list[GenerationRequest]
    """One for each answer."""
    usage: Usage
    tokenizer: Tokenizer
    id: str = field(default_factory=lambda: new_id("cmpl"))
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def n(self) -> int:
        """Number of answers generated for each prompt."""
        return max(self.body.n or 1, self.body.best_of or 1)

    def response_object(self, **fields: Any) -> dict[str, Any]:
        """Return OpenAI's text_completion object with ``fields``."""
        common = {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.body.model,
            "system_fingerprint": None,
        }
        return common | fields

    def echoed_text(self, index: int) -> str:
        """Return the prompt that answer ``index`` begins with; empty without echo."""
        return self.tokenizer.decode(self.prompts[index // self.n]) if self.body.echo else ""


def prepare(body: CompletionBody, loaded: LoadedGenerator) -> PreparedCompletion:
    """Validate and tokenize ``body``. Raises ApiError."""
    _check(body, loaded)
    given, count = input_count(body.prompt), max(body.n or 1, body.best_of or 1)
    if given * count > MAX_CHOICES:
        raise BadRequest(
            f"{given} prompts with {count} answers each exceed the limit of {MAX_CHOICES} answers",
            param="prompt",
        )
    max_tokens = _max_tokens(body)
    prompts = _tokenized_prompts(body, loaded, max_tokens)
    options = AnswerOptions(
        prompt_param="prompt",
        max_tokens=max_tokens,
        count=count,
        # best_of needs the logprobs to find the best.
        logprobs=0 if body.logprobs is None and count > (body.n or 1) else body.logprobs,
        prompt_logprobs=(body.logprobs or 0) if _needs_prompt_logits(body) else None,
    )
    requests = [
        request for prompt in prompts for request in generation_requests(body, loaded, prompt, options)
    ]
    return PreparedCompletion(body, prompts, requests, Usage(sum(map(len, prompts))), loaded.tokenizer)


def _max_tokens(body: CompletionBody) -> int | None:
    """The requested length of each answer; None: as many tokens as fit the context."""
    if body.max_tokens is not None:
        return body.max_tokens
    if body.n_predict is None:
        return DEFAULT_MAX_TOKENS
    return None if body.n_predict < 0 else body.n_predict


def _tokenized_prompts(
    body: CompletionBody, loaded: LoadedGenerator, max_tokens: int | None
) -> list[list[int]]:
    last = prompt_tokens_to_keep(body.truncate_prompt_tokens, max_tokens, loaded.context)
    special = body.add_special_tokens is not False

    def tokenize(text: str, where: str) -> list[int]:
        return tokenize_prompt(text, loaded, where, special=special, last=last)

    prompts = token_lists(body.prompt, loaded.tokenizer, "prompt", tokenize)
    return prompts if last is None else [tokens[-last:] for tokens in prompts]


def _check(body: CompletionBody, loaded: LoadedGenerator) -> None:
    if body.suffix:
        raise BadRequest("suffix is not supported by this engine", param="suffix", code="unsupported")
    n, best = body.n or 1, body.best_of
    if best is not None and best < n:
        raise BadRequest(f"best_of: {best} is less than n, which is {n}", param="best_of")
    if best is not None and best > n and body.stream:
        raise BadRequest(
            "best_of cannot be streamed: the best answer is only known at the end", param="best_of"
        )
    if _max_tokens(body) == 0 and not body.echo:
        raise BadRequest("max_tokens: must be at least 1 without echo", param="max_tokens")
    if _needs_prompt_logits(body) and not loaded.reads_prompts:
        raise BadRequest(
            "echo with logprobs or without new tokens is not supported for models that run one request at a time",
            param="echo",
            code="unsupported",
        )


def _needs_prompt_logits(body: CompletionBody) -> bool:
    return bool(body.echo) and (body.logprobs is not None or _max_tokens(body) == 0)
