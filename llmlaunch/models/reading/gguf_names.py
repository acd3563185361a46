"""What the names of GGUF files say: which belong together, how each is quantised, and which let a model see or hear. Pure.

There is no standard, only habits of those who convert (and llama.cpp's own, ``docs/gguf.md`` of ggml, "GGUF Naming Convention"):
``Model-Q4_K_M.gguf``, ``Model.Q4_K_M.gguf``, ``Q4_K_M/Model-Q4_K_M-00001-of-00003.gguf``, ``mmproj-Model-f16.gguf``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath

from llmlaunch.errors import ModelError

_SHARD = re.compile(r"^(?P<stem>.*)-(?P<part>\d{5})-of-(?P<parts>\d{5})(?P<ending>\.\w+)$")
_QUANTISATION = re.compile(
    r"(?i)(?<![a-z0-9])(?:ud-)?(?:iq\d(?:_\w+?)?|t?q\d(?:_\w+?)?|mxfp4(?:_moe)?|nvfp4|b?f16|f32|fp16|fp32)(?=$|[-./])"
)
DEFAULT_TAGS = ("Q4_K_M", "Q8_0")
"""What ``latest`` means, and what llama.cpp takes of a repository without being told, in this order."""
_PROJECTORS = ("f16", "bf16", "q8_0", "f32")
"""Which of several projectors to take: nothing is lost in 16 bits."""


def shards(name: str) -> list[str]:
    """All files of the set that ``name`` (``x-00001-of-00003.gguf``) belongs to; itself alone when it is whole."""
    match = _SHARD.match(name)
    if not match:
        return [name]
    parts = int(match["parts"])
    return [f"{match['stem']}-{n:05d}-of-{match['parts']}{match['ending']}" for n in range(1, parts + 1)]


def models(names: Collection[str]) -> list[str]:
    """One name per GGUF model; a split one counts once."""
    return sorted({shards(name)[0] for name in names if may_be_a_model(name)})


def may_be_a_model(name: str) -> bool:
    """Whether a GGUF file may be a model, by its name: projectors of vision models and importance matrices are none."""
    return _is_gguf(name) and not is_projector(name) and "imatrix" not in PurePosixPath(name).name.lower()


def is_projector(name: str) -> bool:
    """Whether it is not a model, but what lets one see or hear."""
    return "mmproj" in PurePosixPath(name).name.lower()


def quantisation(name: str) -> str:
    """The quantisation that a model's name ends in, in capitals; empty: it does not say."""
    path = PurePosixPath(_whole(name))
    for text in (path.stem, path.parent.name):
        found = _QUANTISATION.findall(text)
        if found:
            return str(found[-1]).upper()
    return ""


def tagged(names: Sequence[str], tag: str, where: str) -> str:
    """The first file of the model whose quantisation is ``tag``, in any case. Raises ModelError where there is none, or several."""
    wanted = DEFAULT_TAGS if tag.lower() == "latest" else (tag.upper(),)
    known = {name: quantisation(name) for name in models(names)}
    for one in wanted:
        found = [name for name, kind in known.items() if kind == one or kind.removeprefix("UD-") == one]
        exact = [name for name in found if known[name] == one] or found
        if len(exact) == 1:
            return exact[0]
        if exact:
            raise ModelError(
                f"{where}: several GGUF files are {tag}: {', '.join(exact)}",
                hint="name one of them instead: ORG/NAME/FILE.gguf",
            )
    if not known:
        raise ModelError(f"{where}: holds no GGUF file", hint="only GGUF files are told apart by :TAG")
    kinds = sorted({kind for kind in known.values() if kind})
    raise ModelError(
        f"{where}: has no GGUF file that is {tag}",
        hint=f"there are {', '.join(kinds)}" if kinds else f"there are {', '.join(known)}",
    )


def projector(model: str, names: Collection[str]) -> str:
    """The projector that belongs to the file ``model``, of those beside it or in the folder above; empty: none does."""
    folder = PurePosixPath(model).parent
    near = {folder, folder.parent}
    found = [n for n in names if _is_gguf(n) and is_projector(n) and PurePosixPath(n).parent in near]
    others = {_base(name) for name in models(names) if PurePosixPath(name).parent in near}
    if len(others) > 1:  # a folder of many models: only what bears this one's name
        found = [name for name in found if _base(name) == _base(model)]
    return min(found, key=_preference, default="")


def _preference(name: str) -> tuple[int, str]:
    kind = quantisation(name).lower()
    return (_PROJECTORS.index(kind) if kind in _PROJECTORS else len(_PROJECTORS), name)


def _base(name: str) -> str:
    """A model's name without what tells its files apart."""
    stem = PurePosixPath(_whole(name)).stem.lower()
    bare = _QUANTISATION.sub("", stem.replace("mmproj", ""))
    return re.sub(r"[^a-z0-9]+", "-", bare).strip("-")


def _whole(name: str) -> str:
    match = _SHARD.match(name)
    return match["stem"] + match["ending"] if match else name


def _is_gguf(name: str) -> bool:
    return name.lower().endswith(".gguf")
