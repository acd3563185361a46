"""Validates and tokenizes one request for completions."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from llmlaunch.worker.api.completions.protocol import CompletionBody
from llmlaunch.worker.api.generation.prompts import prompt_tokens_to_keep, tokenize_prompt, tokenize_suffix
from llmlaunch.worker.api.generation.requests import AnswerOptions, generation_requests
from llmlaunch.worker.api.generation.usage import Usage
from llmlaunch.worker.api.ids import new_id
from llmlaunch.worker.api.protocol import MAX_CHOICES
from llmlaunch.worker.api.token_inputs import input_count, token_lists
from llmlaunch.worker.errors import BadRequest
from llmlaunch.worker.loading.types import LoadedGenerator
from llmlaunch.worker.tokenization.fill_in_middle import MiddleForm, kept
from llmlaunch.worker.tokenization.tokenizer import Tokenizer
from llmlaunch.worker.types import GenerationRequest

DEFAULT_MAX_TOKENS = 16
"""OpenAI's default."""


@dataclass(frozen=True, slots=True)
class CompletionPrompt:
    """One prompt."""

    tokens: list[int]
    echoed: range
    """Which tokens come before the answer if the prompt is echoed: with a suffix, neither the marks nor the suffix."""


@dataclass(slots=True)
class PreparedCompletion:
    """One request for completions, validated and tokenized. Answer ``i`` is to prompt ``i // n``."""

    body: CompletionBody
    prompts: list[CompletionPrompt]
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
        prompt = self.prompts[index // self.n]
        echoed = prompt.tokens[prompt.echoed.start : prompt.echoed.stop]
        return self.tokenizer.decode(echoed) if self.body.echo else ""


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
    middle = _middle_form(loaded) if body.suffix else None
    prompts = (
        _tokenized_prompts(body, loaded, max_tokens)
        if middle is None
        else _prompts_with_suffix(body, loaded, max_tokens, middle)
    )
    options = AnswerOptions(
        prompt_param="prompt",
        prompt_words="prompt and suffix" if middle else "",
        middle_ends=middle.ends if middle else frozenset(),
        max_tokens=max_tokens,
        count=count,
        # best_of needs the logprobs to find the best.
        logprobs=0 if body.logprobs is None and count > (body.n or 1) else body.logprobs,
        prompt_logprobs=(body.logprobs or 0) if _needs_prompt_logits(body) else None,
    )
    requests = [
        request for prompt in prompts for request in generation_requests(body, loaded, prompt.tokens, options)
    ]
    usage = Usage(sum(len(prompt.tokens) for prompt in prompts))
    return PreparedCompletion(body, prompts, requests, usage, loaded.tokenizer)


def _max_tokens(body: CompletionBody) -> int | None:
    """The requested length of each answer; None: as many tokens as fit the context."""
    if body.max_tokens is not None:
        return body.max_tokens
    if body.n_predict is None:
        return DEFAULT_MAX_TOKENS
    return None if body.n_predict < 0 else body.n_predict


def _tokenized_prompts(
    body: CompletionBody, loaded: LoadedGenerator, max_tokens: int | None
) -> list[CompletionPrompt]:
    last = prompt_tokens_to_keep(body.truncate_prompt_tokens, max_tokens, loaded.context)
    special = body.add_special_tokens is not False

    def tokenize(text: str, where: str) -> list[int]:
        return tokenize_prompt(text, loaded, where, special=special, last=last)

    prompts = token_lists(body.prompt, loaded.tokenizer, "prompt", tokenize)
    cut = prompts if last is None else [tokens[-last:] for tokens in prompts]
    return [CompletionPrompt(tokens, range(len(tokens))) for tokens in cut]


def _middle_form(loaded: LoadedGenerator) -> MiddleForm:
    if loaded.middle is None:
        raise BadRequest(
            "suffix is not supported by this model: its tokenizer has no marks for filling in the middle,"
            " such as <|fim_prefix|>, <|fim_suffix|> and <|fim_middle|>",
            param="suffix",
            code="unsupported",
        )
    return loaded.middle


def _prompts_with_suffix(
    body: CompletionBody, loaded: LoadedGenerator, max_tokens: int | None, middle: MiddleForm
) -> list[CompletionPrompt]:
    """The prompts in the form that asks for what is between them and the suffix. A prompt may be empty.

    Special tokens that prompts of token ids begin with come before the marks. truncate_prompt_tokens counts everything, and
    leaves the text next to the answer.
    """
    opening = loaded.tokenizer.opening
    special = opening if body.add_special_tokens is not False else []
    last = prompt_tokens_to_keep(body.truncate_prompt_tokens, max_tokens, loaded.context)
    room = None if last is None else last - len(opening) - middle.marks
    if room is not None and room < 1:
        raise BadRequest(
            f"truncate_prompt_tokens: {last} leaves no room for text beside the {len(opening) + middle.marks} tokens"
            " that mark prompt and suffix",
            param="truncate_prompt_tokens",
        )

    def tokenize(text: str, where: str) -> list[int]:
        return tokenize_prompt(text, loaded, where, special=False, last=room)

    suffix = tokenize_suffix(body.suffix or "", loaded, room)
    prompts = []
    for prefix in token_lists(body.prompt, loaded.tokenizer, "prompt", tokenize, may_be_empty=True):
        opened = bool(opening) and prefix[: len(opening)] == opening
        own = prefix[len(opening) :] if opened else prefix
        before, after = (len(own), len(suffix)) if room is None else kept(len(own), len(suffix), room)
        filled = middle.fill(opening if opened else special, own[len(own) - before :], suffix[:after])
        prompts.append(CompletionPrompt(filled.tokens, range(filled.prefix_at, filled.prefix_at + before)))
    return prompts


def _check(body: CompletionBody, loaded: LoadedGenerator) -> None:
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
