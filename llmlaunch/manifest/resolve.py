"""What a manifest leaves to us: names that it does not give, and paths that start at its folder."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from pathlib import Path, PurePath

from llmlaunch.common.deployment_name import LONGEST, is_deployment_name

DEFAULT_NAME = "deploy"
EVERYBODYS_FILES = ("deploy.yaml", "deploy.yml", "llmlaunch.yaml", "llmlaunch.yml")
_SHARD = re.compile(r"-[0-9]{5}-of-[0-9]{5}$")
_INTERPRETER = re.compile(r"(?:python|pypy)[0-9.]*[dt]?")
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


def is_served_name(text: str) -> bool:
    """Whether clients can ask for ``text``: commas separate names on command lines, and logs have one line a request."""
    return bool(text.strip()) and text == text.strip() and "," not in text and text.isprintable()


def deployment_name(path: str | None) -> str:
    """The name of the manifest at ``path`` (absolute) that gives none: the file's stem, as far as it may be a deployment's name.

    ``deploy.yaml`` is what every project calls its manifest, so there it is the folder's name. Where letters are lost, or too many
    to keep, a digest of them all tells one name from another.
    """
    if path is None:
        return DEFAULT_NAME
    place = Path(os.path.normpath(path))
    text = place.parent.name if place.name.lower() in EVERYBODYS_FILES else ""
    text = text or place.stem
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    name = re.sub(r"[^a-z0-9._-]+", "-", plain.lower()).strip("._-")
    lost = any(not c.isascii() and (not name or c.isalnum() or not is_text(c)) for c in plain)
    if len(name) > LONGEST or lost:
        digest = hashlib.blake2b(os.fsencode(unicodedata.normalize("NFC", text)), digest_size=3).hexdigest()
        name = f"{name[: LONGEST - 8].rstrip('._-') or DEFAULT_NAME}-x{digest}"
    return name if is_deployment_name(name) else DEFAULT_NAME


def absolute(text: str, base: Path) -> str:
    """``text`` as an absolute path; a relative one starts at ``base``. Links stay links. Raises ValueError for a user unknown here."""
    try:
        return os.path.normpath(base / Path(text).expanduser())
    except RuntimeError:
        raise ValueError(f"cannot find the home folder of {text.split('/', 1)[0]}") from None


def interpreter(text: str, base: Path) -> str:
    """What ``python: text`` runs: the folder of a virtual environment stands for the ``bin/python`` in it.

    An absolute path, except for a bare name such as ``python3.12`` with nothing of that name beside the manifest: that is looked
    for on PATH. Where nothing is there yet, the name tells a folder from an interpreter. Raises ValueError for a user unknown here.
    """
    place = absolute(text, base)
    looks_like_one = _INTERPRETER.fullmatch(place.rsplit("/", 1)[-1]) is not None
    if os.path.isdir(place):  # noqa: PTH112  # which knows no error
        return f"{place}/bin/python"
    if os.path.lexists(place):
        return place
    if looks_like_one:
        return text if "/" not in text else place
    return f"{place}/bin/python"


def executable(text: str, base: Path) -> str:
    """What ``bin: text`` runs: an absolute path, or a bare name, with nothing of that name beside the manifest, that is on PATH.

    Raises ValueError for a user unknown here.
    """
    place = absolute(text, base)
    return text if "/" not in text and text != "~" and not os.path.lexists(place) else place


def virtual_environment(program: str) -> str:
    """The folder of the virtual environment that ``program`` (an absolute path) is in, or empty (PEP 405)."""
    folder = PurePath(program).parent
    found = folder.is_absolute() and os.path.lexists(folder.parent / "pyvenv.cfg")
    return str(folder.parent) if found else ""


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
