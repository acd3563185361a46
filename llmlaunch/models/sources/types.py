"""Where a model is, how a download reports progress, and whether the network may be used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

DownloadProgress = Callable[[int, int, str], None]
"""Bytes done, bytes in all, what is being downloaded."""
TRUE_WORDS = frozenset({"1", "true", "yes", "on"})
"""Values of an environment variable that switch something on, in lower case."""


@dataclass(frozen=True, slots=True)
class ModelLocation:
    """A model that was found, or that only its hub knows."""

    model: str
    """What the manifest said."""
    path: str
    """An absolute path, or the hub's id when it is not downloaded."""
    local: bool
    file: str = ""
    """The GGUF file that was named, relative to ``folder`` or the repository."""
    tag: str = ""
    """The quantisation that was asked for (``org/name:Q4_K_M``), as long as nobody has looked which ``file`` that is."""
    hub: str = ""
    """huggingface | modelscope, also for what its cache holds; empty for plain folders and packages."""
    revision: str | None = None
    looked: tuple[str, ...] = ()
    """The places that were searched without success, in words."""

    @property
    def folder(self) -> Path:
        """The folder that holds the model. Of one that is not downloaded, its name on the hub as a relative path."""
        return Path(self.path).parent if self.file else Path(self.path)


def offline_variable(env: Mapping[str, str]) -> str:
    """The variable that forbids asking the hub (``HF_HUB_OFFLINE=1``), or empty."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if env.get(name, "").strip().lower() in TRUE_WORDS:
            return f"{name}={env[name]}"
    return ""
