"""Loading and running a cross-encoder: how well a document answers a query."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from llmlaunch.models.facts import ModelFacts, ModelKind
from llmlaunch.worker.compute import onednn_weights
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.engine.batch_inference import Passes, batches
from llmlaunch.worker.errors import CanNotServe, Lost
from llmlaunch.worker.loading import placement, quantised
from llmlaunch.worker.loading.generator import counted
from llmlaunch.worker.loading.loader import DEFAULT_CONTEXT, Loaded, Progress
from llmlaunch.worker.tokenization.tokenizer import Codec, Pair

log = logging.getLogger(__name__)

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "torch.nn.modules.activation.Sigmoid": torch.sigmoid,
    "torch.nn.modules.linear.Identity": lambda scores: scores,
}


def load(
    config: WorkerConfig, facts: ModelFacts, path: Path, device: str, progress: Progress, lost: Lost
) -> Loaded:
    """The cross-encoder in ``path`` on ``device``. Raises CanNotServe for one that gives several scores a pair."""
    began = time.perf_counter()
    codec = Codec(AutoTokenizer.from_pretrained(path, trust_remote_code=config.trust_remote_code))
    dtype: Any = "auto" if config.dtype == "auto" else getattr(torch, config.dtype)
    with counted(path, progress):
        model = AutoModelForSequenceClassification.from_pretrained(
            path,
            dtype=dtype,
            trust_remote_code=config.trust_remote_code,
            **placement.device_map(device, config),
            **quantised.packing(config, device),
        ).eval()
    if onednn_weights.pays(model, last_bits=False):
        onednn_weights.pack(model, model.dtype)
    if model.config.num_labels != 1:
        raise CanNotServe(
            f"{config.model} tells {model.config.num_labels} classes apart; a reranker gives one score",
            hint="choose a cross-encoder with one label",
        )
    own = getattr(model.config.get_text_config(), "max_position_embeddings", None) or DEFAULT_CONTEXT
    context = min(value for value in (own, config.max_model_len) if value)
    name = str(model.dtype).removeprefix("torch.")
    log.info("loaded %s in %.1f s: %s on %s, rerank", config.model, time.perf_counter() - began, name, device)
    return Loaded(
        facts=facts,
        kind=ModelKind.RERANK,
        codec=codec,
        context=context,
        dtype=name,
        device=device,
        reranker=Reranker(model, lost),
        mode="batched pairs",
    )


class Reranker:
    """Scores of pairs of texts."""

    def __init__(self, model: Any, lost: Lost) -> None:
        self.passes = Passes(model, lost)
        self._activation = _activation(model.config)

    async def run(self, pairs: Callable[[], list[Pair]], size: int = 0) -> tuple[list[int], list[float]]:
        """Token counts and scores of the pairs that ``pairs`` returns, in its order; ``size``: bytes of the request.

        Raises ApiError.
        """

        def work() -> tuple[list[int], list[float]]:
            found = pairs()
            return [len(pair.tokens) for pair in found], self.score(found)

        return await self.passes.run(work, size)

    @torch.inference_mode()
    def score(self, pairs: Sequence[Pair]) -> list[float]:
        scores = [0.0] * len(pairs)
        for batch in batches([len(pair.tokens) for pair in pairs]):
            chosen = [pairs[index] for index in batch]
            types = [pair.types for pair in chosen] if chosen[0].types else None
            out, _ = self.passes.through([pair.tokens for pair in chosen], types)
            for index, score in zip(batch, self._activation(out.logits[:, 0].float()).tolist(), strict=True):
                scores[index] = score
        return scores


def _activation(config: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """What sentence-transformers' settings name; by default the sigmoid, as its CrossEncoder has it."""
    own = getattr(config, "sentence_transformers", None) or {}
    name = own.get("activation_fn") or getattr(config, "sbert_ce_default_activation_function", None)
    if name is None:
        return torch.sigmoid
    if name not in ACTIVATIONS:
        raise CanNotServe(f"the cross-encoder's activation {name!r} is not supported")
    return ACTIVATIONS[name]
