"""The Hugging Face hub: facts without a download, and the download with progress.

huggingface_hub does the talking (addresses, tokens, redirects, the cache). What it leaves to its caller is done here:
every request has a time limit, reads only the beginning of large files, and every failure becomes one message that
says which places were looked at.
"""

from __future__ import annotations

import importlib
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llmlaunch.common.spelling import nearest
from llmlaunch.errors import LlmlaunchError, ModelError
from llmlaunch.models.facts import ModelFacts
from llmlaunch.models.reading.files import choose, to_download
from llmlaunch.models.reading.read import read_facts
from llmlaunch.models.sources import huggingface_cache
from llmlaunch.models.sources.time_limit import within
from llmlaunch.models.sources.types import DownloadProgress, ModelLocation, offline_variable

FIRST_ANSWER_S = 8.0
"""For the first request, name resolution included, which no client library bounds."""
REQUEST_S = 10.0
UNREACHABLE = "hub_unreachable"
"""The ``code`` of a ModelError that another try may not meet: no network, no answer, an error of the hub's own."""
_DEFAULT_ENDPOINT = "https://huggingface.co"
_METER_S = 0.25


def inspect(place: ModelLocation, cache: Path | None, env: Mapping[str, str]) -> ModelFacts:
    """Facts of a model that is not whole in the cache, read from the hub. Raises ModelError."""
    endpoint = _endpoint(env)
    asked = f"Hugging Face hub {endpoint}"
    forbidden = offline_variable(env)
    cache = cache or huggingface_cache.folder(env)
    if forbidden:
        hint = _nearest(place, cache) or f"unset {forbidden.partition('=')[0]} to look there"
        raise _not_found(place, f"{asked}: not asked ({forbidden})", cache, hint)
    with _explained(place, asked, cache):
        files = _repository(place, env)
        choice = choose(files, place.file, place.tag)
        if choice.missing:
            raise ModelError(f"{files.where}: the repository itself lacks {choice.missing[0]}")
        found = read_facts(files, choice, source=place.model, path=place.path, local=False)
        wanted = to_download(files, choice)
    here = _sizes_in_cache(place, cache)
    missing = sum(size for name in wanted if (size := files.sizes()[name]) != here.get(name))
    return replace(found, hub=place.hub, revision=place.revision, files=wanted, download_bytes=missing)


def fetch(facts: ModelFacts, progress: DownloadProgress, cache: Path | None, env: Mapping[str, str]) -> Path:
    """Download ``facts.files`` into the cache and return the folder, or the GGUF file. Raises ModelError."""
    from huggingface_hub import snapshot_download

    cache = cache or huggingface_cache.folder(env)
    _check_room(facts, cache)
    if "HF_HUB_DISABLE_PROGRESS_BARS" not in env:
        _utils().disable_progress_bars()
    place = ModelLocation(facts.source, facts.path, False, hub=facts.hub, revision=facts.revision)
    with _explained(place, f"Hugging Face hub {_endpoint(env)}", cache), _meter(facts, cache, progress):
        folder = snapshot_download(
            facts.path,
            revision=facts.revision,
            cache_dir=cache,
            allow_patterns=list(facts.files),
            endpoint=env.get("HF_ENDPOINT") or None,
            token=env.get("HF_TOKEN") or None,
            etag_timeout=REQUEST_S,
        )
    progress(facts.download_bytes, facts.download_bytes, facts.path)
    return Path(folder) / facts.files[0] if facts.format == "gguf" else Path(folder)


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository's files on the hub, as :class:`llmlaunch.models.reading.files.Files`."""

    where: str
    session: Any
    address: Callable[[str], str]
    headers: Mapping[str, str]
    listing: Mapping[str, int]
    known: dict[str, bytes] = field(default_factory=dict)

    def sizes(self) -> Mapping[str, int]:
        """Bytes by name, as the hub listed them when the repository was opened."""
        return self.listing

    def read(self, name: str) -> bytes:
        """The whole file ``name``, asked for once. Raises what the client library does."""
        if name not in self.known:
            self.known[name] = self._get(name, None)
        return self.known[name]

    def prefix(self, name: str, length: int) -> bytes:
        """The first ``length`` bytes, by a range request. Raises what the client library does."""
        return self._get(name, length)

    def _get(self, name: str, length: int | None) -> bytes:
        headers = dict(self.headers)
        if length is not None:
            headers["Range"] = f"bytes=0-{max(length - 1, 0)}"
        with self.session.stream("GET", self.address(name), headers=headers, timeout=REQUEST_S) as response:
            if response.status_code >= 400:
                response.read()
            _utils().hf_raise_for_status(response)
            content = bytearray()
            for chunk in response.iter_bytes():
                content += chunk
                if length is not None and len(content) >= length:
                    break  # a server that ignores Range sends the whole file
        return bytes(content[:length])


def _repository(place: ModelLocation, env: Mapping[str, str]) -> Repository:
    from huggingface_hub import HfApi, hf_hub_url

    endpoint, token = _endpoint(env), env.get("HF_TOKEN") or None
    api = HfApi(endpoint=endpoint, token=token)
    info = within(
        FIRST_ANSWER_S,
        lambda: api.model_info(
            place.path, revision=place.revision, files_metadata=True, timeout=REQUEST_S / 2
        ),
    )
    return Repository(
        where=f"{endpoint}/{place.path}",
        session=_utils().get_session(),
        address=lambda name: hf_hub_url(
            place.path, name, revision=info.sha or place.revision, endpoint=endpoint
        ),
        headers=_utils().build_hf_headers(token=token),
        listing={item.rfilename: int(item.size or 0) for item in info.siblings or []},
    )


def _utils() -> Any:
    """huggingface_hub.utils, whose documented names are not marked as exported for type checkers."""
    return importlib.import_module("huggingface_hub.utils")


@contextmanager
def _explained(place: ModelLocation, asked: str, cache: Path) -> Iterator[None]:
    """Turn whatever the client library raises into a ModelError that names the places looked at."""
    from huggingface_hub import errors

    try:
        yield
    except LlmlaunchError:
        raise
    except errors.GatedRepoError as error:
        hint = "accept its terms on the model's page, then set HF_TOKEN to a token of that account"
        raise _not_found(
            place, f"{asked}: it is gated, and this account has no access", cache, hint
        ) from error
    except errors.RepositoryNotFoundError as error:
        hint = _nearest(place, cache) or "check the name; a private model needs HF_TOKEN"
        raise _not_found(place, f"{asked}: has no such model, or it is private", cache, hint) from error
    except errors.RevisionNotFoundError as error:
        raise _not_found(place, f"{asked}: has no revision {place.revision!r} of it", cache) from error
    except errors.EntryNotFoundError as error:
        raise _not_found(place, f"{asked}: a file of it is missing: {_first_line(error)}", cache) from error
    except Exception as error:  # three generations of HTTP libraries, and the file system
        hint = "check the network and HF_ENDPOINT, or download the model elsewhere and name its folder"
        unreachable = _not_found(place, f"{asked}: {_first_line(error)}", cache, hint)
        unreachable.code = UNREACHABLE
        raise unreachable from error


def _not_found(place: ModelLocation, last: str, cache: Path, hint: str = "") -> ModelError:
    lines = "\n".join(f"  {line}" for line in (*place.looked, last) if line)
    return ModelError(
        f"model {place.model!r} was not found; looked at:\n{lines}", hint=hint or _nearest(place, cache)
    )


def _nearest(place: ModelLocation, cache: Path) -> str:
    close = nearest(place.path, huggingface_cache.models(cache), cutoff=0.75)
    return f"did you mean {close!r}? It is in the cache" if close not in ("", place.path) else ""


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{lines[0]} ({type(error).__name__})" if lines else type(error).__name__


def _endpoint(env: Mapping[str, str]) -> str:
    return (env.get("HF_ENDPOINT") or _DEFAULT_ENDPOINT).rstrip("/")


def _sizes_in_cache(place: ModelLocation, cache: Path) -> dict[str, int]:
    """What a partial snapshot already holds, by name."""
    folder = huggingface_cache.partial(place.path, place.revision, cache)
    if folder is None:
        return {}
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _check_room(facts: ModelFacts, cache: Path) -> None:
    folder = cache
    while not folder.exists() and folder.parent != folder:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < facts.download_bytes:
        raise ModelError(
            f"model {facts.source!r}: {facts.download_bytes} bytes are to be downloaded to {cache}, "
            f"which has {free} bytes free",
            hint="set HF_HOME to a folder on a larger disk",
        )


@contextmanager
def _meter(facts: ModelFacts, cache: Path, progress: DownloadProgress) -> Iterator[None]:
    """Report what has reached the disk while the body runs: the one measure that all transfer methods share."""
    before, done = huggingface_cache.bytes_on_disk(facts.path, cache), threading.Event()

    def watch() -> None:
        last = -1
        while not done.wait(_METER_S):
            now = min(
                max(huggingface_cache.bytes_on_disk(facts.path, cache) - before, 0), facts.download_bytes
            )
            if now != last:
                progress(now, facts.download_bytes, facts.path)
                last = now

    progress(0, facts.download_bytes, facts.path)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
