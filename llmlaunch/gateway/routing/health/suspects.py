"""Requests that may be bringing replicas down, recognised by their bytes. Pure: time comes in (seconds).

When a replica dies or falls silent, one of its requests may be the cause, and nothing tells which. To fail all of them
would punish many for one. To send all of them on would let that one bring down every replica, and its client, which
retries, would do it again as soon as they are back. So each of them becomes a suspect::

               a death with it                         another death with it
    unknown ─────────────────────► suspect ───────────────────────────────────► refused, for REFUSED_S
       ▲                            │   ▲  waits until no other suspect             │
       │        a whole answer      │   │  is being tried on a free replica         │ over: tried once more,
       └────────────────────────────┘   └───────────────────────────────────────────┘ refused for twice as long

**Which requests are refused.** Those that were in flight at two deaths without a whole answer in between. This is exact
as long as the second replica has one suspect at a time. So suspects are tried one after the other: each gets a replica on
which no other suspect is tried, until its answer begins, or until it has been there longer than the first replica took to
die. The youngest goes first, because a request that kills usually does so soon. Once the second death has shown the
culprit, all others that were at the first death are cleared, and so are those that were at the second one only.

**What it costs innocent requests.** After a death that no request caused, which is the usual case, suspects wait for each
other: for about as long as they had been with the dead replica, and for WAIT_MOST_S at most. Then they go, together if
need be. If the culprit is a slow one among them, the few that are with it at the second death are refused with it: no
third replica is put at risk for them.

**Equal bytes.** A request that is sent again has the same bytes, so a client's own retries are recognised. Innocent
requests may be equal, too (benchmarks, monitoring): one whole answer clears the bytes, and a death counts once however
many of them it hit. A refused connection or a drain is not a death.

The processes of one gateway share deaths and answers (``death_ledger``). Each tries its own suspects one at a time; two
processes may do so on the same replica.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from llmlaunch.common import backoff
from llmlaunch.gateway.multiprocess.death_ledger import KEY_BYTES

SUSPECTED_S = 600.0
"""Seconds for which a suspect is remembered after a death."""
REFUSED_S, REFUSED_MOST_S = 300.0, 3600.0
"""Seconds for which it is refused: the first time, and at most."""
DEATHS = 2
"""Deaths after which it is refused."""
SUSPECTS_MOST = 1024
"""Suspects that are remembered; beyond that the oldest are forgotten."""
TRIAL_LEAST_S, TRIAL_MOST_S = 0.5, 2.0
"""Seconds, at least and at most, for which no other suspect is sent to its replica, unless its answer begins before."""
WAIT_LEAST_S, WAIT_MOST_S = 3.0, 6.0
"""Seconds, at least and at most, for which a suspect waits for its turn."""
WAIT_FOR_EQUAL_S = 30.0
"""Seconds for which a suspect waits while the same bytes are being tried."""


def key_of(body: bytes) -> bytes:
    """The digest by which a body is recognised."""
    return hashlib.blake2b(body, digest_size=KEY_BYTES).digest()


@dataclass(slots=True)
class Suspect:
    """One body that was in flight when a replica died."""

    size: int
    """Bytes of the body."""
    last: float
    """The time of the last death with it."""
    deaths: dict[str, float] = field(default_factory=dict)
    """Replica → when it died with the request."""
    count: int = 0
    """Deaths without a whole answer in between."""
    age: float = 0.0
    """Seconds between sending it and the last death."""
    responded: bool = False
    """Whether an answer has begun since."""
    trials: dict[str, float] = field(default_factory=dict)
    """Replica that has it now → until when no other suspect is sent there."""
    refused_until: float = 0.0
    refusals: int = 0
    """How many times it was refused for a while."""

    @property
    def forgotten_at(self) -> float:
        """When it is forgotten, unless there is another death."""
        return max(self.last, self.refused_until) + SUSPECTED_S


class Suspects:
    """The suspects that one gateway process remembers."""

    def __init__(self) -> None:
        self.sizes: frozenset[int] = frozenset()
        """The sizes of the remembered bodies: bodies of other sizes need not be digested."""
        self._known: dict[bytes, Suspect] = {}
        self._explained_deaths: dict[str, float] = {}
        """Replica → the time of its last death with a known culprit."""
        self._replicas_seen: frozenset[str] = frozenset()
        """All replicas that were there at a death."""

    def __len__(self) -> int:
        return len(self._known)

    def note_replicas(self, replicas: Iterable[str]) -> None:
        """Note that these ``replicas`` are there at a death."""
        self._replicas_seen = self._replicas_seen.union(replicas)

    def replicas_changed(self, replicas: Collection[str]) -> None:
        """Note that these ``replicas`` are there now. If all are new, they may run something else: forget everything."""
        if replicas and self._replicas_seen.isdisjoint(replicas):
            self._known.clear()
            self._explained_deaths.clear()
            self._replicas_seen = frozenset()
            self._index_sizes()

    def record_death(self, key: bytes, size: int, replica: str, sent_at: float, now: float) -> float:
        """Record that ``replica`` died or fell silent with the request ``key``, which it was sent at ``sent_at``.

        Returns for how many seconds the request is refused from now on; 0: it may be tried again.
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
        """The key of ``body`` if it is a suspect, else empty."""
        if len(body) not in self.sizes:
            return b""
        key = key_of(body)
        return key if key in self._known else b""

    def refused_for_s(self, key: bytes, now: float) -> float:
        """For how many more seconds the request ``key`` is refused; 0: it is not."""
        suspect = self._known.get(key)
        return 0.0 if suspect is None else max(0.0, suspect.refused_until - now)

    def is_free(self, key: bytes) -> bool:
        """Whether it may be sent to any replica, beside any other suspect."""
        suspect = self._known.get(key)
        return suspect is None or suspect.responded

    def age(self, key: bytes) -> float:
        """Seconds that it had been with the replica that died. The youngest is tried first."""
        suspect = self._known.get(key)
        return 0.0 if suspect is None else suspect.age

    def avoided(self, key: bytes, waited: float, now: float) -> frozenset[str] | None:
        """The replicas that it may not be sent to now, after ``waited`` seconds; None: it may not be sent to any."""
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
        """Note that it is sent to ``replica``."""
        suspect = self._known.get(key)
        if suspect is not None:
            longest = min(max(1.5 * suspect.age, TRIAL_LEAST_S), TRIAL_MOST_S)
            suspect.trials[replica] = now + longest

    def trial_ended(self, key: bytes, replica: str) -> None:
        """Note that ``replica`` does not have it any more, for whatever reason."""
        suspect = self._known.get(key)
        if suspect is not None:
            suspect.trials.pop(replica, None)

    def answer_began(self, key: bytes) -> None:
        """Note that its answer has begun."""
        suspect = self._known.get(key)
        if suspect is not None:
            suspect.responded = True

    def clear(self, key: bytes) -> bool:
        """Clear it, because it got a whole answer. Returns whether it was a suspect."""
        if self._known.pop(key, None) is None:
            return False
        self._index_sizes()
        return True

    def expire(self, now: float) -> None:
        """Forget old suspects."""
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
        """Refuse ``culprit`` for the death of ``replica``, and clear the suspects of its earlier deaths that were not there."""
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
"""Seconds within which all connections to a dead replica break."""


def _together(one: float | None, other: float) -> bool:
    return one is not None and abs(one - other) <= _ONE_DEATH_S
