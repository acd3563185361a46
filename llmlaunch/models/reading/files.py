"""A model's files, wherever they are, and which of them are the weights.

Reading facts needs three things of a place: names with sizes, small files whole, and the beginning of large ones. A local
folder and a remote repository both offer them, so that one reader serves both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Protocol

from llmlaunch.errors import ModelError
from llmlaunch.models.reading import gguf_header, gguf_names, mistral_params, safetensors_header
from llmlaunch.models.reading.gguf_names import shards

_SMALL_FILES = (".json", ".txt", ".model", ".py", ".jinja", ".tiktoken", ".vocab", ".merges")
_MOST_HEADERS, _FIRST_KEYS_BYTES = 8, 4096
"""Among so many GGUF files those without a model are told by their headers' first keys."""
_MODULE_FOLDER = re.compile(r"^\d+_\w+$")
"""sentence-transformers keeps each module of its pipeline in such a folder: 1_Pooling, 2_Dense."""


class Files(Protocol):
    """Where a model lies. All calls raise ModelError with the place in it."""

    @property
    def where(self) -> str:
        """What messages call the place."""
        ...

    def sizes(self) -> Mapping[str, int]:
        """Bytes by name, relative to the model's folder, with ``/`` between folders."""
        ...

    def read(self, name: str) -> bytes:
        """The whole file ``name``."""
        ...

    def prefix(self, name: str, length: int) -> bytes:
        """The first ``length`` bytes, or all when there are fewer."""
        ...


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of this machine; one level of subfolders counts."""

    path: Path

    @property
    def where(self) -> str:
        """The folder's path."""
        return str(self.path)

    def sizes(self) -> dict[str, int]:
        """Bytes by name; of subfolders what sentence-transformers makes, and GGUF files, one folder a quantisation."""
        found = {}
        try:
            for entry in sorted(self.path.iterdir()):
                if entry.is_file():
                    found[entry.name] = entry.stat().st_size
                elif entry.is_dir():
                    module = _MODULE_FOLDER.match(entry.name)
                    inner = (file for file in _entries(entry) if module or file.suffix == ".gguf")
                    found.update({f"{entry.name}/{f.name}": f.stat().st_size for f in inner if f.is_file()})
        except OSError as error:
            raise ModelError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        return found

    def read(self, name: str) -> bytes:
        """The whole file ``name``. Raises ModelError when it cannot be read."""
        return self.prefix(name, -1)

    def prefix(self, name: str, length: int) -> bytes:
        """The first ``length`` bytes, all when negative. Raises ModelError when the file cannot be read."""
        try:
            with (self.path / name).open("rb") as file:
                return file.read(length)
        except OSError as error:
            raise ModelError(f"{self.path / name}: cannot be read: {error.strerror or error}") from error


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except PermissionError:  # nothing that is meant for us
        return []


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The files that hold the weights. ``format`` as in ModelFacts; ``missing``: named by an index, but not there."""

    format: str
    weights: tuple[str, ...]
    missing: tuple[str, ...] = ()
    projector: str = ""
    """As in ModelFacts."""


def choose(files: Files, wanted: str = "", tag: str = "") -> WeightFiles:
    """Which files to load: safetensors before pickles before GGUF; ``wanted`` names one GGUF file, ``tag`` its quantisation.

    Raises ModelError when there is no model, or several GGUF files to choose from.
    """
    sizes = files.sizes()
    top = [name for name in sizes if "/" not in name]
    if wanted:
        return _complete(_gguf(wanted, sizes), sizes, files.where)
    if tag:
        return _complete(_gguf(gguf_names.tagged(list(sizes), tag, files.where), sizes), sizes, files.where)
    if "config.json" in sizes:
        for found in (_safetensors(files, top), _pickles(files, top)):
            if found:
                return _complete(found, sizes, files.where)
    if mistral_params.FILE in sizes and (choice := _consolidated(files, top)):
        return _complete(choice, sizes, files.where)
    ggufs = _gguf_models(files, top)
    if len(ggufs) > 1:
        raise ModelError(
            f"{files.where}: holds several GGUF models: {', '.join(ggufs)}",
            hint="name the file: FOLDER/FILE.gguf, or of a model on a hub its quantisation: ORG/NAME:Q4_K_M",
        )
    if ggufs:
        return _complete(_gguf(ggufs[0], sizes), sizes, files.where)
    raise ModelError(
        _why_no_model(files.where, sizes),
        hint="a model folder holds config.json and its weights, or a .gguf file",
    )


def to_download(files: Files, choice: WeightFiles) -> tuple[str, ...]:
    """What a worker needs of a repository: the weights, and everything small beside them."""
    if choice.format == "gguf":
        return (*choice.weights, *([choice.projector] if choice.projector else ()))
    extra = [
        name
        for name in files.sizes()
        if (PurePosixPath(name).suffix in _SMALL_FILES and name.count("/") == 0)
        or _MODULE_FOLDER.match(name.partition("/")[0])
    ]
    return tuple(dict.fromkeys((*choice.weights, *extra)))


def _gguf(name: str, sizes: Mapping[str, int]) -> WeightFiles:
    return WeightFiles("gguf", (name,), projector=gguf_names.projector(name, list(sizes)))


def _complete(choice: WeightFiles, sizes: Mapping[str, int], where: str) -> WeightFiles:
    """With every part of a split set, and the parts that are not there."""
    wanted = tuple(dict.fromkeys(part for name in choice.weights for part in shards(name)))
    if len(wanted) > 100_000:
        raise ModelError(f"{where}: {choice.weights[0]} claims an impossible number of files")
    return replace(choice, weights=wanted, missing=tuple(name for name in wanted if name not in sizes))


def _indexed(files: Files, top: list[str], name: str) -> tuple[str, ...] | None:
    """The files that the index of ``name`` lists; None if there is no index."""
    index = f"{name}.index.json"
    if index not in top:
        return None
    return tuple(safetensors_header.parse_index(files.read(index), f"{files.where}/{index}"))


def _safetensors(files: Files, top: list[str]) -> WeightFiles | None:
    if (indexed := _indexed(files, top, "model.safetensors")) is not None:
        return WeightFiles("safetensors", indexed)
    found = [name for name in top if name.endswith(".safetensors") and not name.startswith("adapter_model")]
    # Mistral's repositories hold the same weights twice; transformers reads the ones that are not consolidated.
    found = [name for name in found if not name.startswith("consolidated")] or found
    if "model.safetensors" in found:
        found = ["model.safetensors"]
    return WeightFiles("safetensors", tuple(found)) if found else None


def _pickles(files: Files, top: list[str]) -> WeightFiles | None:
    if (indexed := _indexed(files, top, "pytorch_model.bin")) is not None:
        return WeightFiles("pytorch", indexed)
    found = [name for name in top if name.startswith("pytorch_model") and name.endswith(".bin")]
    return WeightFiles("pytorch", tuple(found)) if found else None


def _consolidated(files: Files, top: list[str]) -> WeightFiles | None:
    """The weights of a folder in Mistral's own format."""
    if (indexed := _indexed(files, top, "consolidated.safetensors")) is not None:
        return WeightFiles("mistral", indexed)
    found = [name for name in top if name.startswith("consolidated") and name.endswith(".safetensors")]
    return WeightFiles("mistral", tuple(found)) if found else None


def _gguf_models(files: Files, top: list[str]) -> list[str]:
    """One name per GGUF model; a split one counts once. Among several, their headers tell which are no models."""
    found = gguf_names.models(top)
    if 1 < len(found) <= _MOST_HEADERS:
        found = [name for name in found if name not in top or _is_a_model(files, name)]
    return found


def _is_a_model(files: Files, name: str) -> bool:
    try:
        keys = gguf_header.first_keys(files.prefix(name, _FIRST_KEYS_BYTES), name)
    except ModelError:
        return True  # broken, and named when it is read
    return not gguf_header.is_companion(keys)


def _why_no_model(where: str, sizes: Mapping[str, int]) -> str:
    if "adapter_config.json" in sizes:
        return f"{where}: a LoRA adapter, not a whole model"
    if "model_index.json" in sizes:
        return f"{where}: a diffusion pipeline, not a language model"
    if "config.json" in sizes:
        return f"{where}: has config.json but no weights (*.safetensors, pytorch_model*.bin, *.gguf)"
    if any(name.endswith(".safetensors") for name in sizes):
        return f"{where}: has weights but no config.json (nor params.json, as Mistral's own format has)"
    return f"{where}: does not contain a model"
