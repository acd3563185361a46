"""When a replica that says nothing is taken for broken. Pure: time comes in (seconds).

An engine can freeze and still accept connections and answer /health. Only its silence shows it, and a healthy engine is
silent, too: while it reads a long prompt, or until a whole answer is done. So it is the replica that is judged, by
everything that comes from it, and a tiny request of our own settles the doubt::

               a quarter of the limit without a byte              the limit is over, and
               of any answer, with requests there                 the question has no answer
    HEARD ───────────────────────────────────────────► DOUBTED ─────────────────────────────► SILENT
      ▲                                                 │  new requests go elsewhere           │  and what it had, too
      └──────── a byte of any answer, or the ───────────┴──────────────────────────────────────┘
                question's answer: it was slow

**What must speak.** A stream must go on, and begin once its prompt is read; and so must our question, wherever it
certainly gets a slot. Where only whole answers are awaited, and an engine may work on them one by one, nothing
need come for minutes. An engine with nobody beside it is given more time: to give it up helps nobody.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto

from llmlaunch.gateway.routing.route_table import RoutedReplica

SILENCE_S = 60.0
"""The limit for engines that are known. vLLM and SGLang give a single step 300 s, which only a first one can take."""
SILENCE_UNKNOWN_S = 300.0
"""For ``engine: command``: it may load its model at the first request."""
WHOLE_S = 600.0
"""For whole answers, unless something else must speak: how long OpenAI's clients wait."""
ALONE = 3.0
"""Times the limit, where no other replica could answer."""
BYTES_PER_S = 200.0
"""Of prompts: some 50 tokens a second, which is a slow CPU."""
KNOWN = frozenset(("transformers", "vllm", "sglang", "llamacpp"))
DOUBT = 0.25
"""Part of the limit after which the question is asked."""
AGAIN_S = 30.0
"""A question that a silent replica does not answer is given up and asked again."""


class SilenceVerdict(Enum):
    FINE = auto()
    PROBE = auto()
    """Ask it something small."""
    SILENT = auto()
    """It is broken: take away what it has."""


@dataclass(frozen=True, slots=True)
class AwaitedResponse:
    """One request that a replica has."""

    sent_at: float
    size: int
    """Bytes of its body, if nothing of its answer came; else 0."""
    speaks: bool
    """It asked for a stream, or its answer has begun."""


@dataclass(slots=True)
class ReplicaSilence:
    """What is known of one replica's silence."""

    heard_at: float = float("-inf")
    probed_at: float | None = None
    """When the question was sent that has no answer yet."""
    silent: bool = False

    @property
    def doubted(self) -> bool:
        return self.silent or self.probed_at is not None

    def heard(self, now: float) -> None:
        """Something came."""
        self.heard_at = now
        self.probed_at = None
        self.silent = False

    def probe_lost(self) -> None:
        """The question is gone without an answer: another one may be asked."""
        self.probed_at = None

    def judge(
        self,
        waiting: Collection[AwaitedResponse],
        replica: RoutedReplica,
        now: float,
        *,
        alone: bool,
        processes: int = 1,
    ) -> SilenceVerdict:
        """What to do about ``replica`` now, which has the requests ``waiting``."""
        if self.silent:
            return self._while_silent(now)
        if not waiting:
            self.probed_at = None
            return SilenceVerdict.FINE
        since = max(self.heard_at, min(one.sent_at for one in waiting))
        limit = limit_s(waiting, replica, alone=alone, processes=processes)
        if self.probed_at is None:
            if now - since < DOUBT * limit:
                return SilenceVerdict.FINE
            self.probed_at = now
            return SilenceVerdict.PROBE
        if now - since < limit or now - self.probed_at < DOUBT * limit:
            return SilenceVerdict.FINE
        self.silent, self.probed_at = True, now
        return SilenceVerdict.SILENT

    def _while_silent(self, now: float) -> SilenceVerdict:
        if self.probed_at is not None and now - self.probed_at < AGAIN_S:
            return SilenceVerdict.FINE
        self.probed_at = now
        return SilenceVerdict.PROBE


def limit_s(
    waiting: Collection[AwaitedResponse], replica: RoutedReplica, *, alone: bool, processes: int = 1
) -> float:
    """Seconds without a byte from ``replica`` after which it is broken if our question has no answer either."""
    if replica.request_timeout_s is not None:
        return replica.request_timeout_s
    prefill = sum(one.size for one in waiting) / BYTES_PER_S
    base = SILENCE_S if replica.engine in KNOWN else SILENCE_UNKNOWN_S
    if alone:
        base *= ALONE
    if not _has_slot(len(waiting), replica, processes) and not any(one.speaks for one in waiting):
        return max(base, WHOLE_S) + prefill
    return min(base + prefill, WHOLE_S)


def _has_slot(requests: int, replica: RoutedReplica, processes: int) -> bool:
    """Whether our question certainly gets a slot beside so many ``requests``.

    llama.cpp has all its slots at once. The cache of other engines may be full with fewer sequences than they allow.
    Parts of several processes are rounded up: a slot that is free here may be taken by another one.
    """
    slots = replica.max_concurrency
    if slots is None or processes > 1 or requests >= slots:
        return False
    return replica.engine == "llamacpp" or requests <= max(1, slots // 8)
