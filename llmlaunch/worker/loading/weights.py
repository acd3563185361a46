"""What all kinds of models share when their weights are loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging as hf_logging

from llmlaunch.models.facts import ModelFacts
from llmlaunch.worker.compute import onednn_weights
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.loading import dtype, placement, quantised
from llmlaunch.worker.loading.types import ReportProgress
from llmlaunch.worker.tokenization.tokenizer import Tokenizer

DEFAULT_CONTEXT = 2048
"""Tokens, for models whose configuration does not say."""


def load_encoder(
    kind: Any, facts: ModelFacts, folder: Path, config: WorkerConfig, device: str, progress: ReportProgress
) -> tuple[Tokenizer, Any, str]:
    """The tokenizer and the model of a folder, as transformers' class ``kind`` loads a model that answers in one pass.

    The third part says why it is computed in another type than it is stored in, or is empty.
    """
    settings = AutoConfig.from_pretrained(folder, trust_remote_code=config.trust_remote_code)
    tokenizer = Tokenizer(AutoTokenizer.from_pretrained(folder, trust_remote_code=config.trust_remote_code))
    computing = dtype.choose(config, facts, settings, device)
    with weights_progress(folder, progress):
        model = kind.from_pretrained(
            folder,
            config=settings,
            dtype=dtype.for_transformers(computing.name),
            trust_remote_code=config.trust_remote_code,
            **placement.device_map(device, config),
            **quantised.load_in_arguments(config, device),
        ).eval()
    if onednn_weights.is_faster(model):
        onednn_weights.pack(model, model.dtype)
    return tokenizer, model, computing.why


@contextlib.contextmanager
def weights_progress(path: Path, progress: ReportProgress) -> Iterator[None]:
    """Report how many bytes of the weights are loaded, by observing transformers' own progress bar."""
    total = sum(file.stat().st_size for file in path.glob("*.safetensors")) or sum(
        file.stat().st_size for file in path.glob("*.bin")
    )

    class Bar:
        def __init__(self, items: Any = (), *_: Any, **__: Any) -> None:
            self.items = items

        def __iter__(self) -> Iterator[Any]:
            items = list(self.items)
            for at, item in enumerate(items):
                progress(total * at // len(items), total, "loading weights")
                yield item

        def __getattr__(self, _: str) -> Any:
            return lambda *_, **__: None

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None: ...

    progress(0, total, "loading weights")
    before = hf_logging.set_tqdm_hook(lambda _, arguments, keywords: Bar(*arguments, **keywords))
    try:
        yield
    finally:
        hf_logging.set_tqdm_hook(before)
    progress(total, total, "loading weights")
