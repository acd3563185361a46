"""What people write for a model that means something in another program: addresses, Ollama's names."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

_HUBS = {
    "huggingface.co",
    "hf.co",
    "hf-mirror.com",
    "www.modelscope.cn",
    "modelscope.cn",
    "www.modelscope.ai",
}
_OLLAMA = re.compile(r"^[\w.-]+:[\w.-]+$", re.ASCII)
_NAMED = re.compile(r"^[\w.-]+/[\w.-]+$", re.ASCII)


def meant(model: str) -> tuple[str, str]:
    """What ``model`` is, and what to write instead; two empty texts for what is just a path or an id."""
    scheme, separator, rest = model.partition("://")
    if separator and scheme.lower() == "file":
        return "an address", f"write {unquote(urlsplit(model).path)}"
    if separator:
        return "an address", _by_address(urlsplit(model if scheme != "hf" else f"https://hf.co/{rest}"))
    host, _, path = model.partition("/")
    if host.lower() in _HUBS and path:
        return "an address", _by_address(urlsplit(f"https://{model}"))
    if _OLLAMA.match(model):
        hint = "write a hub id (org/name, org/name:Q4_K_M), or the file that `ollama show --modelfile` prints behind FROM"
        return "a name of Ollama's", hint
    return "", ""


def _by_address(address: object) -> str:
    host, path = getattr(address, "hostname", ""), unquote(getattr(address, "path", ""))
    path, _, tag = path.partition(":")
    words = [word for word in path.split("/") if word]
    modelscope = "modelscope" in (host or "")
    if modelscope and words[:1] == ["models"]:
        words = words[1:]
    name = "/".join(words[:2])
    if host not in _HUBS or not _NAMED.match(name):
        return "write a hub id (org/name), or download it and name its folder or .gguf file"
    if len(words) > 4 and words[2] in ("blob", "resolve", "raw") and words[-1].endswith(".gguf"):
        name = "/".join((name, *words[4:]))
    elif tag:
        name = f"{name}:{tag}"
    return f"write {name}" + (" and source: modelscope" if modelscope else "")
