"""GGUF files converted to safetensors: converted once, then loaded in a second instead of fifteen.

The folder lies under ``paths.cache_root()/converted``. Its name is derived from the file's path, size and modification
time, so a changed file is converted again. The conversion is atomic: it is written next to its final place and renamed,
under a lock that makes a second worker wait for the first one.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmlaunch import paths
from llmlaunch.common import file_lock
from llmlaunch.worker.errors import StartupError
from llmlaunch.worker.loading.types import ReportProgress

log = logging.getLogger(__name__)

FORMAT = 1
"""Version of the conversion; increasing it invalidates all earlier ones."""


def converted_folder(file: Path) -> Path:
    """Where the conversion of ``file`` is or will be."""
    status = file.stat()
    key = f"{FORMAT}\0{file.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return paths.cache_root() / "converted" / f"{file.stem}-{digest}"


def to_safetensors(file: Path, progress: ReportProgress) -> Path:
    """Return the folder with ``file``'s model, tokenizer and chat template; convert if it does not exist yet.

    Raises StartupError if the file is not a GGUF file, or transformers cannot read its architecture.
    """
    target = converted_folder(file)
    if (target / "config.json").exists():
        return target
    paths.private_dir(target.parent)
    with file_lock.held(
        target.with_suffix(".lock"),
        waiting=lambda: progress(0, 0, "waiting for another worker to convert the file"),
    ):
        if (target / "config.json").exists():
            return target
        building = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            log.info("converting %s (only once)", file)
            _convert(file, building, progress)
            building.rename(target)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return target


def _convert(file: Path, folder: Path, progress: ReportProgress) -> None:
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise StartupError(f"{file} is not a GGUF file", hint="its first four bytes should be 'GGUF'")
    progress(0, 0, "converting the GGUF tokenizer")
    # Only now: importing torch takes seconds, which a broken file should not cost.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
        tokenizer.save_pretrained(str(folder))
        with _conversion_progress(file, progress):
            model = AutoModelForCausalLM.from_pretrained(
                str(file.parent), gguf_file=file.name, dtype=torch.bfloat16
            )
        _make_plain(model, torch.bfloat16)
        progress(0, 0, "writing the converted model")
        model.save_pretrained(str(folder))
    except (ValueError, KeyError, NotImplementedError, AttributeError, IndexError, TypeError) as error:
        raise StartupError(
            f"{file} cannot be converted: {type(error).__name__}: {error}",
            hint="the built-in engine reads the GGUF architectures that transformers supports; "
            "llama.cpp supports all of them (engine: llamacpp)",
        ) from error


def _make_plain(model: Any, dtype: Any) -> None:
    """Undo what a quantised load leaves behind and ``save_pretrained`` cannot handle."""
    model.to(dtype)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    model.quantization_method = None


@contextlib.contextmanager
def _conversion_progress(file: Path, progress: ReportProgress) -> Iterator[None]:
    """Report the progress of a conversion without hooks into the reader: it maps the file, so the mapping's resident
    pages are those it has already read."""
    total = file.stat().st_size
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            progress(min(_resident_bytes(file), total), total, "converting the GGUF file")

    progress(0, total, "converting the GGUF file")
    thread = threading.Thread(target=watch, name="conversion progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    progress(total, total, "converting the GGUF file")


def _resident_bytes(file: Path) -> int:
    """Bytes of ``file`` that are mapped and resident in this process, from /proc/self/smaps; 0 if unavailable."""
    found, inside = 0, False
    try:
        with Path("/proc/self/smaps").open() as lines:
            for line in lines:
                if line[0] in "0123456789abcdef" and "-" in line.split(" ", 1)[0]:
                    inside = line.rstrip("\n").endswith(str(file))
                elif inside and line.startswith("Rss:"):
                    found += int(line.split()[1]) * 1024
    except OSError:
        return 0
    return found
