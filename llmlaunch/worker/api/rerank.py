"""/v1/rerank (as in Jina's and Cohere's APIs) and /v1/score (as in vLLM)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmlaunch.worker.api.prompts import cut_to, new_id
from llmlaunch.worker.api.protocol import RerankBody, ScoreBody
from llmlaunch.worker.api.service import Service
from llmlaunch.worker.background import check_abandoned
from llmlaunch.worker.errors import BadRequest, ContextOverflow
from llmlaunch.worker.loading.types import LoadedReranker
from llmlaunch.worker.tokenization.tokenizer import Pair

MOST_PAIRS = 2048


async def rerank(body: RerankBody, loaded: LoadedReranker, service: Service, size: int) -> dict[str, Any]:
    """Documents sorted by score, best first; ``size``: bytes of the body. Raises ApiError."""
    texts = [_text(document, index) for index, document in enumerate(body.documents)]
    pairs = [(body.query, text) for text in texts]
    asked = TextPairs(pairs, cut_to(body, loaded.context), "documents", size)
    total, scores = await _scores(asked, loaded, service)
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[: body.top_n]
    results: list[dict[str, Any]] = []
    for index in order:
        document = {} if body.return_documents is False else {"document": {"text": texts[index]}}
        results.append({"index": index, "relevance_score": scores[index]} | document)
    usage = {"prompt_tokens": total, "total_tokens": total}
    return {"id": new_id("rerank"), "model": body.model, "usage": usage, "results": results}


async def score(body: ScoreBody, loaded: LoadedReranker, service: Service, size: int) -> dict[str, Any]:
    """A score for each pair: one text with many, or pairwise; ``size``: bytes of the body. Raises ApiError."""
    left = [body.text_1] if isinstance(body.text_1, str) else body.text_1
    right = [body.text_2] if isinstance(body.text_2, str) else body.text_2
    if len(left) == 1:
        left = left * len(right)
    if len(left) != len(right):
        raise BadRequest(f"text_1 has {len(left)} texts, but text_2 has {len(right)}", param="text_2")
    pairs = list(zip(left, right, strict=True))
    total, scores = await _scores(
        TextPairs(pairs, cut_to(body, loaded.context), "text_2", size), loaded, service
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
    most: int | None
    """Tokens that a pair is truncated to; None: longer pairs are refused."""
    param: str
    size: int
    """Bytes of the body."""


async def _scores(asked: TextPairs, loaded: LoadedReranker, service: Service) -> tuple[int, list[float]]:
    if len(asked.texts) > MOST_PAIRS:
        raise BadRequest(
            f"{asked.param}: {len(asked.texts)} pairs exceed the limit of {MOST_PAIRS} per call",
            param=asked.param,
        )
    with service.call():
        counts, scores = await loaded.reranker.run(lambda: tokenized(asked, loaded), asked.size)
    service.metrics.embedded_tokens += sum(counts)
    return sum(counts), scores


def tokenized(asked: TextPairs, loaded: LoadedReranker) -> list[Pair]:
    """All pairs as token ids. Raises BadRequest, ContextOverflow."""
    limit = (asked.most or loaded.context) + 1
    shorter: dict[str, str] = {}  # one text is often compared with many
    found = []
    for index, texts in enumerate(asked.texts):
        check_abandoned()
        for text in texts:
            if text not in shorter:
                shorter[text] = loaded.tokenizer.start(text, limit)
        pair = loaded.tokenizer.encode_pair(shorter[texts[0]], shorter[texts[1]], asked.most)
        if (
            asked.most is not None and len(pair.tokens) > asked.most
        ):  # the tokenizer never drops special tokens
            raise BadRequest(
                f"truncate_prompt_tokens: {asked.most} leaves no room for the texts next to the special tokens",
                param="truncate_prompt_tokens",
            )
        if len(pair.tokens) > loaded.context:
            whole = all(len(shorter[text]) == len(text) for text in texts)
            raise ContextOverflow(
                f"{asked.param}[{index}] and the text it is compared with have {'' if whole else 'more than '}"
                f"{len(pair.tokens)} tokens, but this model's limit is {loaded.context}; pass truncate: true to truncate them",
                param=asked.param,
            )
        found.append(pair)
    return found
