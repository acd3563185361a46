"""ModelScope, through its optional package: the same services as the Hugging Face hub, with coarser facts.

The package reads no parts of files, so a model that is not downloaded has the sizes of its files instead of those of its
tensors. Used of it: ``HubApi.get_model_files``, ``model_file_download``, ``snapshot_download``.
"""

from __future__ import annotations

import importlib
import inspect as signatures
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmlaunch import extras
from llmlaunch.errors import LlmlaunchError, ModelError
from llmlaunch.models.facts import ModelFacts
from llmlaunch.models.reading.files import Folder, choose, to_download
from llmlaunch.models.reading.read import read_shape_facts
from llmlaunch.models.sources.time_limit import within
from llmlaunch.models.sources.types import DownloadProgress, ModelLocation

ANSWER_S = 20.0


def cached(
    model: str, revision: str | None, cache: Path | None, file: str = "", tag: str = ""
) -> tuple[Path | None, str]:
    """The folder of a model that is whole in ModelScope's cache, or None; and why not, in words."""
    download = _package("modelscope.hub.snapshot_download").snapshot_download
    try:
        folder = Path(download(model, revision=revision, local_files_only=True, **_cache(cache)))
    except Exception:  # the package raises ValueError, OSError or its own kinds, by version
        return None, "ModelScope cache: does not have it"
    try:
        missing = choose(Folder(folder), file, tag).missing
    except ModelError as error:
        return None, f"ModelScope cache: has only part of it ({error.message})"
    return (None, f"ModelScope cache: has only part of it (no {missing[0]})") if missing else (folder, "")


def inspect(place: ModelLocation) -> ModelFacts:
    """Facts from the listing and config.json of a model that is not downloaded. Raises ModelError."""
    api = _package("modelscope.hub.api").HubApi
    download = _package("modelscope.hub.file_download").model_file_download
    with _explained(place):
        rows = within(
            ANSWER_S, lambda: api().get_model_files(place.path, revision=place.revision, recursive=True)
        )
        listing = {
            row["Path"]: int(row.get("Size") or 0) for row in rows if row.get("Type", "blob") != "tree"
        }
        files = Listing(f"ModelScope {place.path}", listing, download, place)
        choice = choose(files, place.file, place.tag)
        if choice.missing:
            raise ModelError(f"{files.where}: the repository itself lacks {choice.missing[0]}")
        wanted = to_download(files, choice)
        size = sum(listing[name] for name in choice.weights)
        if choice.format == "gguf":
            found = ModelFacts(place.model, place.path, False, "gguf")
        else:
            found = read_shape_facts(files, choice, source=place.model, path=place.path, local=False)
    total = sum(listing[name] for name in wanted)
    return replace(
        found, weight_bytes=size, hub=place.hub, revision=place.revision, files=wanted, download_bytes=total
    )


def fetch(facts: ModelFacts, progress: DownloadProgress, cache: Path | None) -> Path:
    """Download ``facts.files`` and return the folder, or the GGUF file. Raises ModelError."""
    download = _package("modelscope.hub.snapshot_download").snapshot_download
    options: dict[str, Any] = {"allow_patterns": list(facts.files), **_cache(cache)}
    if "progress_callbacks" in signatures.signature(download).parameters:
        options["progress_callbacks"] = [_reporter(facts, progress)]
    progress(0, facts.download_bytes, facts.path)
    with _explained(ModelLocation(facts.source, facts.path, False)):
        folder = Path(download(facts.path, revision=facts.revision, **options))
    progress(facts.download_bytes, facts.download_bytes, facts.path)
    return folder / facts.files[0] if facts.format == "gguf" else folder


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository on ModelScope, as :class:`llmlaunch.models.reading.files.Files`; only small files can be read."""

    where: str
    listing: Mapping[str, int]
    download: Any
    place: ModelLocation

    def sizes(self) -> Mapping[str, int]:
        """Bytes by name, as ModelScope lists them."""
        return self.listing

    def read(self, name: str) -> bytes:
        """The whole file ``name``, downloaded to the package's cache. Raises what the package does, or TimeoutError."""
        path = within(ANSWER_S, lambda: self.download(self.place.path, name, revision=self.place.revision))
        return Path(path).read_bytes()

    def prefix(self, name: str, length: int) -> bytes:
        """The first ``length`` bytes; the whole file is downloaded for them."""
        return self.read(name)[:length]


def _reporter(facts: ModelFacts, progress: DownloadProgress) -> type:
    """A class, as the package wants it: it makes one object per file, in several threads."""
    lock = threading.Lock()
    done = 0

    class Reporter:
        def __init__(self, filename: str, file_size: int) -> None:
            self.filename = filename

        def update(self, size: int) -> None:
            nonlocal done
            with lock:
                done += size
                progress(min(done, facts.download_bytes), facts.download_bytes, facts.path)

        def end(self) -> None:
            """Part of the package's protocol; the last update has said it all."""

    return Reporter


def _package(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        command = extras.command_here(extras.MODELSCOPE)
        raise ModelError(
            f"models from ModelScope need the package modelscope, which cannot be imported: {error}",
            hint=f"install it: {command}, or unset LLMLAUNCH_USE_MODELSCOPE",
        ) from error


def _cache(cache: Path | None) -> dict[str, str]:
    return {"cache_dir": str(cache)} if cache else {}


@contextmanager
def _explained(place: ModelLocation) -> Iterator[None]:
    try:
        yield
    except LlmlaunchError:
        raise
    except Exception as error:  # several HTTP libraries, by version
        lines = "\n".join(f"  {line}" for line in (*place.looked, f"ModelScope: {error}"))
        raise ModelError(
            f"model {place.model!r} was not found; looked at:\n{lines}",
            hint="check the name and the network; a private model needs `modelscope login`",
        ) from error
