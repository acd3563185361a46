"""/v1/embeddings: texts or token ids in, vectors out."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Sequence
from typing import Any

from llmlaunch.worker.api.prompts import count, cut_to, token_lists
from llmlaunch.worker.api.protocol import EmbeddingBody
from llmlaunch.worker.api.service import Service
from llmlaunch.worker.errors import BadRequest, ContextOverflow
from llmlaunch.worker.loading.types import LoadedEmbedder
from llmlaunch.worker.tokenization.tokenizer import Tokenizer, TooLong

MOST_INPUTS = 2048


async def answer(body: EmbeddingBody, loaded: LoadedEmbedder, service: Service, size: int) -> dict[str, Any]:
    """The response to a body of ``size`` bytes. Tokenizes and computes in the embedder's thread. Raises ApiError."""
    width = loaded.embedder.size
    if body.dimensions is not None and body.dimensions > width:
        raise BadRequest(
            f"dimensions: {body.dimensions} is more than this model's {width}", param="dimensions"
        )
    with service.call():
        counts, vectors = await loaded.embedder.run(lambda: inputs(body, loaded), body.dimensions, size)
    total = sum(counts)
    service.metrics.embedded_tokens += total
    encode = _base64 if body.encoding_format == "base64" else list
    data = [
        {"object": "embedding", "index": index, "embedding": encode(vector)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": total, "total_tokens": total}
    return {"object": "list", "data": data, "model": body.model, "usage": usage}


def inputs(body: EmbeddingBody, loaded: LoadedEmbedder) -> list[list[int]]:
    """The inputs as token ids, with special tokens. Raises BadRequest, ContextOverflow."""
    embedder = loaded.embedder
    given: Any = body.input
    if embedder.lower_case:
        given = given.lower() if isinstance(given, str) else [_lower(item) for item in given]
    if (many := count(given)) > MOST_INPUTS:
        raise BadRequest(f"input: {many} inputs exceed the limit of {MOST_INPUTS} per call", param="input")
    most = cut_to(body, loaded.context)

    def read(text: str, where: str) -> list[int]:
        if most is not None:
            return loaded.tokenizer.encode_start(embedder.prefix + text, most)
        try:
            return loaded.tokenizer.encode(embedder.prefix + text, most=loaded.context)
        except TooLong as error:
            raise _overflow(where, error.tokens, loaded.context) from error

    found = token_lists(given, loaded.tokenizer, "input", read)
    return [_fitted(tokens, at, most, loaded.tokenizer, loaded.context) for at, tokens in enumerate(found)]


def _lower(item: Any) -> Any:
    return item.lower() if isinstance(item, str) else item


def _fitted(tokens: list[int], at: int, most: int | None, tokenizer: Tokenizer, context: int) -> list[int]:
    if len(tokens) <= (most or context):
        return tokens
    if most is None:
        raise _overflow(f"input[{at}]", str(len(tokens)), context)
    # A special token at the end ([SEP]) must stay there after truncation.
    tail = tokens[-1:] if most > 1 and tokens[-1] in tokenizer.special else []
    return tokens[: most - len(tail)] + tail


def _overflow(where: str, tokens: str, context: int) -> ContextOverflow:
    return ContextOverflow(
        f"{where} has {tokens} tokens, but this model's limit is {context}; pass truncate: true to truncate it",
        param="input",
    )


def _base64(vector: Sequence[float]) -> str:
    """Little-endian float32, as OpenAI's clients read it."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()
