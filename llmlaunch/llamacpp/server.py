"""The process that serves: flags in, llama.cpp's HTTP server until SIGTERM."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from llmlaunch.errors import LlmlaunchError, ModelError, UsageError

_ENDS = (signal.SIGTERM, signal.SIGINT)


def serve(words: Sequence[str]) -> None:
    """Serve until SIGTERM or SIGINT. Raises LlmlaunchError if it cannot start."""
    import xllamacpp

    from llmlaunch.llamacpp.arguments import parse

    # Until the model is loaded there is nothing to wind up, and Python's own handlers would wait for the load to end.
    for number in _ENDS:
        signal.signal(number, signal.SIG_DFL)
    params = parse(words)
    _require_gpu(params, xllamacpp)
    _download(params)
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise LlmlaunchError("llama.cpp's server did not start; its reason is above") from error
    _wait_for_signal()
    del server  # ends its requests and its threads, and waits for them


def _wait_for_signal() -> None:
    """llama.cpp has installed handlers of its own, which would end its loop but not this process."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    for number in _ENDS:
        signal.signal(number, lambda *_: None)
    os.read(read, 1)
    # A second one ends it at once.
    for number in _ENDS:
        signal.signal(number, signal.SIG_DFL)


def _require_gpu(params: Any, xllamacpp: Any) -> None:
    """Refuse to compute on the CPU what was planned for a GPU: llama.cpp itself only warns."""
    masked = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if not params.n_gpu_layers or not masked:
        return
    gpu = xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_GPU
    if any(device["type"] == gpu for device in xllamacpp.get_device_info()):
        return
    raise UsageError(
        f"this build of xllamacpp ({xllamacpp.__version__}) sees no GPU, and the model was given {masked}",
        hint="install a build for CUDA (https://github.com/xorbitsai/xllamacpp#installation) or llama-server, "
        "or write gpus: cpu on the model",
    )


def _download(params: Any) -> None:
    """Fetch what ``--hf-repo`` names, which llama-server's main program does and xllamacpp does not."""
    repository, file = params.model.hf_repo, params.model.hf_file
    if params.model.path or not repository:
        return
    from llmlaunch.manifest.types import Source
    from llmlaunch.models.inspect import inspect
    from llmlaunch.models.sources.fetch import fetch

    found = inspect(f"{repository}/{file}" if file else repository, source=Source.HUGGINGFACE)
    if found.format != "gguf":
        raise ModelError(f"{found.source} holds no GGUF file", hint="name a repository or a file that does")
    path = fetch(found, _report)
    params.model.path = str(path)
    if found.projector and not params.no_mmproj and not params.mmproj.path:
        folder = path.parents[found.files[0].count("/")]
        params.mmproj.path = str(folder / found.projector)


def _report(done: int, total: int, what: str) -> None:
    percent = 100 * done // total if total else 100
    sys.stderr.write(f"downloading {what}: {percent}% of {total} bytes\n")
