"""Loading a cross-encoder, which scores how well a document answers a query."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from transformers import AutoModelForSequenceClassification

from llmlaunch.models.facts import ModelFacts
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.engine.reranker import Reranker
from llmlaunch.worker.errors import OnDeviceLost, StartupError
from llmlaunch.worker.loading import dtype
from llmlaunch.worker.loading.types import LoadedReranker, ReportProgress
from llmlaunch.worker.loading.weights import DEFAULT_CONTEXT, load_encoder

log = logging.getLogger(__name__)


def load(
    config: WorkerConfig,
    facts: ModelFacts,
    path: Path,
    device: str,
    progress: ReportProgress,
    lost: OnDeviceLost,
) -> LoadedReranker:
    """Load the cross-encoder in ``path`` onto ``device``. Raises StartupError if it has more than one label."""
    began = time.perf_counter()
    tokenizer, model, why = load_encoder(
        AutoModelForSequenceClassification, facts, path, config, device, progress
    )
    if model.config.num_labels != 1:
        raise StartupError(
            f"{config.model} has {model.config.num_labels} labels; a reranker must have exactly one",
            hint="choose a cross-encoder with a single label",
        )
    own = getattr(model.config.get_text_config(), "max_position_embeddings", None) or DEFAULT_CONTEXT
    context = min(value for value in (own, config.max_model_len) if value)
    name = dtype.name_of(model.dtype)
    log.info("loaded %s in %.1f s: %s on %s, rerank", config.model, time.perf_counter() - began, name, device)
    return LoadedReranker(
        facts=facts,
        tokenizer=tokenizer,
        context=context,
        dtype=name,
        dtype_reason=why,
        device=device,
        reranker=Reranker(model, lost),
        mode="batched pairs",
    )
