"""Loading a model that turns texts into embeddings."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer

from llmlaunch.models.facts import ModelFacts
from llmlaunch.worker.compute import onednn_weights
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.engine import pooling
from llmlaunch.worker.engine.embedder import Embedder
from llmlaunch.worker.errors import Lost
from llmlaunch.worker.loading import placement, quantised
from llmlaunch.worker.loading.types import LoadedEmbedder, ReportProgress
from llmlaunch.worker.loading.weights import DEFAULT_CONTEXT, counted, dtype_name
from llmlaunch.worker.tokenization.tokenizer import Tokenizer

log = logging.getLogger(__name__)


def load(
    config: WorkerConfig, facts: ModelFacts, path: Path, device: str, progress: ReportProgress, lost: Lost
) -> LoadedEmbedder:
    """Load the model in ``path`` onto ``device``, with its tokenizer and pooling."""
    began = time.perf_counter()
    recipe = pooling.read(path)
    folder = path / recipe.transformer
    tokenizer = Tokenizer(AutoTokenizer.from_pretrained(folder, trust_remote_code=config.trust_remote_code))
    dtype: Any = "auto" if config.dtype == "auto" else getattr(torch, config.dtype)
    with counted(folder, progress):
        model = AutoModel.from_pretrained(
            folder,
            dtype=dtype,
            trust_remote_code=config.trust_remote_code,
            **placement.device_map(device, config),
            **quantised.packing(config, device),
        ).eval()
    if onednn_weights.pays(model, last_bits=False):
        onednn_weights.pack(model, model.dtype)
    text = model.config.get_text_config()
    own = getattr(text, "max_position_embeddings", None) or DEFAULT_CONTEXT
    context = min(value for value in (own, recipe.longest, config.max_model_len) if value)
    name = dtype_name(model.dtype)
    log.info(
        "loaded %s in %.1f s: %s on %s, embeddings", config.model, time.perf_counter() - began, name, device
    )
    return LoadedEmbedder(
        facts=facts,
        tokenizer=tokenizer,
        context=context,
        dtype=name,
        device=device,
        embedder=Embedder(model, recipe, lost),
        mode="batched embeddings",
        note=f"pooling: {', '.join(recipe.modes)}{', normalized' if recipe.normalize else ''}",
    )
