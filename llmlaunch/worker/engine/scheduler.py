"""What the next step computes. Pure: plain data in, plain data out; no tensors, no clock, no randomness.

Every request lives in one row of the KV cache, from column 0 on: column and position are the same number.
A step is a list of spans, the tokens of running requests that still have to go through the model::

    waiting ──admit──► running: tokens[done:] to compute ──► none left: a token was sampled ──► append, and again
                                long prompts: a budget a step               │
                                                                            ▼
                                          finished · cancelled: the row keeps its tokens for requests that share them

A decode is a span of one token; a prompt chunk is a longer one. Both go through the model in one pass.

Room. A request reserves room for its prompt and its expected answer; a longer answer takes more, piece by piece. When
memory runs out, the running request that ranks last is preempted: it goes back into the queue with its tokens, and
computes them again later. The first in rank always continues, so requests never wait in a circle.

Rank. Lower priority values first, then by arrival; but a request that was overtaken :data:`MOST_OVERTAKES` times comes
before all that were not, so a steady flow of urgent requests delays the others but never starves them.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from llmlaunch.worker.kv.types import Capacity, CopyColumns, DropRow, Span

LEAST_REUSE = 8
"""Tokens: a shorter common prefix is not worth copying."""
MOST_OVERTAKES = 64
"""Maximum number of times that later requests, or their prompts, may overtake a waiting one."""
GROWTH = 256
"""Tokens of room that an answer takes at a time once it is longer than expected."""
EVEN_CHUNK = 128
"""Chunk size, in tokens, of prompts that are always split at the same positions."""


@dataclass(frozen=True, slots=True)
class ScheduledRequest:
    """A request as the scheduler sees it."""

    request_id: str
    prompt: tuple[int, ...]
    max_new: int
    priority: int = 0
    reuse: bool = True
    """Whether it may reuse columns that another request computed."""
    after: str = ""
    """A request with the same prompt, whose computation is worth waiting for."""
    expected: int | None = None
    """Tokens of the answer that room is reserved for at the start. None: all of ``max_new``, and no preemption."""
    even: bool = False
    """Whether its prompt is always split at the same positions, so that it is rounded the same way every time."""

    @property
    def need(self) -> int:
        return len(self.prompt) + self.max_new


Rank = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Step:
    """``moves`` first, in order, then all ``spans`` in one forward pass."""

    moves: tuple[CopyColumns | DropRow, ...] = ()
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class PendingPrompt:
    """The part of a prompt that is not computed yet."""

    tokens: int
    begun: bool = False
    """Whether a chunk of it was computed in an earlier step."""


@dataclass(slots=True)
class _Running:
    ticket: ScheduledRequest
    row: int
    tokens: list[int]
    done: int
    cached: int
    arrival: int
    room: int
    """Tokens that it has reserved."""
    overtaken: int
    held: int
    """Columns of its row that were in memory when the request got it."""

    @property
    def left(self) -> int:
        return len(self.tokens) - self.done

    @property
    def unread(self) -> PendingPrompt:
        return PendingPrompt(self.left, begun=self.done > self.cached)

    @property
    def decoding(self) -> bool:
        return self.left == 1 and len(self.tokens) > len(self.ticket.prompt)

    @property
    def reserve(self) -> int:
        return max(self.held, self.room)

    @property
    def firm(self) -> bool:
        return self.ticket.expected is None

    @property
    def rank(self) -> Rank:
        return _rank(self.ticket, self.arrival, self.overtaken)


@dataclass(slots=True)
class _Idle:
    """A row without a request, and the tokens its columns still hold."""

    tokens: list[int] = field(default_factory=list)
    used: int = 0
    held: int = 0
    """Columns written since the row was last released: a shorter request leaves more than its own tokens."""


@dataclass(order=True, slots=True)
class _Waiting:
    key: Rank
    ticket: ScheduledRequest = field(compare=False)
    tokens: list[int] = field(compare=False)
    arrival: int = field(compare=False)
    overtaken: int = field(default=0, compare=False)
    cached: int | None = field(default=None, compare=False)
    """Reused prompt tokens when it first ran; None: it has not run yet."""

    @property
    def room(self) -> int:
        """Tokens to reserve when it starts."""
        if self.ticket.expected is None:
            return self.ticket.need
        said = len(self.tokens) - len(self.ticket.prompt)
        expected = max(self.ticket.expected, said + GROWTH)
        return min(self.ticket.need, len(self.ticket.prompt) + expected)


def _rank(ticket: ScheduledRequest, arrival: int, overtaken: int) -> Rank:
    """Sort key: lower runs first."""
    return (0, 0, arrival) if overtaken >= MOST_OVERTAKES else (1, ticket.priority, arrival)


class Scheduler:
    """The requests of one engine. Not thread-safe: used by the engine's thread alone."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._waiting: list[_Waiting] = []
        self._running: dict[str, _Running] = {}
        self._idle: dict[int, _Idle] = {row: _Idle() for row in range(capacity.rows)}
        self._arrivals = 0
        self._ticks = 0
        self.preempted = 0
        """Number of preemptions so far."""
        self._moves: list[CopyColumns | DropRow] = []

    # -- queries -------------------------------------------------------------------------------------------------

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        return bool(self._running or self._waiting)

    @property
    def kv_used(self) -> float:
        """Fraction of the cache that running requests fill, 0 to 1."""
        return min(1.0, sum(r.done for r in self._running.values()) / max(1, self.capacity.tokens))

    def requests(self) -> Iterator[str]:
        yield from self._running
        yield from (w.ticket.request_id for w in self._waiting)

    def row_of(self, request_id: str) -> int | None:
        running = self._running.get(request_id)
        return running.row if running else None

    def cached(self, request_id: str) -> int:
        """Prompt tokens of a running request that were reused from another."""
        return self._running[request_id].cached

    def decoding(self) -> int:
        return sum(r.decoding for r in self._running.values())

    # -- events --------------------------------------------------------------------------------------------------

    def add(self, ticket: ScheduledRequest) -> None:
        """Take a request. Raises ValueError if it can never fit, or its id is already in use."""
        if not self.fits_ever(len(ticket.prompt), ticket.max_new):
            raise ValueError(f"{ticket.request_id} needs more room than the cache has")
        if any(ticket.request_id == known for known in self.requests()):
            raise ValueError(f"{ticket.request_id} is already in use")
        self._arrivals += 1
        self._queue(ticket, list(ticket.prompt), self._arrivals, overtaken=0, cached=None)

    def fits_ever(self, prompt: int, max_new: int) -> bool:
        need = prompt + max_new
        return prompt > 0 and need <= self.capacity.columns and need <= self.capacity.tokens

    def advance(self, request_id: str, token: int) -> None:
        """Append ``token``, which was sampled after the request's last span."""
        self._running[request_id].tokens.append(token)

    def remove(self, request_id: str) -> bool:
        """End a request. Its row stays available for reuse. False: it was not found."""
        running = self._running.pop(request_id, None)
        if running is not None:
            self._retire(running)
            return True
        for at, waiting in enumerate(self._waiting):
            if waiting.ticket.request_id == request_id:
                del self._waiting[at]
                return True
        return False

    def forget(self) -> None:
        """Invalidate all idle rows: the device failed, and their content is unknown."""
        for row in self._idle:
            self._drop(row)

    # -- the decision --------------------------------------------------------------------------------------------

    def step(
        self, prompt_budget: int, burst: Callable[[Sequence[PendingPrompt]], int] = lambda prompts: 0
    ) -> Step:
        """The next step. ``prompt_budget``: maximum number of prompt tokens in it.

        ``burst`` may raise the budget; it gets what is left of each prompt, in order of rank. The budget is at least one
        token, so prompts always make progress. The caller must compute every span.
        """
        self._ticks += 1
        self._grow()
        self._admit()
        ranked = sorted(self._running.values(), key=lambda r: r.rank)
        budget = max(1, prompt_budget, burst([r.unread for r in ranked if not r.decoding]))
        spans: list[Span] = []
        for running in ranked:
            size = 1 if running.decoding else self._chunk(running, budget)
            if not running.decoding:
                budget -= size
            if size:
                spans.append(self._span(running, size))
            else:
                running.overtaken += 1
        moves, self._moves = tuple(self._moves), []
        spans.sort(key=lambda span: span.row)
        return Step(moves, tuple(spans))

    def _chunk(self, running: _Running, budget: int) -> int:
        if running.ticket.even and budget > 0:
            return min(running.left, EVEN_CHUNK)
        return min(running.left, max(0, budget))

    def _span(self, running: _Running, size: int) -> Span:
        start = running.done
        prompt = not running.decoding
        running.done += size
        return Span(
            request_id=running.ticket.request_id,
            row=running.row,
            start=start,
            tokens=tuple(running.tokens[start : running.done]),
            samples=running.left == 0,
            prompt=prompt,
        )

    # -- admission -----------------------------------------------------------------------------------------------

    def _grow(self) -> None:
        """Reserve room for answers that are longer than expected; preempt the last in rank when there is none."""
        for running in self._running.values():
            if len(running.tokens) > running.room:
                running.room = min(running.ticket.need, len(running.tokens) + GROWTH)
        while self._reserved() > self.capacity.tokens:
            # Requests that are never preempted fit together, or they would not have been admitted.
            last = max((r for r in self._running.values() if not r.firm), key=lambda r: r.rank)
            self._preempt(last)
        self._clear(self.capacity.tokens - self._reserved())

    def _reserved(self) -> int:
        return sum(r.reserve for r in self._running.values())

    def _preempt(self, running: _Running) -> None:
        del self._running[running.ticket.request_id]
        self._retire(running)
        self.preempted += 1
        self._queue(running.ticket, running.tokens, running.arrival, running.overtaken, running.cached)

    def _admit(self) -> None:
        """Move waiting requests into rows, in order; one that does not fit makes all behind it wait."""
        at = 0
        while at < len(self._waiting) and self._idle:
            waiting = self._waiting[at]
            if waiting.overtaken < MOST_OVERTAKES and self._shares_soon(waiting):
                at += 1  # its prompt is being computed for another request; waiting for that is cheaper
                continue
            free = self.capacity.tokens - self._reserved() - waiting.room
            if free < 0:
                break
            self._clear(free)
            del self._waiting[at]
            self._place(waiting)
            at -= self._pass_over(waiting.arrival, at)

    def _pass_over(self, arrival: int, at: int) -> int:
        """Count an overtake for all that arrived before ``arrival``; return by how much position ``at`` moves back."""
        passed = [w for w in self._waiting if w.arrival < arrival]
        aged = 0
        for waiting in passed:
            waiting.overtaken += 1
            if waiting.overtaken == MOST_OVERTAKES:
                waiting.key = _rank(waiting.ticket, waiting.arrival, waiting.overtaken)
                aged += 1
        if aged:
            self._waiting.sort()
        return at if aged else 0

    def _shares_soon(self, waiting: _Waiting) -> bool:
        """Whether another request is about to compute most of what this one needs."""
        ticket = waiting.ticket
        if not ticket.reuse:
            return False
        leader = self._running.get(ticket.after)
        if leader is not None and leader.done < len(ticket.prompt):
            return True
        if any(w.ticket.request_id == ticket.after for w in self._waiting):
            return True
        limit = len(waiting.tokens) - 1
        for running in self._running.values():
            size = min(limit, len(running.tokens))
            if running.done < size:  # still at its prompt
                common = common_prefix(waiting.tokens, running.tokens, size)
                if common > running.done and common >= max(LEAST_REUSE, len(waiting.tokens) // 2):
                    return self._best_source(waiting.tokens)[1] < common
        return False

    def _clear(self, most: int) -> None:
        """Release the memory of idle rows, oldest first, until they hold at most ``most`` tokens."""
        kept = sum(idle.held for idle in self._idle.values())
        if kept <= most:
            return
        for row in sorted(self._idle, key=lambda row: self._idle[row].used):
            if kept <= most:
                break
            kept -= self._idle[row].held
            self._drop(row)

    def _place(self, waiting: _Waiting) -> None:
        ticket, tokens = waiting.ticket, waiting.tokens
        source, common = self._best_source(tokens) if ticket.reuse else (-1, 0)
        in_place = source in self._idle and 2 * common >= len(self._idle[source].tokens)
        row = source if in_place else self._oldest_row(spare=source)
        if common and row != source:
            if source in self._idle:
                self._idle[source].used = self._ticks
            self._moves.append(CopyColumns(source, row, common))
        held = self._idle.pop(row).held
        cached = min(common, len(ticket.prompt)) if waiting.cached is None else waiting.cached
        self._running[ticket.request_id] = _Running(
            ticket, row, tokens, common, cached, waiting.arrival, waiting.room, waiting.overtaken, held
        )

    def _oldest_row(self, spare: int) -> int:
        """An idle row: preferably an empty one, then the least recently used; ``spare`` only if there is no other."""
        return min(
            self._idle,
            key=lambda row: (row == spare, bool(self._idle[row].tokens), self._idle[row].used, row),
        )

    def _best_source(self, tokens: list[int]) -> tuple[int, int]:
        """The row with the longest prefix common with ``tokens``, and its length; (-1, 0) if it is not worth reusing.

        The last token is never reused: its logits are needed.
        """
        best, row = 0, -1
        limit = len(tokens) - 1
        for other, known, size in self._known():
            if min(size, limit) > best:
                common = common_prefix(tokens, known, min(size, limit))
                if common > best:
                    best, row = common, other
        return (row, best) if best >= LEAST_REUSE else (-1, 0)

    def _known(self) -> Iterator[tuple[int, list[int], int]]:
        """Rows, their tokens, and how many of these are computed."""
        for row, idle in self._idle.items():
            yield row, idle.tokens, len(idle.tokens)
        for running in self._running.values():
            yield running.row, running.tokens, running.done

    # -- leaving -------------------------------------------------------------------------------------------------

    def _retire(self, running: _Running) -> None:
        held = max(running.held, running.done)
        self._idle[running.row] = _Idle(running.tokens[: running.done], self._ticks, held)

    def _drop(self, row: int) -> None:
        if self._idle[row].held:
            self._idle[row] = _Idle()
            self._moves.append(DropRow(row))

    def _queue(
        self, ticket: ScheduledRequest, tokens: list[int], arrival: int, overtaken: int, cached: int | None
    ) -> None:
        key = _rank(ticket, arrival, overtaken)
        bisect.insort(self._waiting, _Waiting(key, ticket, tokens, arrival, overtaken, cached))


def common_prefix(a: list[int], b: list[int], most: int) -> int:
    """Length of the common prefix of ``a`` and ``b``, up to ``most``."""
    if a[:most] == b[:most]:
        return most
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        if a[low : middle + 1] == b[low : middle + 1]:
            low = middle + 1
        else:
            high = middle
    return low
