"""/v1/rerank (as in Jina's and Cohere's APIs) and /v1/score (as in vLLM)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from llmlaunch.worker.api.ids import new_id
from llmlaunch.worker.api.protocol import TruncatableBody, Whole
from llmlaunch.worker.api.service import Service
from llmlaunch.worker.api.token_inputs import truncation_limit
from llmlaunch.worker.background import check_abandoned
from llmlaunch.worker.errors import BadRequest, ContextOverflow
from llmlaunch.worker.loading.types import LoadedReranker
from llmlaunch.worker.tokenization.tokenizer import Pair

MAX_PAIRS = 2048


class RerankBody(TruncatableBody):
    """The body of Jina's and Cohere's POST /v1/rerank."""

    unions: ClassVar = {"documents": "a list of strings, or of objects with a text"}

    model: str
    query: str = Field(min_length=1)
    documents: list[str | dict[str, Any]] = Field(min_length=1)
    top_n: Whole | None = Field(None, ge=1)
    return_documents: bool | None = None


class ScoreBody(TruncatableBody):
    """The body of vLLM's POST /v1/score."""

    unions: ClassVar = dict.fromkeys(("text_1", "text_2"), "a string or a list of strings")

    model: str
    text_1: str | Annotated[list[str], Field(min_length=1)]
    text_2: str | Annotated[list[str], Field(min_length=1)]


async def rerank(body: RerankBody, loaded: LoadedReranker, service: Service, size: int) -> dict[str, Any]:
    """Return the documents sorted by score, best first; ``size``: bytes of the body. Raises ApiError."""
    texts = [_text(document, index) for index, document in enumerate(body.documents)]
    pairs = [(body.query, text) for text in texts]
    total, scores = await _scores(
        TextPairs(pairs, truncation_limit(body, loaded.context), "documents", size), loaded, service
    )
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[: body.top_n]
    results: list[dict[str, Any]] = []
    for index in order:
        document = {} if body.return_documents is False else {"document": {"text": texts[index]}}
        results.append({"index": index, "relevance_score": scores[index]} | document)
    usage = {"prompt_tokens": total, "total_tokens": total}
    return {"id": new_id("rerank"), "model": body.model, "usage": usage, "results": results}


async def score(body: ScoreBody, loaded: LoadedReranker, service: Service, size: int) -> dict[str, Any]:
    """Return a score for each pair: one text with many, or pairwise; ``size``: bytes of the body. Raises ApiError."""
    left = [body.text_1] if isinstance(body.text_1, str) else body.text_1
    right = [body.text_2] if isinstance(body.text_2, str) else body.text_2
    if len(left) == 1:
        left = left * len(right)
    if len(left) != len(right):
        raise BadRequest(f"text_1 has {len(left)} texts, but text_2 has {len(right)}", param="text_2")
    pairs = list(zip(left, right, strict=True))
    total, scores = await _scores(
        TextPairs(pairs, truncation_limit(body, loaded.context), "text_2", size), loaded, service
    )
    data = [{"index": index, "object": "score", "score": value} for index, value in enumerate(scores)]
    usage = {"prompt_tokens": total, "total_tokens": total}
    return {"id": new_id("score"), "object": "list", "model": body.model, "data": data, "usage": usage}


def _text(document: Any, index: int) -> str:
    text = document.get("text") if isinstance(document, dict) else document
    if not isinstance(text, str):
        raise BadRequest(f"documents[{index}] must be a string, or an object with a text", param="documents")
    return text


@dataclass(frozen=True, slots=True)
class TextPairs:
    """Pairs of texts to score, and how they may be truncated."""

    texts: Sequence[tuple[str, str]]
    limit: int | None
    """Tokens that a pair is truncated to; None: longer pairs are refused."""
    param: str
    size: int
    """Bytes of the body."""


async def _scores(pairs: TextPairs, loaded: LoadedReranker, service: Service) -> tuple[int, list[float]]:
    if len(pairs.texts) > MAX_PAIRS:
        raise BadRequest(
            f"{pairs.param}: {len(pairs.texts)} pairs exceed the limit of {MAX_PAIRS} per call",
            param=pairs.param,
        )
    with service.request():
        counts, scores = await loaded.reranker.run(lambda: tokenized_pairs(pairs, loaded), pairs.size)
    service.metrics.embedded_tokens += sum(counts)
    return sum(counts), scores


def tokenized_pairs(pairs: TextPairs, loaded: LoadedReranker) -> list[Pair]:
    """Return all pairs as token ids. Raises BadRequest, ContextOverflow."""
    limit = (pairs.limit or loaded.context) + 1
    beginnings: dict[str, str] = {}  # one text is often compared with many
    found = []
    for index, texts in enumerate(pairs.texts):
        check_abandoned()
        for text in texts:
            if text not in beginnings:
                beginnings[text] = loaded.tokenizer.prefix(text, limit)
        pair = loaded.tokenizer.encode_pair(beginnings[texts[0]], beginnings[texts[1]], pairs.limit)
        # The tokenizer never drops special tokens.
        if pairs.limit is not None and len(pair.tokens) > pairs.limit:
            raise BadRequest(
                f"truncate_prompt_tokens: {pairs.limit} leaves no room for the texts next to the special tokens",
                param="truncate_prompt_tokens",
            )
        if len(pair.tokens) > loaded.context:
            whole = all(len(beginnings[text]) == len(text) for text in texts)
            count = f"{'' if whole else 'more than '}{len(pair.tokens)}"
            excess = f"{pairs.param}[{index}] and the text it is compared with have {count} tokens; pass truncate: true to truncate them"
            raise ContextOverflow.of(loaded.context, excess, pairs.param)
        found.append(pair)
    return found
