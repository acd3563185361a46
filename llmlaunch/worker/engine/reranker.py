"""Running a cross-encoder, which scores how well a document answers a query."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from llmlaunch.worker.engine.batch_inference import BatchRunner, batches
from llmlaunch.worker.errors import OnDeviceLost, StartupError
from llmlaunch.worker.tokenization.tokenizer import Pair

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "torch.nn.modules.activation.Sigmoid": torch.sigmoid,
    "torch.nn.modules.linear.Identity": lambda scores: scores,
}


class Reranker:
    """Scores pairs of texts with one model."""

    def __init__(self, model: Any, lost: OnDeviceLost) -> None:
        self.runner = BatchRunner(model, lost)
        self._activation = _activation(model.config)

    async def run(self, pairs: Callable[[], list[Pair]], size: int = 0) -> tuple[list[int], list[float]]:
        """Token counts and scores of the pairs that ``pairs`` returns, in its order.

        ``size``: bytes of the request. Raises ApiError.
        """

        def work() -> tuple[list[int], list[float]]:
            found = pairs()
            return [len(pair.tokens) for pair in found], self.score(found)

        return await self.runner.run(work, size)

    @torch.inference_mode()
    def score(self, pairs: Sequence[Pair]) -> list[float]:
        """The score of each pair, in order. Computed in batches of similar length."""
        scores = [0.0] * len(pairs)
        for batch in batches([len(pair.tokens) for pair in pairs]):
            chosen = [pairs[index] for index in batch]
            types = [pair.types for pair in chosen] if chosen[0].types else None
            out, _ = self.runner.forward([pair.tokens for pair in chosen], types)
            for index, score in zip(batch, self._activation(out.logits[:, 0].float()).tolist(), strict=True):
                scores[index] = score
        return scores


def _activation(config: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """The activation that sentence-transformers' settings name; the default is its CrossEncoder's sigmoid."""
    own = getattr(config, "sentence_transformers", None) or {}
    name = own.get("activation_fn") or getattr(config, "sbert_ce_default_activation_function", None)
    if name is None:
        return torch.sigmoid
    if name not in ACTIVATIONS:
        raise StartupError(f"the cross-encoder's activation {name!r} is not supported")
    return ACTIVATIONS[name]
