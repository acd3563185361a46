"""Whether two ways to compute the same logits agree. Used by the trials of batching and of CUDA graphs."""

from __future__ import annotations

import torch


def difference(got: torch.Tensor, wanted: torch.Tensor) -> str:
    """How much ``got`` differs, for people; empty if rounding explains it."""
    scale = float(wanted.abs().max()) or 1.0
    off = float((got.float() - wanted.float()).abs().max()) / scale
    return "" if off <= (1e-3 if got.dtype == torch.float32 else 0.1) else f"by {off:.1%}"
