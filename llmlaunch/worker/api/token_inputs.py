"""Prompts and inputs as token ids, in all the forms that clients may send, and how far they are truncated. Errors name the parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from llmlaunch.worker.api.protocol import TruncatableBody
from llmlaunch.worker.errors import BadRequest
from llmlaunch.worker.tokenization.tokenizer import Tokenizer

TextInput = str | list[int] | list[str] | list[list[int]]
"""A text, token ids, or a list of either."""


def token_lists(
    given: TextInput,
    tokenizer: Tokenizer,
    param: str,
    tokenize: Callable[[str, str], list[int]],
    *,
    may_be_empty: bool = False,
) -> list[list[int]]:
    """Return each prompt or input in ``given`` as token ids.

    ``tokenize`` takes a text, and its name for messages. Raises BadRequest for invalid token ids, and for empty texts
    unless they ``may_be_empty``.
    """
    if not isinstance(given, str) and given and isinstance(given[0], int):
        return [valid_tokens(cast(Sequence[int], given), tokenizer, param)]
    found = []
    for at, item in enumerate([given] if isinstance(given, str) else given):
        where = param if isinstance(given, str) else f"{param}[{at}]"
        if not item and not may_be_empty:
            raise BadRequest(f"{where} is empty", param=param)
        ids = (
            tokenize(item, where)
            if isinstance(item, str)
            else valid_tokens(cast(list[int], item), tokenizer, where)
        )
        if not ids and not may_be_empty:
            raise BadRequest(f"{where} has no tokens", param=param)
        found.append(ids)
    if not found:
        raise BadRequest(f"{param} is empty", param=param)
    return found


def input_count(given: TextInput) -> int:
    """Return the number of prompts or inputs in ``given``."""
    return 1 if isinstance(given, str) or (given and isinstance(given[0], int)) else len(given)


def valid_tokens(ids: Sequence[int], tokenizer: Tokenizer, where: str) -> list[int]:
    """Return ``ids`` as a list. Raises BadRequest if one is not a token id of the model."""
    if ids:
        for token in (min(ids), max(ids)):  # there may be millions
            if not 0 <= token < tokenizer.vocabulary:
                raise BadRequest(
                    f"{where}: {token} is not a token id of this model, which has {tokenizer.vocabulary} tokens",
                    param=where.split("[")[0],
                )
    return list(ids)


def truncation_limit(body: TruncatableBody, context: int) -> int | None:
    """Return the number of tokens that texts are truncated to; None if longer texts are refused. Raises BadRequest."""
    if body.truncate_prompt_tokens is not None:
        return tokens_to_keep(body.truncate_prompt_tokens, context)
    return context if body.truncate else None


def tokens_to_keep(requested: int, context: int) -> int:
    """Return what truncate_prompt_tokens means for a model with ``context`` tokens of context. Raises BadRequest."""
    if requested == 0 or requested > context:
        raise BadRequest(
            f"truncate_prompt_tokens: {requested} is neither -1 nor between 1 and this model's context of {context} tokens",
            param="truncate_prompt_tokens",
        )
    return context if requested == -1 else requested
