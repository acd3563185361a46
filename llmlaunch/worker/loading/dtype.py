"""In which type a model is computed: as asked, as stored, or on a CPU in float32 where that is faster."""

from __future__ import annotations

import logging
from typing import Any

import torch

from llmlaunch.hardware.memory import main_memory
from llmlaunch.models.facts import ModelFacts, ModelKind
from llmlaunch.worker.compute import dtype_choice, dtype_timing
from llmlaunch.worker.compute.dtype_choice import DtypeChoice
from llmlaunch.worker.config import WorkerConfig

AUTO = "auto"
"""What transformers takes for: as the checkpoint says."""
log = logging.getLogger(__name__)


def choose(config: WorkerConfig, facts: ModelFacts, settings: Any, device: str) -> DtypeChoice:
    """The type for a model with transformers' configuration ``settings``; takes up to 0.3 s the first time."""
    if config.dtype != AUTO:
        return DtypeChoice(config.dtype)
    stored = _stored(settings, facts)
    shape = _shape(settings)
    left_alone = config.load_in or (facts.quantisation and facts.format != "gguf")
    if device != "cpu" or left_alone or stored not in dtype_choice.NARROW or shape is None:
        return DtypeChoice(AUTO)
    found = dtype_choice.choose(stored, dtype_timing.times(stored, *shape), facts.kind is ModelKind.GENERATE)
    if found.name == dtype_choice.WIDENED and not dtype_choice.fits(
        _parameters(facts), main_memory().available
    ):
        found = DtypeChoice(
            stored, f"{dtype_choice.WIDENED} would be faster, but needs more memory than is free"
        )
    log.info("computing in %s%s", found.name, f": {found.why}" if found.why else "")
    return found


def for_transformers(name: str) -> Any:
    """The value of ``dtype`` for transformers' ``from_pretrained``."""
    return name if name == AUTO else getattr(torch, name)


def name_of(dtype: torch.dtype) -> str:
    """The name as in ``--dtype``: "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def _stored(settings: Any, facts: ModelFacts) -> str:
    declared = getattr(settings, "dtype", None)
    return facts.dtype if declared is None else name_of(declared)


def _shape(settings: Any) -> tuple[int, int] | None:
    """Sizes of the hidden states and inside the feed-forward layers."""
    text = settings.get_text_config()
    hidden = getattr(text, "hidden_size", None)
    if not isinstance(hidden, int) or hidden < 1:
        return None
    inner = getattr(text, "intermediate_size", None)
    return hidden, inner if isinstance(inner, int) and inner > 0 else 4 * hidden


def _parameters(facts: ModelFacts) -> int | None:
    return facts.parameters or (facts.weight_bytes // 2 if facts.weight_bytes else None)
