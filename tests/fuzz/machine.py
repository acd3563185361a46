"""A whole gateway without sockets: any bytes from a client, any bytes from its replicas, in any order and any cuts.

An input is eight bytes of schedule, then the client's bytes, then one answer for each connection to a replica, with
``seeds.PART`` between them. Whatever they are: each request gets one answer, in order and well formed; the last one
may be cut if the connection ends there; and nothing is left behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

from llmlaunch.common.browser_guard import Door
from llmlaunch.gateway import request_handler
from llmlaunch.gateway.app import Gateway, GatewayOptions
from llmlaunch.gateway.exchange.exchange import Exchange
from llmlaunch.gateway.failures import InvalidResponse
from llmlaunch.gateway.http1.client_connection import ClientConnection
from llmlaunch.gateway.http1.framing import BodyFraming, parse_head
from llmlaunch.gateway.http1.upstream import UpstreamConnection
from llmlaunch.gateway.observe.outcome import CLIENT_LEFT, RequestOutcome
from llmlaunch.gateway.routing import route_table
from llmlaunch.gateway.routing.retry import RetryBudget
from llmlaunch.gateway.routing.route_table import RoutedReplica, RouteTable
from tests.fuzz.seeds import PART
from tests.support.exchanges import CheckedExchange

SCHEDULE = 8
MOST_BODY = 4096
MOST_TURNS = 400
_NO_BODY = (204, 304)


class NoSocket:
    """As far as a gateway looks at one."""

    family = 0

    def getsockopt(self, *_: object) -> bytes:
        return b"\x01"

    def fileno(self) -> int:
        return 3


class Wire(asyncio.Transport):
    """The near end of a connection; what is written is kept."""

    def __init__(self, protocol: asyncio.Protocol, on_write: Callable[[], None] = lambda: None) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "socket": NoSocket()})
        self.protocol = protocol
        self.written = bytearray()
        self.closing = False
        self.lost = False
        self.ended = False
        self.paused = False
        self.aborted = False
        self.stalled = False
        """Its writer was told to pause."""
        self._on_write = on_write
        protocol.connection_made(self)

    def write(self, data: Any) -> None:
        assert not self.ended, "bytes after the end"
        if not self.closing:
            self.written += data
            self._on_write()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closing

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def close(self) -> None:
        self._end(None)

    def abort(self) -> None:
        self.aborted = True
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self.lose, error)

    def lose(self, error: Exception | None) -> None:
        self.closing = True
        if not self.lost:
            self.lost = True
            self.protocol.connection_lost(error)


class Peer:
    """Somebody far away, who sends ``script`` in pieces of ``size`` bytes and then does what ``manner`` says."""

    def __init__(self, wire: Wire, script: bytes, size: int, manner: int) -> None:
        self.wire = wire
        self._rest = script
        self._size = size or max(1, len(script))
        self._manner = manner % 4
        self._over = False

    def act(self) -> bool:
        """One step; False when there is none."""
        wire = self.wire
        if wire.closing or self._over or (wire.paused and self._rest):
            return False
        if self._rest:
            piece, self._rest = self._rest[: self._size], self._rest[self._size :]
            wire.protocol.data_received(piece)
            return True
        self._over = True
        if self._manner == 1:
            if not wire.protocol.eof_received():
                wire.close()
        elif self._manner == 2:
            wire.lose(ConnectionResetError("reset"))
        return self._manner in (1, 2)


class Machine:
    """One gateway for many inputs. Made within its loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.gateway = gateway = Gateway(
            GatewayOptions(max_body_bytes=MOST_BODY, door=Door(origins=frozenset(["https://a.example"])))
        )
        rows = [
            {"worker_name": "http://h:1", "model_names": ["m"]},
            {"worker_name": "http://h:2", "model_names": ["m", "alias"], "engine_model": "b"},
            {"worker_name": "http://h:3", "model_names": ["m"], "max_concurrency": 1},
        ]
        table, complaints = route_table.parse(
            {
                "epoch": "e",
                "rev": 1,
                "settled": True,
                "dispatch": "shortest_queue",
                "replicas": rows,
                "expected": [],
            }
        )
        assert not complaints
        self.table = route_table.merge(gateway.router.table, table)
        gateway.router.adopt(self.table)
        gateway.replicas.connect = self._connect  # type: ignore[method-assign]  # to a wire of this machine
        self._ended = gateway.closer.ended
        gateway.closer.ended = self._note_end  # type: ignore[method-assign]  # listens in, and calls it
        gateway.exchanges.ended = self._note_end
        self.statuses: list[tuple[bytes, int]] = []
        self.wires: list[tuple[Wire, UpstreamConnection]] = []
        self.peers: list[Peer] = []
        self.answers: list[bytes] = []
        self.schedule = b""
        self.trouble: list[str] = []
        self.loop.set_exception_handler(lambda _, context: self.trouble.append(repr(context)))

    def _note_end(self, outcome: RequestOutcome, quiet: bool = False) -> None:
        self.statuses.append((outcome.request.method, outcome.status))
        self._ended(outcome, quiet)

    async def _connect(self, replica: RoutedReplica) -> UpstreamConnection:
        number = len(self.wires)
        if self.schedule[4] >> (number % 8) & 1:
            raise ConnectionRefusedError(111, "refused")
        connection = UpstreamConnection(self.gateway.replicas.pool, replica.key, b"host: h\r\n")
        script = self.answers[min(number, len(self.answers) - 1)]
        wire = Wire(connection, lambda: self._asked(wire, script, number))
        self.wires.append((wire, connection))
        return connection

    def _asked(self, wire: Wire, script: bytes, number: int) -> None:
        """A replica was sent a request: it answers with its script, every time."""
        manner = self.schedule[3] >> (2 * (number % 4))
        self.peers.append(Peer(wire, script, self.schedule[1], manner))

    async def run(self, data: bytes) -> None:
        self.schedule = data[:SCHEDULE].ljust(SCHEDULE, b"\0")
        sent, *answers = data[SCHEDULE:].split(PART)
        self.answers = answers or [b""]
        client = Wire(ClientConnection(self.gateway))
        self.peers.append(Peer(client, sent, self.schedule[0], self.schedule[2]))
        await self._play(client)
        if client.stalled:
            self._resume(client)
            await self._play(client)
        over = (client.closing or client.ended) and not any(
            status == CLIENT_LEFT for _, status in self.statuses
        )
        out = bytes(client.written)
        self._look(out, whole=not over, aborted=client.aborted)
        client.lose(None)
        for _ in range(4):
            await asyncio.sleep(0)
        self._nothing_left()
        self._forget()

    def _resume(self, client: Wire) -> None:
        client.stalled = False
        client.protocol.resume_writing()

    def _happen(self, client: Wire, turn: int) -> None:
        """What comes from neither side: a client that reads slowly, time, changes of routes, the end."""
        order = self.schedule[7]
        if client.closing:
            return
        if not client.stalled and turn % 8 == order & 7:
            client.stalled = True
            client.protocol.pause_writing()
        elif client.stalled and turn % 4 == order >> 3 & 3:
            self._resume(client)
        if turn != self.schedule[6] & 15:
            return
        match self.schedule[6] >> 4:
            case 1:
                self.gateway.stop()
            case 2:
                self.gateway.shut_down()
            case 3:
                cast(ClientConnection, client.protocol).sweep(self.gateway.now() + 1000)
            case 4:
                self.gateway.router.adopt(RouteTable(settled=True))
            case 5:
                self.gateway.router.refuse_overdue(self.gateway.now() + 1000)

    async def _play(self, client: Wire) -> None:
        order = int.from_bytes(self.schedule[5:8], "big")
        for turn in range(MOST_TURNS):
            self._happen(client, turn)
            count = len(self.peers)
            at = (order >> (turn % 24)) % count
            acted = any(self.peers[(at + n) % count].act() for n in range(count))
            await asyncio.sleep(0)
            if not acted and count == len(self.peers) and turn > 16 and not self.gateway._tasks:
                return

    def _look(self, out: bytes, whole: bool, aborted: bool) -> None:
        """``whole``: the connection goes on, and only what is still being answered may lack its end. ``aborted``: it was
        given up, and who was answered in the same moment got nothing."""
        told = [entry for entry in self.statuses if entry[1] != CLIENT_LEFT]
        for number, (method, status) in enumerate(told):
            while True:
                end = out.find(b"\r\n\r\n")
                if end < 0 and aborted and not out:
                    return
                assert end >= 0, f"no answer for {told[number:]}"
                head = parse_head(out[: end + 4])
                out = out[end + 4 :]
                if head.status != 100:
                    break
            assert head.status == status, "the answer is not that which was counted"
            assert head.get(b"x-request-id")
            if method == b"HEAD" or status in _NO_BODY:
                continue
            body = BodyFraming(head)
            size = 0
            while not body.done and size < len(out):
                body.feed(out[size : size + 1])
                size += 1
            out = out[size:]
            if not body.done:
                assert number == len(told) - 1, "an answer behind one that was cut"
                assert not out
                assert not whole, "an answer without its end"
        while out.startswith(b"HTTP/1.1 100"):
            out = out.partition(b"\r\n\r\n")[2]
        if out:  # what is being answered now: one more, begun
            assert whole, "an answer to nothing"
            assert out.startswith(b"HTTP/1.1 ")
            end = out.find(b"\r\n\r\n")
            assert end >= 0
            body = BodyFraming(parse_head(out[: end + 4]))
            try:
                body.feed(out[end + 4 :])
            except InvalidResponse as error:
                raise AssertionError("an answer that is none has begun") from error
            assert not body.done or body.until_close

    def _nothing_left(self) -> None:
        gateway = self.gateway
        assert not self.trouble, self.trouble
        assert not gateway.connections
        assert not gateway.router.queue
        assert not gateway._tasks
        counts = gateway.router.in_flight()
        assert not counts, f"slots are never given back: {counts}"
        idle = [connection for pooled in gateway.replicas.pool._idle.values() for connection in pooled]
        for wire, connection in self.wires:
            assert wire.closing or connection in idle, "a connection to a replica is left open"
        assert all(not connection.closed for connection in idle)

    def _forget(self) -> None:
        self.gateway.replicas.pool.close()
        self.gateway.stopping = self.gateway.exchanges.stopping = False
        self.gateway.router.adopt(self.table)
        for health in self.gateway.router.health_of.values():
            health.joined(None)
        self.gateway.router.retries = RetryBudget(at=self.gateway.now())
        self.statuses.clear()
        self.wires.clear()
        self.peers.clear()


class Target:
    """:meth:`__call__` runs one input on a machine that goes on to the next."""

    def __init__(self) -> None:
        self._log = logging.getLogger("llmlaunch")
        self._level = self._log.level
        self._log.setLevel(logging.ERROR)
        setattr(request_handler, "Exchange", CheckedExchange)  # noqa: B010  # every step of every one is looked at
        self._runner = asyncio.Runner()
        self._machine = self._runner.run(self._make())

    async def _make(self) -> Machine:
        return Machine()

    def __call__(self, data: bytes) -> None:
        try:
            self._runner.run(self._machine.run(data))
        except BaseException:
            self._machine = self._runner.run(self._make())
            raise

    def close(self) -> None:
        self._runner.close()
        setattr(request_handler, "Exchange", Exchange)  # noqa: B010
        self._log.setLevel(self._level)
