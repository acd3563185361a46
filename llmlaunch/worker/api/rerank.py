"""/v1/rerank (as Jina and Cohere have it) and /v1/score (as vLLM has it)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmlaunch.worker.api.prompts import cut_to, new_id
from llmlaunch.worker.api.protocol import RerankBody, ScoreBody
from llmlaunch.worker.api.service import Front
from llmlaunch.worker.errors import BadRequest, ContextOverflow
from llmlaunch.worker.loading.loader import Loaded
from llmlaunch.worker.tokenization.threads import go_on
from llmlaunch.worker.tokenization.tokenizer import Pair

MOST_PAIRS = 2048


async def rerank(body: RerankBody, loaded: Loaded, front: Front, size: int) -> dict[str, Any]:
    """Documents in the order of their scores, best first; ``size``: bytes of the body. Raises ApiError."""
    texts = [_text(document, index) for index, document in enumerate(body.documents)]
    pairs = [(body.query, text) for text in texts]
    asked = Asked(pairs, cut_to(body, loaded.context), "documents", size)
    total, scores = await _scores(asked, loaded, front)
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[: body.top_n]
    results: list[dict[str, Any]] = []
    for index in order:
        document = {} if body.return_documents is False else {"document": {"text": texts[index]}}
        results.append({"index": index, "relevance_score": scores[index]} | document)
    usage = {"prompt_tokens": total, "total_tokens": total}
    return {"id": new_id("rerank"), "model": body.model, "usage": usage, "results": results}


async def score(body: ScoreBody, loaded: Loaded, front: Front, size: int) -> dict[str, Any]:
    """One score for each pair: one text against many, or text by text; ``size``: bytes of the body. Raises ApiError."""
    left = [body.text_1] if isinstance(body.text_1, str) else body.text_1
    right = [body.text_2] if isinstance(body.text_2, str) else body.text_2
    if len(left) == 1:
        left = left * len(right)
    if len(left) != len(right):
        raise BadRequest(f"text_1 has {len(left)} texts, text_2 has {len(right)}", param="text_2")
    pairs = list(zip(left, right, strict=True))
    total, scores = await _scores(Asked(pairs, cut_to(body, loaded.context), "text_2", size), loaded, front)
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


@dataclass(frozen=True, slots=True)
class Asked:
    """Texts to compare, and how they may be cut."""

    texts: Sequence[tuple[str, str]]
    most: int | None
    """Tokens that a pair is cut to; None: one that is too long is refused."""
    param: str
    size: int
    """Bytes of the body."""


async def _scores(asked: Asked, loaded: Loaded, front: Front) -> tuple[int, list[float]]:
    if len(asked.texts) > MOST_PAIRS:
        raise BadRequest(
            f"{asked.param}: {len(asked.texts)} are more than the {MOST_PAIRS} of one call", param=asked.param
        )
    with front.call():
        counts, scores = await loaded.reranker.run(lambda: tokenized(asked, loaded), asked.size)
    front.metrics.embedded_tokens += sum(counts)
    return sum(counts), scores


def tokenized(asked: Asked, loaded: Loaded) -> list[Pair]:
    """All pairs in tokens. Raises BadRequest, ContextOverflow with the counts."""
    limit = (asked.most or loaded.context) + 1
    shorter: dict[str, str] = {}  # one text is often compared to many
    found = []
    for index, texts in enumerate(asked.texts):
        go_on()
        for text in texts:
            if text not in shorter:
                shorter[text] = loaded.codec.start(text, limit)
        pair = loaded.codec.encode_pair(shorter[texts[0]], shorter[texts[1]], asked.most)
        if asked.most is not None and len(pair.tokens) > asked.most:  # the tokenizer cuts only what it can
            raise BadRequest(
                f"truncate_prompt_tokens: {asked.most} leaves no room for the texts beside the model's own tokens",
                param="truncate_prompt_tokens",
            )
        if len(pair.tokens) > loaded.context:
            whole = all(len(shorter[text]) == len(text) for text in texts)
            raise ContextOverflow(
                f"{asked.param}[{index}] makes {'' if whole else 'more than '}{len(pair.tokens)} tokens with what it "
                f"is compared to, this model takes {loaded.context}; pass truncate: true to cut it",
                param=asked.param,
            )
        found.append(pair)
    return found
