"""Tokenizes prompts within the context of a model that generates text."""

from __future__ import annotations

from llmlaunch.worker.api.token_inputs import tokens_to_keep
from llmlaunch.worker.errors import ContextOverflow
from llmlaunch.worker.loading.types import LoadedGenerator
from llmlaunch.worker.tokenization.tokenizer import TooLong


def tokenize_prompt(
    text: str, loaded: LoadedGenerator, where: str, *, special: bool = True, last: int | None = None
) -> list[int]:
    """Return the tokens of ``text``, or only its ``last`` ones; ``special``: add the model's special tokens.

    Raises ContextOverflow as soon as it is clear that they exceed the context.
    """
    if last is not None:
        return loaded.tokenizer.encode_end(text, last, special=special)
    try:
        return loaded.tokenizer.encode(text, special=special, most=loaded.context)
    except TooLong as error:
        raise _too_long(loaded, where, error) from error


def tokenize_suffix(text: str, loaded: LoadedGenerator, first: int | None = None) -> list[int]:
    """Return the tokens of what comes after the answer, or only its ``first`` ones. Raises ContextOverflow in the same way."""
    if first is not None:
        return loaded.tokenizer.encode_within(loaded.tokenizer.prefix(text, first))[:first]
    try:
        return loaded.tokenizer.encode_within(text, most=loaded.context)
    except TooLong as error:
        raise _too_long(loaded, "suffix", error) from error


def _too_long(loaded: LoadedGenerator, where: str, error: TooLong) -> ContextOverflow:
    excess = f"your {where} resulted in {error.tokens} tokens"
    return ContextOverflow.of(loaded.context, excess, where.split("[")[0])


def prompt_tokens_to_keep(requested: int | None, max_tokens: int | None, context: int) -> int | None:
    """Return how many of a prompt's last tokens truncate_prompt_tokens (``requested``) keeps.

    ``max_tokens``: the requested length of the answer; -1 leaves room for it. None: the prompt is not truncated.
    Raises BadRequest.
    """
    if requested is None:
        return None
    if requested == -1:
        return max(1, context - (1 if max_tokens is None else max_tokens))
    return tokens_to_keep(requested, context)
