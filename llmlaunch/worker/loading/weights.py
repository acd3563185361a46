"""What all kinds of models share when their weights are loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as hf_logging

from llmlaunch.worker.loading.types import ReportProgress

DEFAULT_CONTEXT = 2048
"""Tokens, for models whose configuration does not say."""


@contextlib.contextmanager
def counted(path: Path, progress: ReportProgress) -> Iterator[None]:
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


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
