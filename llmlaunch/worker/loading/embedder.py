"""Loading and running a model that turns texts into vectors."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer

from llmlaunch.models.facts import ModelFacts, ModelKind
from llmlaunch.worker.compute import onednn_weights
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.engine import pooling
from llmlaunch.worker.engine.batch_inference import Passes, batches
from llmlaunch.worker.errors import Lost
from llmlaunch.worker.loading import placement, quantised
from llmlaunch.worker.loading.generator import counted
from llmlaunch.worker.loading.loader import DEFAULT_CONTEXT, Loaded, Progress
from llmlaunch.worker.tokenization.tokenizer import Codec

log = logging.getLogger(__name__)


def load(
    config: WorkerConfig, facts: ModelFacts, path: Path, device: str, progress: Progress, lost: Lost
) -> Loaded:
    """The model in ``path`` on ``device``, with its tokenizer and its pooling."""
    began = time.perf_counter()
    recipe = pooling.read(path)
    folder = path / recipe.transformer
    codec = Codec(AutoTokenizer.from_pretrained(folder, trust_remote_code=config.trust_remote_code))
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
    name = str(model.dtype).removeprefix("torch.")
    log.info(
        "loaded %s in %.1f s: %s on %s, embeddings", config.model, time.perf_counter() - began, name, device
    )
    return Loaded(
        facts=facts,
        kind=ModelKind.EMBED,
        codec=codec,
        context=context,
        dtype=name,
        device=device,
        embedder=Embedder(model, recipe, lost),
        mode="batched embeddings",
        note=f"pooling: {', '.join(recipe.modes)}{', normalized' if recipe.normalize else ''}",
    )


class Embedder:
    """Vectors of texts."""

    def __init__(self, model: Any, recipe: pooling.Recipe, lost: Lost) -> None:
        self.passes = Passes(model, lost)
        self._recipe = recipe
        self.size = self._size()
        self.prefix = recipe.prompt
        self.lower_case = recipe.lower_case

    def _size(self) -> int:
        if self._recipe.dense:
            return int(self._recipe.dense[-1].weight.shape[0])
        return int(self.passes.model.config.get_text_config().hidden_size) * len(self._recipe.modes)

    async def run(
        self, inputs: Callable[[], list[list[int]]], dimensions: int | None, size: int = 0
    ) -> tuple[list[int], list[list[float]]]:
        """Token counts and vectors of what ``inputs`` returns, in its order; ``size``: bytes of the request.

        Raises ApiError.
        """

        def work() -> tuple[list[int], list[list[float]]]:
            tokens = inputs()
            return [len(ids) for ids in tokens], self.embed(tokens, dimensions)

        return await self.passes.run(work, size)

    @torch.inference_mode()
    def embed(self, inputs: Sequence[Sequence[int]], dimensions: int | None = None) -> list[list[float]]:
        """Vectors of token sequences. With ``dimensions`` cut to as many and normalized again, as OpenAI does."""
        vectors: list[list[float]] = [[]] * len(inputs)
        for batch in batches([len(ids) for ids in inputs]):
            out, mask = self.passes.through([inputs[index] for index in batch])
            found = pooling.pool(out.last_hidden_state, mask, self._recipe)
            if dimensions is not None and dimensions < found.shape[1]:
                found = torch.nn.functional.normalize(found[:, :dimensions], dim=-1)
            for index, vector in zip(batch, found.tolist(), strict=True):
                vectors[index] = vector
        return vectors
