"""/v1/embeddings: texts or token ids in, vectors out."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from llmlaunch.worker.api.protocol import TEXT_INPUT, TruncatableBody, Whole
from llmlaunch.worker.api.service import Service
from llmlaunch.worker.api.token_inputs import input_count, token_lists, truncation_limit
from llmlaunch.worker.errors import BadRequest, ContextOverflow
from llmlaunch.worker.loading.types import LoadedEmbedder
from llmlaunch.worker.tokenization.tokenizer import Tokenizer, TooLong

MAX_INPUTS = 2048


class EmbeddingBody(TruncatableBody):
    """The body of OpenAI's POST /v1/embeddings."""

    unions: ClassVar = {"input": TEXT_INPUT}

    model: str
    input: str | list[int] | list[str] | list[list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Whole | None = Field(None, ge=1)
    user: str | None = None


class NamedEmbeddingBody(EmbeddingBody):
    """The body of OpenAI's old POST /v1/engines/NAME/embeddings, whose path names the model."""

    model: str = ""


async def answer(body: EmbeddingBody, loaded: LoadedEmbedder, service: Service, size: int) -> dict[str, Any]:
    """Return the response to a body of ``size`` bytes. Tokenizes and computes in the embedder's thread. Raises ApiError."""
    width = loaded.embedder.size
    if body.dimensions is not None and body.dimensions > width:
        raise BadRequest(
            f"dimensions: {body.dimensions} is more than this model's {width}", param="dimensions"
        )
    with service.request():
        counts, vectors = await loaded.embedder.run(
            lambda: tokenized_inputs(body, loaded), body.dimensions, size
        )
    total = sum(counts)
    service.metrics.embedded_tokens += total
    encode = _base64 if body.encoding_format == "base64" else list
    data = [
        {"object": "embedding", "index": index, "embedding": encode(vector)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": total, "total_tokens": total}
    return {"object": "list", "data": data, "model": body.model, "usage": usage}


def tokenized_inputs(body: EmbeddingBody, loaded: LoadedEmbedder) -> list[list[int]]:
    """Return the inputs as token ids, with special tokens. Raises BadRequest, ContextOverflow."""
    embedder = loaded.embedder
    given: Any = body.input
    if embedder.lower_case:
        given = given.lower() if isinstance(given, str) else [_lower(item) for item in given]
    if (many := input_count(given)) > MAX_INPUTS:
        raise BadRequest(f"input: {many} inputs exceed the limit of {MAX_INPUTS} per call", param="input")
    limit = truncation_limit(body, loaded.context)

    def tokenize(text: str, where: str) -> list[int]:
        if limit is not None:
            return loaded.tokenizer.encode_start(embedder.prefix + text, limit)
        try:
            return loaded.tokenizer.encode(embedder.prefix + text, most=loaded.context)
        except TooLong as error:
            raise _overflow(where, error.tokens, loaded.context) from error

    found = token_lists(given, loaded.tokenizer, "input", tokenize)
    return [
        _truncated(tokens, at, limit, loaded.tokenizer, loaded.context) for at, tokens in enumerate(found)
    ]


def _lower(item: Any) -> Any:
    return item.lower() if isinstance(item, str) else item


def _truncated(
    tokens: list[int], at: int, limit: int | None, tokenizer: Tokenizer, context: int
) -> list[int]:
    if len(tokens) <= (limit or context):
        return tokens
    if limit is None:
        raise _overflow(f"input[{at}]", str(len(tokens)), context)
    # A special token at the end ([SEP]) must stay there after truncation.
    tail = tokens[-1:] if limit > 1 and tokens[-1] in tokenizer.special else []
    return tokens[: limit - len(tail)] + tail


def _overflow(where: str, tokens: str, context: int) -> ContextOverflow:
    excess = f"{where} has {tokens} tokens; pass truncate: true to truncate it"
    return ContextOverflow.of(context, excess, "input")


def _base64(vector: Sequence[float]) -> str:
    """Little-endian float32, as OpenAI's clients read it."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()
