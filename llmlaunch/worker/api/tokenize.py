"""/tokenize and /detokenize (as in vLLM), /count_token and /api/v1/token_check (as in FastChat)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from pydantic import Field

from llmlaunch.worker.api.chat.messages import plain_messages
from llmlaunch.worker.api.chat.protocol import CONTENT, Message
from llmlaunch.worker.api.protocol import RequestBody, Whole
from llmlaunch.worker.api.token_inputs import valid_tokens
from llmlaunch.worker.errors import BadRequest
from llmlaunch.worker.loading.types import Loaded


class TokenizeBody(RequestBody):
    """The body of vLLM's POST /tokenize: a prompt or messages."""

    unions: ClassVar = {"messages.content": CONTENT}

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None


class DetokenizeBody(RequestBody):
    """The body of vLLM's POST /detokenize."""

    model: str | None = None
    tokens: list[int]


class CountBody(RequestBody):
    """The body of FastChat's POST /count_token."""

    model: str | None = None
    prompt: str


class TokenCheck(RequestBody):
    """One prompt of FastChat's POST /api/v1/token_check."""

    model: str
    prompt: str
    max_tokens: Whole = Field(0, ge=0)


class TokenCheckBody(RequestBody):
    """The body of FastChat's POST /api/v1/token_check."""

    prompts: list[TokenCheck] = Field(min_length=1)


def check_tokenize(body: TokenizeBody) -> None:
    """Raises BadRequest unless ``body`` has either a prompt or messages."""
    if (body.prompt is None) == (body.messages is None):
        raise BadRequest("exactly one of prompt and messages is required", param="prompt")


def tokenize(body: TokenizeBody, loaded: Loaded) -> bytes:
    """Return the response to /tokenize as JSON. Raises BadRequest."""
    if body.prompt is not None:
        tokens = loaded.tokenizer.encode_chunks(body.prompt, special=body.add_special_tokens is not False)
    else:
        text = loaded.tokenizer.render(
            plain_messages(body.messages or []),
            add_generation_prompt=body.add_generation_prompt is not False,
        )
        tokens = loaded.tokenizer.encode_chunks(text, special=False)
    return _token_report(tokens, loaded.context)


def _token_report(pieces: Iterable[list[int]], context: int) -> bytes:
    """JSON, written piece by piece: there may be millions of tokens."""
    count, written = 0, []
    for piece in pieces:
        count += len(piece)
        written.append(",".join(map(str, piece)))
    tokens = ",".join(filter(None, written))
    return f'{{"count":{count},"max_model_len":{context},"tokens":[{tokens}]}}'.encode()


def detokenize(body: DetokenizeBody, loaded: Loaded) -> dict[str, Any]:
    """Return the response to /detokenize. Raises BadRequest."""
    tokens = valid_tokens(body.tokens, loaded.tokenizer, "tokens")
    return {"prompt": loaded.tokenizer.decode(tokens, skip_special=False)}


def count_tokens(body: CountBody, loaded: Loaded) -> dict[str, Any]:
    """Return the response to /count_token."""
    return {"count": loaded.tokenizer.count(body.prompt), "error_code": 0}


def check_lengths(body: TokenCheckBody, loaded: Loaded) -> dict[str, Any]:
    """Return the response to /api/v1/token_check: whether each prompt and its answer fit the context."""
    counts = [loaded.tokenizer.count(item.prompt) for item in body.prompts]
    checked = [
        {
            "fits": count + item.max_tokens <= loaded.context,
            "tokenCount": count,
            "contextLength": loaded.context,
        }
        for item, count in zip(body.prompts, counts, strict=True)
    ]
    return {"prompts": checked}
