"""Requests that may be what brings replicas down, known by their bytes. Pure: time comes in (seconds).

When a replica dies or falls silent, the cause may be one of the requests that it had, and nobody can tell which. To
fail all of them would punish many for one; to send all of them on would let that one bring down every replica, and its
client, which tries again, would do it once more as soon as they are back. So each of them becomes a suspect::

               a death with it                         a death with it again
    unknown ─────────────────────► suspect ───────────────────────────────────► refused, for REFUSED_S
       ▲                            │   ▲  waits until no other suspect             │
       │        a whole answer      │   │  is being tried on a free replica         │ over: tried once more,
       └────────────────────────────┘   └───────────────────────────────────────────┘ refused for twice as long

**Who is refused.** Whatever was in flight at two deaths without a whole answer in between. That is exact as long as a
second replica has one suspect at a time, so suspects are tried one after the other: each has a replica that no other
suspect is tried on, until something of its answer comes, or until it has lived there longer than it took the first
replica to die. The youngest goes first, because what kills usually kills soon. Once the second death has shown who it
was, all others that were at the first one are free of suspicion, and so is whoever met only the second.

**What it costs the innocent.** After a death that no request caused, which is the usual one, suspects wait for each
other. They do so for about as long as they had been with the dead replica, and for WAIT_MOST_S at most; then they go,
together if it must be. If a slow killer is among those, the few that are with it when it kills again are refused with
it: no third replica is put at risk for them.

**Equal bytes.** A request that is sent again has the same bytes, so a client's own retries are recognised. Innocent
requests may be equal too (benchmarks, checks by machines): one whole answer clears the bytes, and a death counts once
however many of them it hit. A refused connection or a drain is no death.

The processes of one gateway tell each other of deaths and of answers (``death_ledger``). Each tries its own suspects one at a
time; two processes may do so at the same replica.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from llmlaunch.common import backoff
from llmlaunch.gateway.multiprocess.death_ledger import KEY_BYTES

SUSPECTED_S = 600.0
"""How long a death is held against the bytes that were there."""
REFUSED_S, REFUSED_MOST_S = 300.0, 3600.0
DEATHS = 2
"""After which the bytes are refused."""
SUSPECTS_MOST = 1024
"""Beyond that the oldest are forgotten."""
TRIAL_LEAST_S, TRIAL_MOST_S = 0.5, 2.0
"""For how long a suspect has a replica for itself, if nothing of its answer comes before."""
WAIT_LEAST_S, WAIT_MOST_S = 3.0, 6.0
"""For how long it waits for its turn."""
WAIT_FOR_EQUAL_S = 30.0
"""For how long it waits while the same bytes are being tried."""


def key_of(body: bytes) -> bytes:
    """What a body is remembered by."""
    return hashlib.blake2b(body, digest_size=KEY_BYTES).digest()


@dataclass(slots=True)
class Suspect:
    size: int
    """Bytes of its body."""
    last: float
    """When it was at a death last."""
    deaths: dict[str, float] = field(default_factory=dict)
    """Replica → when it died with it."""
    count: int = 0
    age: float = 0.0
    """Seconds from being sent to the death."""
    responded: bool = False
    """Something of an answer came since."""
    trials: dict[str, float] = field(default_factory=dict)
    """Replica that has it now → until when no other suspect goes there."""
    refused_until: float = 0.0
    refusals: int = 0

    @property
    def forgotten_at(self) -> float:
        return max(self.last, self.refused_until) + SUSPECTED_S


class Suspects:
    """What one gateway process remembers."""

    def __init__(self) -> None:
        self.sizes: frozenset[int] = frozenset()
        """Of the bodies that are remembered: no other body need be looked at."""
        self._known: dict[bytes, Suspect] = {}
        self._explained_deaths: dict[str, float] = {}
        """Replica → its last death whose cause is known."""
        self._replicas_seen: frozenset[str] = frozenset()
        """Every replica that was there at a death."""

    def __len__(self) -> int:
        return len(self._known)

    def note_replicas(self, replicas: Iterable[str]) -> None:
        """These are there at a death."""
        self._replicas_seen = self._replicas_seen.union(replicas)

    def replicas_changed(self, replicas: Collection[str]) -> None:
        """These are there now. When all of them are others than before, so may be what they run: all is forgotten."""
        if replicas and self._replicas_seen.isdisjoint(replicas):
            self._known.clear()
            self._explained_deaths.clear()
            self._replicas_seen = frozenset()
            self._index_sizes()

    def record_death(self, key: bytes, size: int, replica: str, sent_at: float, now: float) -> float:
        """``replica`` died or fell silent with the request of ``key``, which was sent to it at ``sent_at``.

        Returns for how many seconds it is refused from now on; 0: it may be tried again.
        """
        suspect = self._known.get(key)
        if suspect is None:
            if sent_at <= self._explained_deaths.get(replica, _NEVER):
                return 0.0
            suspect = self._add(key, size, now)
        elif sent_at <= suspect.deaths.get(replica, _NEVER):
            return self.refused_for_s(key, now)  # the same death
        suspect.deaths[replica] = suspect.last = now
        suspect.age = now - sent_at
        suspect.count += 1
        suspect.responded = False
        if suspect.count < DEATHS:
            return 0.0
        self._refuse(suspect, replica, now)
        return suspect.refused_until - now

    def key_if_suspected(self, body: bytes) -> bytes:
        """What ``body`` is remembered by; empty when it is not."""
        if len(body) not in self.sizes:
            return b""
        key = key_of(body)
        return key if key in self._known else b""

    def refused_for_s(self, key: bytes, now: float) -> float:
        """For how many seconds the request is still refused; 0: it is not."""
        suspect = self._known.get(key)
        return 0.0 if suspect is None else max(0.0, suspect.refused_until - now)

    def is_free(self, key: bytes) -> bool:
        """Whether it may be sent anywhere, with any other."""
        suspect = self._known.get(key)
        return suspect is None or suspect.responded

    def age(self, key: bytes) -> float:
        """Those with less of it go first (seconds)."""
        suspect = self._known.get(key)
        return 0.0 if suspect is None else suspect.age

    def avoided(self, key: bytes, waited: float, now: float) -> frozenset[str] | None:
        """The replicas that it may not be sent to now, after it has ``waited`` so many seconds; None: to none at all."""
        own = self._known.get(key)
        if own is None or own.responded:
            return frozenset()
        if own.trials:
            return None if waited < WAIT_FOR_EQUAL_S else frozenset()
        if waited >= min(max(2 * own.age, WAIT_LEAST_S), WAIT_MOST_S):
            return frozenset()
        return frozenset(
            replica
            for other in self._known.values()
            if other is not own and not other.responded
            for replica, until in other.trials.items()
            if now < until
        )

    def trial_began(self, key: bytes, replica: str, now: float) -> None:
        """It is sent to ``replica``."""
        suspect = self._known.get(key)
        if suspect is not None:
            longest = min(max(1.5 * suspect.age, TRIAL_LEAST_S), TRIAL_MOST_S)
            suspect.trials[replica] = now + longest

    def trial_ended(self, key: bytes, replica: str) -> None:
        """``replica`` does not have it any more, whatever became of it."""
        suspect = self._known.get(key)
        if suspect is not None:
            suspect.trials.pop(replica, None)

    def answer_began(self, key: bytes) -> None:
        """Something of its answer came."""
        suspect = self._known.get(key)
        if suspect is not None:
            suspect.responded = True

    def clear(self, key: bytes) -> bool:
        """It got its whole answer: these bytes bring nobody down. Returns whether they were suspected to."""
        if self._known.pop(key, None) is None:
            return False
        self._index_sizes()
        return True

    def expire(self, now: float) -> None:
        """Forget what is old."""
        old = [key for key, suspect in self._known.items() if suspect.forgotten_at <= now]
        for key in old:
            del self._known[key]
        if old:
            self._index_sizes()
        if not self._known:
            self._explained_deaths.clear()
            self._replicas_seen = frozenset()

    def _add(self, key: bytes, size: int, now: float) -> Suspect:
        if len(self._known) >= SUSPECTS_MOST:
            oldest = min(self._known, key=lambda k: (self._known[k].refusals, self._known[k].last))
            del self._known[oldest]
        found = self._known[key] = Suspect(size, now)
        self._index_sizes()
        return found

    def _refuse(self, culprit: Suspect, replica: str, now: float) -> None:
        """``culprit`` was at a death too many, that of ``replica``: whoever was not there is free."""
        culprit.refusals += 1
        culprit.refused_until = now + backoff.delay(culprit.refusals, REFUSED_S, REFUSED_MOST_S)
        self._explained_deaths[replica] = now
        cleared = [
            key
            for key, other in self._known.items()
            if not other.refusals
            and replica not in other.trials
            and all(_together(culprit.deaths.get(r), at) for r, at in other.deaths.items())
        ]
        for key in cleared:
            del self._known[key]
        self._index_sizes()

    def _index_sizes(self) -> None:
        self.sizes = frozenset(suspect.size for suspect in self._known.values())


_NEVER = float("-inf")
_ONE_DEATH_S = 1.0
"""Connections to a dead replica break within this time."""


def _together(one: float | None, other: float) -> bool:
    return one is not None and abs(one - other) <= _ONE_DEATH_S
