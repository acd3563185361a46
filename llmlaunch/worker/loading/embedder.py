"""Loading a model that turns texts into embeddings."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from transformers import AutoModel

from llmlaunch.models.facts import ModelFacts
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.engine import pooling
from llmlaunch.worker.engine.embedder import Embedder
from llmlaunch.worker.errors import OnDeviceLost
from llmlaunch.worker.loading import dtype
from llmlaunch.worker.loading.types import LoadedEmbedder, ReportProgress
from llmlaunch.worker.loading.weights import DEFAULT_CONTEXT, load_encoder

log = logging.getLogger(__name__)


def load(
    config: WorkerConfig,
    facts: ModelFacts,
    path: Path,
    device: str,
    progress: ReportProgress,
    lost: OnDeviceLost,
) -> LoadedEmbedder:
    """Load the model in ``path`` onto ``device``, with its tokenizer and pooling."""
    began = time.perf_counter()
    pooled = pooling.read_config(path)
    folder = path / pooled.transformer
    tokenizer, model, why = load_encoder(AutoModel, facts, folder, config, device, progress)
    text = model.config.get_text_config()
    own = getattr(text, "max_position_embeddings", None) or DEFAULT_CONTEXT
    context = min(value for value in (own, pooled.longest, config.max_model_len) if value)
    pools = f"pooling: {', '.join(pooled.modes)}{', normalized' if pooled.normalize else ''}"
    name = dtype.name_of(model.dtype)
    log.info(
        "loaded %s in %.1f s: %s on %s, embeddings", config.model, time.perf_counter() - began, name, device
    )
    return LoadedEmbedder(
        facts=facts,
        tokenizer=tokenizer,
        context=context,
        dtype=name,
        dtype_reason=why,
        device=device,
        embedder=Embedder(model, pooled, lost),
        mode="batched embeddings",
        note=pools,
    )
