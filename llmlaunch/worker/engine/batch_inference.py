"""Running models that answer in one forward pass (embeddings, reranking), in batches and in a thread of their own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from llmlaunch.worker.background import AbandonedError, BackgroundThreads
from llmlaunch.worker.compute import device as devices
from llmlaunch.worker.errors import ApiError, DeviceLostError, EngineFault, OnDeviceLost, Unavailable

log = logging.getLogger(__name__)

BATCH_TOKENS = 8192
"""Maximum number of tokens in one forward pass, padding included."""

Value = TypeVar("Value")


class BatchRunner:
    """One model and its thread. Requests are computed one after another, without blocking anything else."""

    def __init__(self, model: Any, lost: OnDeviceLost) -> None:
        """``lost`` is called in the model's thread when the device can no longer be used."""
        self.model = model
        self._lost = lost
        self._pad = getattr(model.config, "pad_token_id", None) or 0
        self._thread = BackgroundThreads(1, "batches")

    async def run(self, work: Callable[[], Value], size: int = 0) -> Value:
        """Run ``work()`` for a request of ``size`` bytes in the model's thread. Every failure is raised as an ApiError."""
        return await self._thread.run(size, self._guarded, work)

    def _guarded(self, work: Callable[[], Value]) -> Value:
        try:
            with torch.inference_mode():
                return work()
        except (ApiError, AbandonedError):
            raise
        except (MemoryError, torch.OutOfMemoryError) as error:
            log.exception("out of memory")
            message = "the device ran out of memory on this request; send fewer or shorter inputs"
            raise Unavailable(message, code="out_of_memory") from error
        except Exception as error:
            log.exception("a forward pass failed")
            self._check_alive()
            raise EngineFault(f"the engine failed: {type(error).__name__}: {error}") from error

    def _check_alive(self) -> None:
        try:
            devices.check_alive(self.model)
        except DeviceLostError as end:
            log.error("%s", end.message)
            self._lost(end)

    def forward(
        self, batch: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None = None
    ) -> tuple[Any, Tensor]:
        """The model's output for a padded batch, and the batch's attention mask ``[texts, tokens]``."""
        device = self.model.get_input_embeddings().weight.device
        ids = padded(batch, self._pad).to(device)
        mask = padded([[1] * len(tokens) for tokens in batch], 0).to(device)
        more = {"token_type_ids": padded(types, 0).to(device)} if types is not None else {}
        return self.model(input_ids=ids, attention_mask=mask, **more), mask


def padded(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    """``rows`` as one tensor, padded with ``filler`` on the right."""
    out = torch.full((len(rows), max(map(len, rows))), filler, dtype=torch.long)
    for at, row in enumerate(rows):
        out[at, : len(row)] = torch.tensor(list(row))
    return out


def batches(lengths: Sequence[int], most: int = BATCH_TOKENS) -> list[list[int]]:
    """Indexes grouped by similar length; each group, padded, has at most ``most`` tokens (but at least one text)."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= most:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups
