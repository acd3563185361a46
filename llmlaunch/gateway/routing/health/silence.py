"""When a replica that sends nothing is taken for broken. Pure: time comes in (seconds).

An engine can freeze and still accept connections and answer /health. Only its silence shows it, but a healthy engine is
silent, too, while it reads a long prompt or until a whole answer is complete. So the replica as a whole is judged, by
everything that comes from it, and a probe decides: a tiny request of the gateway's own::

               a quarter of the limit without a byte              the limit is over, and
               of any answer, while it has requests               the probe has no answer
    HEARD ───────────────────────────────────────────► DOUBTED ─────────────────────────────► SILENT
      ▲                                                 │  new requests go elsewhere           │  and those it had, too
      └──────── a byte of any answer, or the ───────────┴──────────────────────────────────────┘
                answer to the probe: it was slow

**What the limit is.** A stream must go on, and must begin once its prompt is read; so must the answer to the probe,
wherever the probe certainly gets a slot. If all clients wait for whole answers, which an engine may produce one by one,
nothing need come for minutes. An engine that is its model's only one gets more time: to give it up would help nobody.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto

from llmlaunch.gateway.routing.route_table import RoutedReplica

SILENCE_S = 60.0
"""The limit for known engines. vLLM and SGLang allow 300 s for a single step, but only the first can take so long."""
SILENCE_UNKNOWN_S = 300.0
"""The limit for ``engine: command``, which may load its model at the first request."""
WHOLE_S = 600.0
"""The limit if only whole answers are awaited: so long OpenAI's clients wait."""
UPLOADED_BYTES = 64
"""Bytes of a form that count as one byte of a prompt: sound of 100 kbit/s takes as long as it plays."""
ALONE = 3.0
"""The limit is multiplied by this if no other replica could answer."""
BYTES_PER_S = 200.0
"""Bytes of prompts that a slow CPU reads in a second: about 50 tokens."""
KNOWN = frozenset(("transformers", "vllm", "sglang", "llamacpp"))
DOUBT = 0.25
"""The part of the limit after which the probe is sent."""
AGAIN_S = 30.0
"""Seconds after which a silent replica is probed again."""


class SilenceVerdict(Enum):
    """What to do about a replica."""

    FINE = auto()
    """Nothing."""
    PROBE = auto()
    """Send it a probe."""
    SILENT = auto()
    """It is broken: take its requests away."""


@dataclass(frozen=True, slots=True)
class AwaitedResponse:
    """A response that a replica owes."""

    sent_at: float
    size: int
    """Bytes of the request's body, if the answer has not begun; else 0."""
    speaks: bool
    """Whether bytes should come soon: it is a stream, or it has begun."""


@dataclass(slots=True)
class ReplicaSilence:
    """What is known about the silence of one replica."""

    heard_at: float = float("-inf")
    probed_at: float | None = None
    """When the probe was sent that has no answer yet."""
    silent: bool = False
    """Whether it is taken for broken."""

    @property
    def doubted(self) -> bool:
        """Whether new requests should go elsewhere."""
        return self.silent or self.probed_at is not None

    def heard(self, now: float) -> None:
        """Note that something came from the replica."""
        self.heard_at = now
        self.probed_at = None
        self.silent = False

    def probe_lost(self) -> None:
        """Note that the probe will get no answer: another one may be sent."""
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
        """What to do about ``replica`` now, which owes the responses ``waiting``.

        ``alone``: no other replica serves its names. ``processes`` share it.
        """
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
    """Seconds without a byte from ``replica`` after which it is broken, if it does not answer the probe either."""
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
    """Whether a probe certainly gets a slot beside so many ``requests``.

    llama.cpp can use all its slots at once. The KV cache of other engines may be full with fewer sequences than they
    allow. The shares of several processes are rounded up: another process may have taken a slot that is free here.
    """
    slots = replica.max_concurrency
    if slots is None or processes > 1 or requests >= slots:
        return False
    return replica.engine == "llamacpp" or requests <= max(1, slots // 8)
