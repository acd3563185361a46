"""What an API key allows. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from llmlaunch.gateway.multiprocess.shares import share


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """The limits of one API key. None: no limit."""

    rpm: int | None = None
    """Requests a minute."""
    tpm: int | None = None
    """Tokens a minute, prompts and completions together."""
    concurrency: int | None = None
    """Requests at a time, including those in the queue."""
    models: frozenset[str] | None = None
    """The served names that may be used."""
    priority: int = 0
    """Requests with a lower number leave the queue of a busy model first, as with a request's ``priority``."""

    def allows(self, model: str) -> bool:
        """Whether the key may use the served name ``model``."""
        return self.models is None or model in self.models

    def share_of(self, processes: int) -> KeyLimits:
        """The limits for each of ``processes``, rounded up."""
        rpm, tpm, concurrency = (n and share(n, processes) for n in (self.rpm, self.tpm, self.concurrency))
        return replace(self, rpm=rpm, tpm=tpm, concurrency=concurrency)

    def of(self, what: str) -> int | None:
        """The limit that ``LimitExceeded.what`` names."""
        return {"requests": self.rpm, "tokens": self.tpm, "concurrency": self.concurrency}[what]


UNLIMITED = KeyLimits()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The name of an API key and its limits."""

    name: str
    limits: KeyLimits = UNLIMITED
    """For this process."""
    whole: KeyLimits = UNLIMITED
    """For all processes of the gateway together."""


NO_KEY = ApiKey("")
