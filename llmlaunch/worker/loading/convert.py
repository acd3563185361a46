"""GGUF files as folders of safetensors: converted once, then loaded in a second instead of fifteen.

The folder lies under ``paths.cache_root()/converted`` and is named by the file's path, size and time of change, so a
file that changed is converted anew. It appears whole or not at all: it is written beside its place and renamed, under
a lock that lets a second worker wait for the first one's work.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llmlaunch import paths
from llmlaunch.common import file_lock
from llmlaunch.worker.errors import CanNotServe

log = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]
FORMAT = 1
"""Of the converted folder; a change makes all of them anew."""


def place(file: Path) -> Path:
    """Where the conversion of ``file`` is, or will be."""
    status = file.stat()
    key = f"{FORMAT}\0{file.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return paths.cache_root() / "converted" / f"{file.stem}-{digest}"


def safetensors(file: Path, progress: Progress) -> Path:
    """The folder with ``file``'s model, tokenizer and chat template; converts when it is not there yet.

    Raises CanNotServe for a file that is no GGUF or of an architecture that transformers can not read.
    """
    target = place(file)
    if (target / "config.json").exists():
        return target
    paths.private_dir(target.parent)
    with file_lock.held(
        target.with_suffix(".lock"),
        waiting=lambda: progress(0, 0, "waiting for another worker's conversion"),
    ):
        if (target / "config.json").exists():
            return target
        building = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            log.info("converting %s (this happens once)", file)
            _convert(file, building, progress)
            building.rename(target)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return target


def _convert(file: Path, folder: Path, progress: Progress) -> None:
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise CanNotServe(f"{file} is not a GGUF file", hint="its first four bytes should be GGUF")
    progress(0, 0, "converting the GGUF tokenizer")
    # Imported before the heavy one: a broken file must not cost seconds.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
        tokenizer.save_pretrained(str(folder))
        with _counted(file, progress):
            model = AutoModelForCausalLM.from_pretrained(
                str(file.parent), gguf_file=file.name, dtype=torch.bfloat16
            )
        _make_plain(model, torch.bfloat16)
        progress(0, 0, "writing the converted model")
        model.save_pretrained(str(folder))
    except (ValueError, KeyError, NotImplementedError, AttributeError, IndexError, TypeError) as error:
        raise CanNotServe(
            f"{file} can not be converted: {type(error).__name__}: {error}",
            hint="the built-in engine reads the GGUF architectures that transformers knows; llama.cpp reads all: engine: llamacpp",
        ) from error


def _make_plain(model: Any, dtype: Any) -> None:
    """Undo what a quantised load leaves behind and ``save_pretrained`` stumbles over."""
    model.to(dtype)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    model.quantization_method = None


@contextlib.contextmanager
def _counted(file: Path, progress: Progress) -> Iterator[None]:
    """Progress of a conversion, from the one thing that tells without touching the reader: what it has touched of the
    file. The reader maps the file, so its resident pages are those it has been through."""
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
    """Bytes of ``file`` mapped into this process and touched, from /proc/self/smaps; 0 where there is none."""
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
