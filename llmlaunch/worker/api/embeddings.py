"""/v1/embeddings: texts or token ids in, vectors out."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Sequence
from typing import Any

from llmlaunch.worker.api.prompts import count, cut_to, token_lists
from llmlaunch.worker.api.protocol import EmbeddingBody
from llmlaunch.worker.api.service import Front
from llmlaunch.worker.errors import BadRequest, ContextOverflow
from llmlaunch.worker.loading.loader import Loaded
from llmlaunch.worker.tokenization.tokenizer import Codec, TooLong

MOST_INPUTS = 2048


async def answer(body: EmbeddingBody, loaded: Loaded, front: Front, size: int) -> dict[str, Any]:
    """The response object to a body of ``size`` bytes. Tokenizing and computing happen in the embedder's thread. Raises ApiError."""
    width = loaded.embedder.size
    if body.dimensions is not None and body.dimensions > width:
        raise BadRequest(
            f"dimensions: {body.dimensions} is more than the {width} this model has", param="dimensions"
        )
    with front.call():
        counts, vectors = await loaded.embedder.run(lambda: inputs(body, loaded), body.dimensions, size)
    total = sum(counts)
    front.metrics.embedded_tokens += total
    encode = _base64 if body.encoding_format == "base64" else list
    data = [
        {"object": "embedding", "index": index, "embedding": encode(vector)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": total, "total_tokens": total}
    return {"object": "list", "data": data, "model": body.model, "usage": usage}


def inputs(body: EmbeddingBody, loaded: Loaded) -> list[list[int]]:
    """The inputs in tokens, with the model's own special ones. Raises BadRequest, ContextOverflow with the counts."""
    embedder = loaded.embedder
    given: Any = body.input
    if embedder.lower_case:
        given = given.lower() if isinstance(given, str) else [_lower(item) for item in given]
    if (many := count(given)) > MOST_INPUTS:
        raise BadRequest(f"input: {many} are more than the {MOST_INPUTS} of one call", param="input")
    most = cut_to(body, loaded.context)

    def read(text: str, where: str) -> list[int]:
        if most is not None:
            return loaded.codec.encode_start(embedder.prefix + text, most)
        try:
            return loaded.codec.encode(embedder.prefix + text, most=loaded.context)
        except TooLong as error:
            raise _overflow(where, error.tokens, loaded.context) from error

    found = token_lists(given, loaded.codec, "input", read)
    return [_fitted(tokens, at, most, loaded.codec, loaded.context) for at, tokens in enumerate(found)]


def _lower(item: Any) -> Any:
    return item.lower() if isinstance(item, str) else item


def _fitted(tokens: list[int], at: int, most: int | None, codec: Codec, context: int) -> list[int]:
    if len(tokens) <= (most or context):
        return tokens
    if most is None:
        raise _overflow(f"input[{at}]", str(len(tokens)), context)
    # What the tokenizer puts at the end ([SEP]) belongs there after cutting, too.
    tail = tokens[-1:] if most > 1 and tokens[-1] in codec.special else []
    return tokens[: most - len(tail)] + tail


def _overflow(where: str, tokens: str, context: int) -> ContextOverflow:
    return ContextOverflow(
        f"{where} has {tokens} tokens, this model takes {context}; pass truncate: true to cut it",
        param="input",
    )


def _base64(vector: Sequence[float]) -> str:
    """Little-endian float32, as OpenAI's clients read it."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()
