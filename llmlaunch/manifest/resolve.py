"""What a manifest leaves to us: names that it does not give, and paths that start at its folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

from llmlaunch.manifest.values import NAME, is_served_name

_SHARD = re.compile(r"-[0-9]{5}-of-[0-9]{5}$")
_QUANTISATION = re.compile(r"[.-](?:i?q[0-9]\w*|bf16|f16|f32|fp16|mxfp4\w*)$", re.IGNORECASE)


def default_name(model: str) -> str:
    """What clients ask for when the manifest gives no names.

    The last part of the model, letters as they are; a GGUF file's name goes without ``.gguf``, its shard and its quantisation.
    Empty when nothing is left that may be a name.
    """
    last = model.rstrip("/").rsplit("/", 1)[-1]
    if last.lower().endswith(".gguf"):
        last = _QUANTISATION.sub("", _SHARD.sub("", last[: -len(".gguf")]))
    last = last.replace(",", "-").strip()
    return last if is_served_name(last) else ""


def deployment_name(path: str | None) -> str:
    """The file's stem, as far as it may be a deployment's name."""
    stem = Path(path).stem if path else "deploy"
    name = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).lstrip("._-")[:63]
    return name if NAME.fullmatch(name) else "deploy"


def absolute(text: str, base: Path) -> str:
    """``text`` as an absolute path; a relative one starts at ``base``. Links stay links. Raises ValueError for a user unknown here."""
    try:
        return os.path.normpath(base / Path(text).expanduser())
    except RuntimeError:
        raise ValueError(f"there is no home directory for {text.split('/', 1)[0]}") from None


def is_text(path: str) -> bool:
    """Whether ``path`` is UTF-8 all through; Python stands in surrogates for bytes that are not (PEP 383)."""
    return not any("\ud800" <= letter <= "\udfff" for letter in path)


def model_path(model: str, base: Path) -> str:
    """Absolute where ``model`` is clearly a path or exists beside the manifest, else as it stands: a hub's id looks like a path, too.

    Raises ValueError for a user unknown here.
    """
    if "://" in model:
        return model
    clearly = model.startswith(("./", "../", "/", "~")) or model in (".", "..")
    file = "/" not in model and model.lower().endswith(".gguf")
    place = absolute(model, base)
    return place if clearly or file or os.path.lexists(place) else model
