"""Running a model that turns texts into embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from llmlaunch.worker.engine import pooling
from llmlaunch.worker.engine.batch_inference import BatchRunner, batches
from llmlaunch.worker.errors import OnDeviceLost


class Embedder:
    """Embeds texts with one model."""

    def __init__(self, model: Any, config: pooling.PoolingConfig, lost: OnDeviceLost) -> None:
        self.runner = BatchRunner(model, lost)
        self._pooling = config
        self.size = self._size()
        self.prefix = config.prompt
        self.lower_case = config.lower_case

    def _size(self) -> int:
        if self._pooling.dense:
            return int(self._pooling.dense[-1].weight.shape[0])
        return int(self.runner.model.config.get_text_config().hidden_size) * len(self._pooling.modes)

    async def run(
        self, inputs: Callable[[], list[list[int]]], dimensions: int | None, size: int = 0
    ) -> tuple[list[int], list[list[float]]]:
        """Token counts and vectors of the token sequences that ``inputs`` returns, in its order.

        ``size``: bytes of the request. Raises ApiError.
        """

        def work() -> tuple[list[int], list[list[float]]]:
            tokens = inputs()
            return [len(ids) for ids in tokens], self.embed(tokens, dimensions)

        return await self.runner.run(work, size)

    @torch.inference_mode()
    def embed(self, inputs: Sequence[Sequence[int]], dimensions: int | None = None) -> list[list[float]]:
        """Vectors of token sequences. ``dimensions`` truncates them and normalizes again, as OpenAI does."""
        vectors: list[list[float]] = [[]] * len(inputs)
        for batch in batches([len(ids) for ids in inputs]):
            out, mask = self.runner.forward([inputs[index] for index in batch])
            found = pooling.pool(out.last_hidden_state, mask, self._pooling)
            if dimensions is not None and dimensions < found.shape[1]:
                found = torch.nn.functional.normalize(found[:, :dimensions], dim=-1)
            for index, vector in zip(batch, found.tolist(), strict=True):
                vectors[index] = vector
        return vectors
