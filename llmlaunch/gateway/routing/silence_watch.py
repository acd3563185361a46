"""Watching replicas that say nothing, once a second for all requests together: what ``silence`` decides is done here.

Nothing is done for an event of a stream: whether anything came is seen by the pieces that are kept of each answer.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmlaunch.gateway.http1 import headers
from llmlaunch.gateway.http1.framing import BodyFraming, ResponseHead
from llmlaunch.gateway.http1.upstream import UpstreamConnection
from llmlaunch.gateway.routing.route_table import RoutedReplica
from llmlaunch.gateway.routing.silence import ReplicaSilence, SilenceVerdict

if TYPE_CHECKING:
    from llmlaunch.gateway.app import Gateway
    from llmlaunch.gateway.exchange import Exchange

log = logging.getLogger(__name__)

QUESTIONS: dict[bytes, dict[str, object]] = {
    b"/v1/chat/completions": {"messages": [{"role": "user", "content": "1"}], "max_tokens": 1},
    b"/v1/completions": {"prompt": "1", "max_tokens": 1},
    b"/v1/responses": {"input": "1", "max_output_tokens": 16, "store": False},
    b"/v1/embeddings": {"input": "1"},
    b"/v1/rerank": {"query": "1", "documents": ["1"]},
    b"/v2/rerank": {"query": "1", "documents": ["1"]},
    b"/v1/score": {"text_1": "1", "text_2": "1"},
    b"/tokenize": {"prompt": "1"},
}
"""By path, the least that can be asked. One that is refused is answered too."""


class SilenceProbe:
    """A tiny request of the gateway's own. Implements ``upstream.AnswerTaker``."""

    decoding = False

    def __init__(self, vigil: SilenceWatch, replica: RoutedReplica, path: bytes, name: str) -> None:
        self._vigil = vigil
        self._replica = replica
        self._path = path
        self._name = name
        self._connection: UpstreamConnection | None = None
        self._status = 0
        self._task = vigil.gateway.spawn(self._send())

    async def _send(self) -> None:
        replica = self._replica
        gateway = self._vigil.gateway
        try:
            self._connection = connection = await gateway.pool.connect(replica)
        except OSError:
            self._vigil.unanswered(replica, self)
            return
        body = json.dumps({"model": replica.engine_model or self._name} | QUESTIONS[self._path]).encode()
        lines = b"content-type: application/json\r\n"
        path, identity = replica.prefix + self._path, gateway.new_identity()
        head = headers.to_worker(b"POST", path, connection.lines, lines, identity, len(body))
        connection.send(self, head, body)

    def drop(self) -> None:
        """The answer does not matter any more."""
        self._task.cancel()
        if self._connection is not None:
            self._connection.drop()

    def answer_began(self, head: ResponseHead, body: BodyFraming) -> None:
        self._status = head.status

    def answer_bytes(self, data: bytes) -> None: ...

    def answer_ended(self) -> None:
        self._connection = None
        if self._status < 500:
            self._vigil.answered(self._replica, self)
        else:
            self._vigil.unanswered(self._replica, self)

    def answer_broke(self, why: str, kind: str, began: bool) -> None:
        self._connection = None
        self._vigil.unanswered(self._replica, self)


class SilenceWatch:
    """Over all replicas that have requests of this process, and those that are silent."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._watches: dict[str, ReplicaSilence] = {}
        self._spoke: dict[str, int] = {}
        """Replica → answers that had begun at the last sweep."""
        self._questions: dict[str, SilenceProbe] = {}
        self._asked: dict[str, tuple[bytes, str]] = {}
        """Replica → path and model of the last question."""

    def sweep(self, exchanges: Sequence[Exchange], now: float) -> None:
        """``exchanges`` are all that may have a request at a replica."""
        held: dict[str, list[Exchange]] = {}
        for exchange in exchanges:
            replica = exchange.replica
            if replica is not None:
                held.setdefault(replica.key, []).append(exchange)
                if exchange.heard():
                    self._heard(replica.key, now)
        table = self.gateway.table
        for key, replica in table.replicas.items():
            spoke = self.gateway.load(key).spoke
            if self._spoke.get(key, 0) != spoke:
                self._spoke[key] = spoke
                self._heard(key, now)
            if key in held or key in self._watches:
                self._judge(replica, held.get(key, []), now)
        for key in self._watches.keys() - table.replicas.keys():
            self._forget(key)

    def close(self) -> None:
        for question in self._questions.values():
            question.drop()
        self._questions.clear()

    def answered(self, replica: RoutedReplica, question: SilenceProbe) -> None:
        if self._questions.get(replica.key) is question:
            del self._questions[replica.key]
            self._heard(replica.key, self.gateway.now())

    def unanswered(self, replica: RoutedReplica, question: SilenceProbe) -> None:
        """It got no answer, and will not get one."""
        if self._questions.get(replica.key) is question:
            del self._questions[replica.key]
            self._watches[replica.key].lost()

    def _judge(self, replica: RoutedReplica, exchanges: list[Exchange], now: float) -> None:
        watch = self._watches.setdefault(replica.key, ReplicaSilence())
        serving = self.gateway.table.serving
        alone = all(len(serving.get(name, ())) <= 1 for name in replica.names)
        waiting = [exchange.waiting() for exchange in exchanges]
        verdict = watch.judge(waiting, replica, now, alone=alone, processes=self.gateway.crew.size)
        if verdict is SilenceVerdict.ASK:
            self._ask(replica, exchanges)
        elif verdict is SilenceVerdict.SILENT:
            self._broken(replica, exchanges, now)
        if not (watch.doubted or exchanges):
            self._forget(replica.key)
        self.gateway.load(replica.key).doubted = watch.doubted

    def _ask(self, replica: RoutedReplica, exchanges: Sequence[Exchange]) -> None:
        askable = [exchange for exchange in exchanges if exchange.path in QUESTIONS]
        if askable:
            self._asked[replica.key] = askable[0].path, askable[0].name
        path, name = self._asked.get(replica.key, (b"", ""))
        old = self._questions.pop(replica.key, None)
        if old is not None:
            old.drop()
        if path:
            self._questions[replica.key] = SilenceProbe(self, replica, path, name)
        else:  # nothing it has can be asked for in little
            self._watches[replica.key].lost()

    def _broken(self, replica: RoutedReplica, exchanges: Sequence[Exchange], now: float) -> None:
        since = max(self._watches[replica.key].heard_at, min(e.waiting().sent_at for e in exchanges))
        log.warning(
            "%s said nothing for %.0f s, and does not answer a tiny request either: its %d requests go elsewhere, "
            "and it is left out until it answers",
            replica.key, now - since, len(exchanges),
        )  # fmt: skip
        self.gateway.load(replica.key).doubted = True
        for exchange in exchanges:
            exchange.silenced(now - since)

    def _heard(self, key: str, now: float) -> None:
        watch = self._watches.get(key)
        if watch is None:
            watch = self._watches[key] = ReplicaSilence()
        if watch.silent:
            log.info("%s answers again", key)
        if watch.doubted:
            load = self.gateway.load(key)
            load.answered()
            load.doubted = False
            self.gateway.call_waiting()
        watch.heard(now)
        question = self._questions.pop(key, None)
        if question is not None:
            question.drop()

    def _forget(self, key: str) -> None:
        self._watches.pop(key, None)
        self._asked.pop(key, None)
        question = self._questions.pop(key, None)
        if question is not None:
            question.drop()
