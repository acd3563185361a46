"""/v1/rerank (as Jina and Cohere have it) and /v1/score (as vLLM has it)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmlaunch.worker.codec import Pair
from llmlaunch.worker.errors import BadRequest, ContextOverflow
from llmlaunch.worker.front import Front
from llmlaunch.worker.loader import Loaded
from llmlaunch.worker.prompts import cut_to, new_id
from llmlaunch.worker.protocol import RerankBody, ScoreBody

MOST_PAIRS = 2048


async def rerank(body: RerankBody, loaded: Loaded, front: Front) -> dict[str, Any]:
    """Documents in the order of their scores, best first. Raises ApiError."""
    texts = [_text(document, index) for index, document in enumerate(body.documents)]
    pairs = [(body.query, text) for text in texts]
    total, scores = await _scores(pairs, loaded, front, most=cut_to(body, loaded.context), param="documents")
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[: body.top_n]
    results: list[dict[str, Any]] = []
    for index in order:
        document = {} if body.return_documents is False else {"document": {"text": texts[index]}}
        results.append({"index": index, "relevance_score": scores[index]} | document)
    usage = {"prompt_tokens": total, "total_tokens": total}
    return {"id": new_id("rerank"), "model": body.model, "usage": usage, "results": results}


async def score(body: ScoreBody, loaded: Loaded, front: Front) -> dict[str, Any]:
    """One score for each pair: one text against many, or text by text. Raises ApiError."""
    left = [body.text_1] if isinstance(body.text_1, str) else body.text_1
    right = [body.text_2] if isinstance(body.text_2, str) else body.text_2
    if len(left) == 1:
        left = left * len(right)
    if len(left) != len(right):
        raise BadRequest(f"text_1 has {len(left)} texts, text_2 has {len(right)}", param="text_2")
    pairs = list(zip(left, right, strict=True))
    total, scores = await _scores(pairs, loaded, front, most=cut_to(body, loaded.context), param="text_2")
    data = [{"index": index, "object": "score", "score": value} for index, value in enumerate(scores)]
    usage = {"prompt_tokens": total, "total_tokens": total}
    return {"id": new_id("score"), "object": "list", "model": body.model, "data": data, "usage": usage}


def _text(document: Any, index: int) -> str:
    text = document.get("text") if isinstance(document, dict) else document
    if not isinstance(text, str):
        raise BadRequest(
            f"documents[{index}] should be a string, or an object with a text", param="documents"
        )
    return text


async def _scores(
    texts: Sequence[tuple[str, str]], loaded: Loaded, front: Front, *, most: int | None, param: str
) -> tuple[int, list[float]]:
    if len(texts) > MOST_PAIRS:
        raise BadRequest(f"{param}: {len(texts)} are more than the {MOST_PAIRS} of one call", param=param)

    def pairs() -> list[Pair]:
        found = []
        for index, (left, right) in enumerate(texts):
            pair = loaded.codec.encode_pair(left, right, most)
            if most is not None and len(pair.tokens) > most:  # the tokenizer cuts only what it can
                raise BadRequest(
                    f"truncate_prompt_tokens: {most} leaves no room for the texts beside the model's own tokens",
                    param="truncate_prompt_tokens",
                )
            if len(pair.tokens) > loaded.context:
                raise ContextOverflow(
                    f"{param}[{index}] makes {len(pair.tokens)} tokens with what it is compared to, this model "
                    f"takes {loaded.context}; pass truncate: true to cut it",
                    param=param,
                )
            found.append(pair)
        return found

    with front.call():
        counts, scores = await loaded.reranker.run(pairs)
    front.metrics.embedded_tokens += sum(counts)
    return sum(counts), scores
