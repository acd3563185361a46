"""From a model name on the command line to a running model: find, convert, load, choose a strategy."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmlaunch.models.facts import ModelKind
from llmlaunch.worker.compute import lean_imports
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.errors import OnDeviceLost, StartupError
from llmlaunch.worker.loading.locate import locate
from llmlaunch.worker.loading.types import Loaded, ReportProgress

if TYPE_CHECKING:
    from llmlaunch.worker.engine.engine import Deliver

log = logging.getLogger(__name__)


def set_environment() -> None:
    """Set environment variables that libraries read on import: no progress bars, no advice, little spinning."""
    # OpenMP threads wait for each other hundreds of times a step. Waking them takes as long as a small matrix product, so
    # they spin first, but not for long (GNU's count is about 10 ns each): next to other busy processes they would only
    # waste the time those need to finish. ``compute.thread_count`` then lowers the number of threads instead.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # oneDNN keeps a compiled kernel, of half a MiB, for each number of tokens and shape of weights. 32 requests that decode need
    # about 160; the default of 1,024 in both caches, oneDNN's and PyTorch's own in front of it, would take 600 MiB.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "192")
    os.environ.setdefault("LRU_CACHE_CAPACITY", "192")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    # Long texts are tokenized by a pool of background threads (``tokenization``). Two are enough for two texts at once.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("RAYON_NUM_THREADS", "2")


def prepare(config: WorkerConfig, progress: ReportProgress) -> Path:
    """Download and convert the model so that a later start finds everything; return the folder that will be loaded."""
    set_environment()
    facts, path = locate(config, progress)
    if facts.format != "gguf":
        return path
    from llmlaunch.worker.loading import convert

    return convert.to_safetensors(path, progress)


def load(config: WorkerConfig, progress: ReportProgress, deliver: Deliver, lost: OnDeviceLost) -> Loaded:
    """Load the model and start its engine. Takes seconds to minutes; meant for a thread of its own.

    ``lost`` is called, from any thread, when the device can no longer be used.

    Raises StartupError when a retry cannot help, another LlmlaunchError when it may.
    """
    set_environment()
    progress(0, 0, "inspecting the model")
    facts, path = locate(config, progress)
    if facts.format == "gguf":
        from llmlaunch.worker.loading import convert

        path = convert.to_safetensors(path, progress)
    progress(0, 0, "importing torch")
    from llmlaunch.worker.compute import device as devices
    from llmlaunch.worker.compute import thread_count
    from llmlaunch.worker.loading import generator, placement, quantised

    lean_imports.done()
    device = devices.choose(config)
    devices.configure(device)
    thread_count.set_threads(config.threads)
    warning = quantised.check(facts, device)
    if config.load_in:
        quantised.check_load_in(config.load_in, facts, device)
    placement.check_limit(facts.weight_bytes, config)
    with startup_errors(config.model):
        loaded: Loaded
        if facts.kind is ModelKind.GENERATE:
            loaded = generator.load(config, facts, path, device, progress, deliver, lost)
        elif facts.kind is ModelKind.RERANK:
            from llmlaunch.worker.loading import reranker

            loaded = reranker.load(config, facts, path, device, progress, lost)
        else:
            from llmlaunch.worker.loading import embedder

            loaded = embedder.load(config, facts, path, device, progress, lost)
    loaded = replace(loaded, warning="; ".join(filter(None, (loaded.warning, warning))))
    if loaded.warning:
        log.warning("%s", loaded.warning)
    return loaded


@contextlib.contextmanager
def startup_errors(model: str) -> Iterator[None]:
    """Turn the exceptions that transformers raises for models it cannot load into StartupError."""
    try:
        yield
    except (ImportError, ValueError, KeyError, OSError, NotImplementedError) as error:
        text = str(error).strip() or repr(error)
        first = " ".join(line.strip() for line in text.splitlines() if line.strip())[:600]
        hint = ""
        if "trust_remote_code" in text:
            hint = (
                "if you trust the authors, pass --trust-remote-code (trust_remote_code: true in the manifest)"
            )
        elif isinstance(error, ImportError):
            hint = "install the missing package into the environment that llmlaunch runs in"
        raise StartupError(f"{model} cannot be loaded: {first}", hint=hint) from error
