"""Where a model is: a folder or a file, inside an installed package, in a hub's cache, or still on the hub."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path

from llmlaunch.common.spelling import nearest
from llmlaunch.errors import ModelError
from llmlaunch.manifest.types import Source
from llmlaunch.models.reading.files import Files, Folder, WeightFiles, choose
from llmlaunch.models.reading.gguf_header import MAGIC
from llmlaunch.models.reading.gguf_names import may_be_a_model
from llmlaunch.models.sources import incomplete, misspelt
from llmlaunch.models.sources.types import TRUE_WORDS, ModelLocation

PACKAGE = "package://"
_SHOWN = 200
_COPY = "copy the cache with its blobs, or the folder with cp -L"
_HUB_ID = re.compile(
    r"^(?P<id>\w[\w.-]*(?:/\w[\w.-]*)?)(?:/(?P<file>[\w./-]+\.gguf)|:(?P<tag>[\w.-]+))?$", re.ASCII
)
_PACKAGE_NAME = re.compile(r"^[A-Za-z_]\w*$", re.ASCII)


def resolve(
    model: str,
    *,
    source: Source = Source.AUTO,
    revision: str | None = None,
    cache: Path | None = None,
    env: Mapping[str, str] = os.environ,
) -> ModelLocation:
    """Find ``model`` without asking the network: ``local`` in the result says whether it is whole on this machine.

    ``cache`` is the hub's cache folder, by default the one its environment variables say. Raises ModelError for what
    can neither be here nor on a hub.
    """
    if model.startswith(PACKAGE):
        return _in_package(model)
    path = _path(model)
    if _exists(model, path):
        return _local(model, path.absolute())
    looked = f"local folder {_shown(path)}: does not exist"
    match = _HUB_ID.match(model)
    if not match or ".." in model or not _plausible(match):
        what, hint = misspelt.meant(model)
        if what:
            raise ModelError(f"model {model!r} is {what}, which is not looked up", hint=hint)
        raise ModelError(f"model {model!r} was not found: {looked}", hint=_nearest_path(path))
    file, tag = match["file"] or "", match["tag"] or ""
    hub = hub_name(source, env)
    if hub == Source.MODELSCOPE:
        from llmlaunch.models.sources import modelscope

        found, remark = modelscope.cached(match["id"], revision, cache, file, tag)
    else:
        from llmlaunch.models.sources import huggingface_cache

        found, remark = huggingface_cache.snapshot(
            match["id"], revision, cache or huggingface_cache.folder(env), file, tag
        )
    if found:
        file = choose(Folder(found), tag=tag).weights[0] if tag else file
        return ModelLocation(model, str(found / file), True, file, hub=hub, revision=revision)
    return ModelLocation(model, match["id"], False, file, tag, hub, revision, (looked, remark))


def _plausible(match: re.Match[str]) -> bool:
    """Not the name of a file that does not exist, and not one of Ollama's."""
    if match["tag"]:
        return "/" in match["id"]
    return bool(match["file"]) or not match["id"].endswith(".gguf")


def _shown(path: Path) -> Path:
    try:
        return path.absolute()
    except FileNotFoundError:  # the folder that we are in was deleted
        return path


def hub_name(source: Source, env: Mapping[str, str]) -> str:
    """huggingface, unless the manifest or LLMLAUNCH_USE_MODELSCOPE says otherwise."""
    if source is Source.AUTO:
        wanted = env.get("LLMLAUNCH_USE_MODELSCOPE", "").strip().lower() in TRUE_WORDS
        return str(Source.MODELSCOPE if wanted else Source.HUGGINGFACE)
    return str(source)


def opened(place: ModelLocation) -> tuple[Files, WeightFiles]:
    """The files of a local ``place`` and which of them are the weights. Raises ModelError when parts are missing."""
    files = Folder(place.folder)
    try:
        choice = choose(files, Path(place.path).name if place.file else "")
    except ModelError as error:
        raise _explained(place, error) from error
    if choice.missing:
        if links := incomplete.dangling_links(place.folder):
            raise ModelError(f"{files.where}: {links}", hint=_COPY)
        raise ModelError(
            f"{files.where}: incomplete: {len(choice.missing)} of {len(choice.weights)} weight files are missing, "
            f"first {choice.missing[0]}",
            hint="download or copy the model again",
        )
    return files, choice


def _explained(place: ModelLocation, error: ModelError) -> ModelError:
    """The reason why a folder holds no model, if looking around it finds a better one."""
    if links := incomplete.dangling_links(place.folder):
        return ModelError(f"{place.folder}: {links}", hint=_COPY)
    below = "" if place.file else incomplete.further_down(place.model, place.folder)
    return ModelError(error.message, hint=below) if below else error


def _path(model: str) -> Path:
    try:
        return Path(model).expanduser()
    except RuntimeError:
        raise ModelError(f"model {model!r}: no such user") from None


def _exists(model: str, path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        shown = model if len(model) <= _SHOWN else model[:_SHOWN] + "…"
        raise ModelError(f"model {shown!r} cannot be looked up: {error.strerror}") from None


def _local(model: str, path: Path) -> ModelLocation:
    if path.is_dir():
        return ModelLocation(model, str(path), True)
    if path.suffix.lower() == ".gguf" or _is_gguf(path):
        return ModelLocation(model, str(path), True, path.name)
    raise ModelError(
        f"{path}: neither a model folder nor a .gguf file", hint="name the folder that holds config.json"
    )


def _is_gguf(path: Path) -> bool:
    """Whether a file without the ending is one all the same, as Ollama's blobs are."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _in_package(model: str) -> ModelLocation:
    name, _, inner = model.removeprefix(PACKAGE).partition("/")
    root = _package_root(model, name)
    if not inner:
        return _local(model, _only_model(model, root))
    path = (root / inner).resolve()
    if not path.is_relative_to(root.resolve()):
        raise ModelError(f"model {model!r}: {inner!r} is outside the package's folder {root}")
    if not _exists(model, path):
        raise ModelError(f"model {model!r} was not found: {path} does not exist", hint=_nearest_path(path))
    return _local(model, path)


def _package_root(model: str, name: str) -> Path:
    """The package's folder, found without importing it."""
    if not _PACKAGE_NAME.match(name):
        raise ModelError(
            f"model {model!r}: {name!r} is not a valid package name",
            hint="write package://MODULE or package://MODULE/path",
        )
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"model {model!r} was not found: no package {name!r} is installed in this environment",
            hint=_nearest_package(name),
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _only_model(model: str, root: Path) -> Path:
    found = [path for path in sorted(root.rglob("*.gguf")) if may_be_a_model(path.name)]
    found += [path.parent for path in sorted(root.rglob("config.json")) if _has_weights(path.parent)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ModelError(
            f"model {model!r} was not found: the package's folder {root} does not contain a model"
        )
    names = ", ".join(f"{model}/{path.relative_to(root)}" for path in found)
    raise ModelError(f"model {model!r}: the package holds several models: {names}", hint="name one of them")


def _has_weights(folder: Path) -> bool:
    return any(
        file.suffix == ".safetensors" or file.name.startswith("pytorch_model") for file in folder.iterdir()
    )


def _nearest_path(path: Path) -> str:
    """A hint with the name that comes closest in the deepest folder that exists."""
    path = path.absolute()
    while not path.parent.is_dir() and path.parent != path:
        path = path.parent
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return ""
    close = nearest(path.name, names)
    return f"did you mean {path.parent / close}?" if close else ""


def _nearest_package(name: str) -> str:
    from importlib.metadata import packages_distributions

    close = nearest(name, packages_distributions(), cutoff=0.7)
    return (
        f"did you mean package://{close}?" if close else f"install it: pip install {name.replace('_', '-')}"
    )
