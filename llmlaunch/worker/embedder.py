"""Loading and running a model that turns texts into vectors."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer

from llmlaunch.models.facts import ModelFacts, ModelKind
from llmlaunch.worker import placement, pooling
from llmlaunch.worker.codec import Codec
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.errors import ApiError, EngineFault, Unavailable
from llmlaunch.worker.generator import counted
from llmlaunch.worker.loader import DEFAULT_CONTEXT, Loaded, Progress

log = logging.getLogger(__name__)

BATCH_TOKENS = 8192
"""Of one pass, padding included."""


def load(config: WorkerConfig, facts: ModelFacts, path: Path, device: str, progress: Progress) -> Loaded:
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
        ).eval()
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
        embedder=Embedder(model, recipe, codec),
        mode="batched embeddings",
        note=f"pooling: {', '.join(recipe.modes)}{', normalized' if recipe.normalize else ''}",
    )


class Embedder:
    """One thread computes; requests wait for each other, nobody else waits for them."""

    def __init__(self, model: Any, recipe: pooling.Recipe, codec: Codec) -> None:
        self._model = model
        self._recipe = recipe
        self._codec = codec
        self._pad = getattr(model.config, "pad_token_id", None) or 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedder")
        self.size = self._size()
        self.prefix = recipe.prompt
        self.lower_case = recipe.lower_case

    def _size(self) -> int:
        if self._recipe.dense:
            return int(self._recipe.dense[-1].weight.shape[0])
        return int(self._model.config.get_text_config().hidden_size) * len(self._recipe.modes)

    async def run(
        self, inputs: Callable[[], list[list[int]]], dimensions: int | None
    ) -> tuple[list[int], list[list[float]]]:
        """Token counts and vectors of what ``inputs`` returns, in its order. Raises ApiError."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._compute, inputs, dimensions)

    def _compute(
        self, inputs: Callable[[], list[list[int]]], dimensions: int | None
    ) -> tuple[list[int], list[list[float]]]:
        tokens = inputs()
        try:
            vectors = self.embed(tokens, dimensions)
        except ApiError:
            raise
        except (MemoryError, torch.OutOfMemoryError) as error:
            log.exception("out of memory while embedding %d inputs", len(tokens))
            raise Unavailable(
                "the device ran out of memory on this request; send fewer or shorter inputs",
                code="out_of_memory",
            ) from error
        except Exception as error:
            log.exception("embedding %d inputs failed", len(tokens))
            raise EngineFault(f"the engine failed: {type(error).__name__}: {error}") from error
        return [len(ids) for ids in tokens], vectors

    @torch.inference_mode()
    def embed(self, inputs: Sequence[Sequence[int]], dimensions: int | None = None) -> list[list[float]]:
        """Vectors of token sequences. With ``dimensions`` cut to as many and normalized again, as OpenAI does."""
        vectors: list[list[float]] = [[]] * len(inputs)
        for batch in batches([len(ids) for ids in inputs], BATCH_TOKENS):
            found = self._pass([inputs[index] for index in batch])
            if dimensions is not None and dimensions < found.shape[1]:
                found = torch.nn.functional.normalize(found[:, :dimensions], dim=-1)
            for index, vector in zip(batch, found.tolist(), strict=True):
                vectors[index] = vector
        return vectors

    def _pass(self, batch: Sequence[Sequence[int]]) -> torch.Tensor:
        device = self._model.get_input_embeddings().weight.device
        longest = max(map(len, batch))
        ids = torch.full((len(batch), longest), self._pad, dtype=torch.long)
        mask = torch.zeros((len(batch), longest), dtype=torch.long)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = torch.tensor(list(tokens))
            mask[row, : len(tokens)] = 1
        mask = mask.to(device)
        out = self._model(input_ids=ids.to(device), attention_mask=mask)
        return pooling.pool(out.last_hidden_state, mask, self._recipe)


def batches(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Indexes in groups of similar length, each within ``most`` tokens when padded (but at least one text)."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= most:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups
