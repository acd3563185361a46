"""What one API key may use, as values. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from llmlaunch.gateway.multiprocess.shares import share


@dataclass(frozen=True, slots=True)
class Limits:
    """None: no limit."""

    rpm: int | None = None
    """Requests a minute."""
    tpm: int | None = None
    """Tokens a minute, of prompts and completions together."""
    concurrency: int | None = None
    """Requests at a time, those that wait for a slot included."""
    models: frozenset[str] | None = None
    """Served names it may ask for."""
    priority: int = 0
    """In the queue for a busy model a lower one goes first, as in a request."""

    def allows(self, model: str) -> bool:
        """Whether the key may use the served name ``model``."""
        return self.models is None or model in self.models

    def share_of(self, processes: int) -> Limits:
        """What each of ``processes`` may let through."""
        rpm, tpm, concurrency = (n and share(n, processes) for n in (self.rpm, self.tpm, self.concurrency))
        return replace(self, rpm=rpm, tpm=tpm, concurrency=concurrency)

    def of(self, what: str) -> int | None:
        """The number behind ``LimitExceeded.what``."""
        return {"requests": self.rpm, "tokens": self.tpm, "concurrency": self.concurrency}[what]


UNLIMITED = Limits()


@dataclass(frozen=True, slots=True)
class Grant:
    """Who asks, by the name of the key, and what it may use."""

    name: str
    limits: Limits = UNLIMITED
    """In this process."""
    whole: Limits = UNLIMITED
    """In all processes of the gateway together."""


NOBODY = Grant("")
