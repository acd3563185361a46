"""Watches for replicas that send nothing, and does what ``silence`` decides: once a second, for all requests together.

It costs nothing per event of a stream: whether anything came shows in the last pieces that are kept of each answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from llmlaunch.gateway.routing.health.silence import AwaitedResponse, ReplicaSilence, SilenceVerdict
from llmlaunch.gateway.routing.route_table import RoutedReplica
from llmlaunch.gateway.routing.router import Router

log = logging.getLogger(__name__)

PROBE_BODIES: dict[bytes, dict[str, object]] = {
    b"/v1/chat/completions": {"messages": [{"role": "user", "content": "1"}], "max_tokens": 1},
    b"/v1/completions": {"prompt": "1", "max_tokens": 1},
    b"/v1/responses": {"input": "1", "max_output_tokens": 16, "store": False},
    b"/v1/messages": {"messages": [{"role": "user", "content": "1"}], "max_tokens": 1},
    b"/v1/embeddings": {"input": "1"},
    b"/v1/rerank": {"query": "1", "documents": ["1"]},
    b"/v2/rerank": {"query": "1", "documents": ["1"]},
    b"/v1/score": {"text_1": "1", "text_2": "1"},
    b"/tokenize": {"prompt": "1"},
    b"/pooling": {"input": "1"},
    b"/classify": {"input": "1"},
    b"/v1/moderations": {"input": "1"},
    # A valid request would be work for minutes; to refuse these is none.
    b"/v1/audio/transcriptions": {},
    b"/v1/audio/translations": {},
    b"/v1/audio/speech": {},
    b"/v1/images/generations": {},
    b"/v1/images/edits": {},
    b"/v1/images/variations": {},
}
"""The smallest request for each path, without the model. A refusal counts as an answer, too."""


class InFlight(Protocol):
    """A request that a replica may have now."""

    @property
    def replica(self) -> RoutedReplica | None:
        """The replica that has it; None: none has."""
        ...

    @property
    def model(self) -> str:
        """The requested served name."""
        ...

    @property
    def path(self) -> bytes:
        """The path at the replica, without its prefix."""
        ...

    def made_progress(self) -> bool:
        """Whether anything came since the last call, or could not come because nobody read it."""
        ...

    def awaited(self) -> AwaitedResponse:
        """The response that it waits for."""
        ...

    def gave_up_replica(self, seconds: float) -> None:
        """The replica has sent nothing for ``seconds`` and is taken for broken: go elsewhere or fail."""
        ...


class Probe(Protocol):
    """A probe on its way. It calls :meth:`SilenceWatch.answered` or ``unanswered`` once, unless it is dropped."""

    def drop(self) -> None:
        """Cancel it."""
        ...


SendProbe = Callable[["SilenceWatch", RoutedReplica, bytes, str], Probe]
"""Sends a probe for the watch: to a replica, at a path of PROBE_BODIES, for a model."""


class SilenceWatch:
    """Watches all replicas that have requests of this process or are silent. ``send`` sends a probe."""

    def __init__(self, router: Router, now: Callable[[], float], send: SendProbe) -> None:
        self._router = router
        self._now = now
        self._send = send
        self._silences: dict[str, ReplicaSilence] = {}
        self._spoke: dict[str, int] = {}
        """Replica → how many of its answers had begun at the last sweep."""
        self._probes: dict[str, Probe] = {}
        self._last_probes: dict[str, tuple[bytes, str]] = {}
        """Replica → path and model of its last probe."""

    def sweep(self, requests: Sequence[InFlight], now: float) -> None:
        """Judge all replicas. ``requests`` are all that a replica may have now. Call it about once a second."""
        held: dict[str, list[InFlight]] = {}
        for request in requests:
            replica = request.replica
            if replica is not None:
                held.setdefault(replica.key, []).append(request)
                if request.made_progress():
                    self._heard(replica.key, now)
        table = self._router.table
        for key, replica in table.replicas.items():
            spoke = self._router.health(key).answers_begun
            if self._spoke.get(key, 0) != spoke:
                self._spoke[key] = spoke
                self._heard(key, now)
            if key in held or key in self._silences:
                self._judge(replica, held.get(key, []), now)
        for key in self._silences.keys() - table.replicas.keys():
            self._forget(key)

    def close(self) -> None:
        """Drop all probes."""
        for probe in self._probes.values():
            probe.drop()
        self._probes.clear()

    def answered(self, replica: RoutedReplica, probe: Probe) -> None:
        """Note that ``replica`` answered ``probe``."""
        if self._probes.get(replica.key) is probe:
            del self._probes[replica.key]
            self._heard(replica.key, self._now())

    def unanswered(self, replica: RoutedReplica, probe: Probe) -> None:
        """Note that ``probe`` failed: no answer will come."""
        if self._probes.get(replica.key) is probe:
            del self._probes[replica.key]
            self._silences[replica.key].probe_lost()

    def _judge(self, replica: RoutedReplica, requests: list[InFlight], now: float) -> None:
        silence = self._silences.setdefault(replica.key, ReplicaSilence())
        serving = self._router.table.serving
        alone = all(len(serving.get(name, ())) <= 1 for name in replica.names)
        awaited = [request.awaited() for request in requests]
        verdict = silence.judge(awaited, replica, now, alone=alone, processes=self._router.processes)
        if verdict is SilenceVerdict.PROBE:
            self._probe(replica, requests)
        elif verdict is SilenceVerdict.SILENT:
            self._broken(replica, requests, now)
        if not (silence.doubted or requests):
            self._forget(replica.key)
        self._router.health(replica.key).doubted = silence.doubted

    def _probe(self, replica: RoutedReplica, requests: Sequence[InFlight]) -> None:
        askable = [request for request in requests if request.path in PROBE_BODIES]
        if askable:
            self._last_probes[replica.key] = askable[0].path, askable[0].model
        path, model = self._last_probes.get(replica.key, (b"", ""))
        old = self._probes.pop(replica.key, None)
        if old is not None:
            old.drop()
        if path:
            self._probes[replica.key] = self._send(self, replica, path, model)
        else:  # none of its requests has a path with a small request
            self._silences[replica.key].probe_lost()

    def _broken(self, replica: RoutedReplica, requests: Sequence[InFlight], now: float) -> None:
        since = max(self._silences[replica.key].heard_at, min(r.awaited().sent_at for r in requests))
        log.warning(
            "%s sent nothing for %.0f s and does not answer a tiny request either: its %d requests go elsewhere, "
            "and it is left out until it answers",
            replica.key, now - since, len(requests),
        )  # fmt: skip
        self._router.health(replica.key).doubted = True
        for request in requests:
            request.gave_up_replica(now - since)

    def _heard(self, key: str, now: float) -> None:
        silence = self._silences.get(key)
        if silence is None:
            silence = self._silences[key] = ReplicaSilence()
        if silence.silent:
            log.info("%s answers again", key)
        if silence.doubted:
            health = self._router.health(key)
            health.answered()
            health.doubted = False
            self._router.serve_waiting()
        silence.heard(now)
        probe = self._probes.pop(key, None)
        if probe is not None:
            probe.drop()

    def _forget(self, key: str) -> None:
        self._silences.pop(key, None)
        self._last_probes.pop(key, None)
        probe = self._probes.pop(key, None)
        if probe is not None:
            probe.drop()
