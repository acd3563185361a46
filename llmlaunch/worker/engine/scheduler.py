"""What the next step computes. Pure: plain data in, plain data out; no tensors, no clock, no randomness.

Every request lives in one row of the KV cache, from column 0 on: column and position are the same number.
A step is a list of spans, the tokens of running requests that still have to go through the model::

    waiting ──admit──► running: tokens[computed:] to compute ──► none left: a token was sampled ──► append, and again
                                long prompts: a budget a step               │
                                                                            ▼
                                          finished · cancelled: the row keeps its tokens for requests that share them

A decode is a span of one token; a prompt chunk is a longer one. Both go through the model in one pass.

Room. A request reserves room for its prompt and its expected answer; a longer answer takes more, piece by piece. When
memory runs out, the running request that ranks last is preempted: it goes back into the queue with its tokens, and
computes them again later. The first in rank always continues, so requests never wait in a circle.

Rank. Lower priority values first, then by arrival; but a request that was overtaken ``MOST_OVERTAKES`` times comes
before all that were not, so a steady flow of urgent requests delays the others but never starves them.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from llmlaunch.worker.engine.prefix_cache import LEAST_REUSE, PrefixCache, common_prefix
from llmlaunch.worker.engine.scheduled_request import (
    PendingPrompt,
    RunningRequest,
    ScheduledRequest,
    WaitingRequest,
)
from llmlaunch.worker.kv.types import Capacity, CopyColumns, DropRow, Span

FIXED_CHUNK = 128
"""Chunk size, in tokens, of prompts that are always split at the same positions."""


@dataclass(frozen=True, slots=True)
class Step:
    """What the KV cache has to do: ``moves`` first, in order, then all ``spans`` in one forward pass."""

    moves: tuple[CopyColumns | DropRow, ...] = ()
    spans: tuple[Span, ...] = ()


class Scheduler:
    """The requests of one engine. Not thread-safe: used by the engine's thread alone."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._waiting: list[WaitingRequest] = []
        self._running: dict[str, RunningRequest] = {}
        self._prefixes = PrefixCache(capacity.rows)
        self._arrivals = 0
        self.preempted = 0
        """Number of preemptions so far."""

    # -- queries -------------------------------------------------------------------------------------------------

    @property
    def running(self) -> int:
        """Number of requests that have a row."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Number of requests that wait for a row."""
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether any request is running or waiting."""
        return bool(self._running or self._waiting)

    @property
    def kv_used(self) -> float:
        """Fraction of the cache that running requests fill, 0 to 1."""
        return min(1.0, sum(r.computed for r in self._running.values()) / max(1, self.capacity.tokens))

    def requests(self) -> Iterator[str]:
        """Ids of all requests: the running ones, then the waiting ones by rank."""
        yield from self._running
        yield from (w.request.request_id for w in self._waiting)

    def row_of(self, request_id: str) -> int | None:
        """The row of a request; None if it is not running."""
        running = self._running.get(request_id)
        return running.row if running else None

    def cached(self, request_id: str) -> int:
        """Prompt tokens of a running request that were reused from another."""
        return self._running[request_id].cached

    def decoding(self) -> int:
        """Number of running requests that decode in the next step."""
        return sum(r.decoding for r in self._running.values())

    # -- events --------------------------------------------------------------------------------------------------

    def add(self, request: ScheduledRequest) -> None:
        """Take a request. Raises ValueError if it can never fit, or its id is already in use."""
        if not self.fits_ever(len(request.prompt), request.max_new):
            raise ValueError(f"{request.request_id} needs more room than the cache has")
        if any(request.request_id == known for known in self.requests()):
            raise ValueError(f"{request.request_id} is already in use")
        self._arrivals += 1
        self._queue(request, list(request.prompt), self._arrivals, overtaken=0, cached=None)

    def fits_ever(self, prompt: int, max_new: int) -> bool:
        """Whether an empty cache has room for ``prompt`` tokens, at least one, and ``max_new`` more."""
        need = prompt + max_new
        return prompt > 0 and need <= self.capacity.columns and need <= self.capacity.tokens

    def advance(self, request_id: str, token: int) -> None:
        """Append ``token``, which was sampled after the request's last span."""
        self._running[request_id].tokens.append(token)

    def remove(self, request_id: str) -> bool:
        """End a request. Its row stays available for reuse. False: it was not found."""
        running = self._running.pop(request_id, None)
        if running is not None:
            self._prefixes.retire(running)
            return True
        for at, waiting in enumerate(self._waiting):
            if waiting.request.request_id == request_id:
                del self._waiting[at]
                return True
        return False

    # -- the decision --------------------------------------------------------------------------------------------

    def step(
        self, prompt_budget: int, burst: Callable[[Sequence[PendingPrompt]], int] = lambda prompts: 0
    ) -> Step:
        """The next step. ``prompt_budget``: maximum number of prompt tokens in it.

        ``burst`` may raise the budget; it gets what is left of each prompt, in order of rank. The budget is at least one
        token, so prompts always make progress. The caller must compute every span.
        """
        self._prefixes.begin_step()
        self._grow()
        self._admit()
        ranked = sorted(self._running.values(), key=lambda r: r.rank)
        budget = max(1, prompt_budget, burst([r.pending_prompt for r in ranked if not r.decoding]))
        spans: list[Span] = []
        for running in ranked:
            size = 1 if running.decoding else self._chunk(running, budget)
            if not running.decoding:
                budget -= size
            if size:
                spans.append(self._span(running, size))
            else:
                running.overtaken += 1
        spans.sort(key=lambda span: span.row)
        return Step(self._prefixes.take_moves(), tuple(spans))

    def _chunk(self, running: RunningRequest, budget: int) -> int:
        """Number of prompt tokens of ``running`` to compute within ``budget``."""
        if running.request.fixed_chunks and budget > 0:
            return min(running.remaining, FIXED_CHUNK)
        return min(running.remaining, max(0, budget))

    def _span(self, running: RunningRequest, size: int) -> Span:
        start = running.computed
        prompt = not running.decoding
        running.computed += size
        return Span(
            request_id=running.request.request_id,
            row=running.row,
            start=start,
            tokens=tuple(running.tokens[start : running.computed]),
            samples=running.remaining == 0,
            prompt=prompt,
        )

    # -- room ----------------------------------------------------------------------------------------------------

    def _grow(self) -> None:
        """Reserve room for answers that are longer than expected; preempt the last in rank when there is none."""
        for running in self._running.values():
            running.grow()
        while self._reserved() > self.capacity.tokens:
            # Requests that are never preempted fit together, or they would not have been admitted.
            last = max((r for r in self._running.values() if r.request.preemptible), key=lambda r: r.rank)
            self._preempt(last)
        self._prefixes.evict(self.capacity.tokens - self._reserved())

    def _reserved(self) -> int:
        return sum(r.reserved for r in self._running.values())

    def _preempt(self, running: RunningRequest) -> None:
        del self._running[running.request.request_id]
        self._prefixes.retire(running)
        self.preempted += 1
        self._queue(running.request, running.tokens, running.arrival, running.overtaken, running.cached)

    def _queue(
        self, request: ScheduledRequest, tokens: list[int], arrival: int, overtaken: int, cached: int | None
    ) -> None:
        rank = request.rank(arrival, overtaken)
        bisect.insort(self._waiting, WaitingRequest(rank, request, tokens, arrival, overtaken, cached))

    # -- admission -----------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Move waiting requests into rows, in order; one that does not fit makes all behind it wait."""
        at = 0
        while at < len(self._waiting) and self._prefixes.idle:
            waiting = self._waiting[at]
            if not waiting.overdue and self._shares_soon(waiting):
                at += 1  # its prompt is being computed for another request; waiting for that is cheaper
                continue
            free = self.capacity.tokens - self._reserved() - waiting.room
            if free < 0:
                break
            self._prefixes.evict(free)
            del self._waiting[at]
            self._start(waiting)
            if self._count_overtakes(waiting.arrival):
                at = 0

    def _start(self, waiting: WaitingRequest) -> None:
        """Give ``waiting`` a row: it runs from this step on."""
        request = waiting.request
        got = self._prefixes.assign(waiting.tokens, self._running.values(), reuse=request.reuse)
        cached = min(got.reused, len(request.prompt)) if waiting.cached is None else waiting.cached
        self._running[request.request_id] = RunningRequest(
            request, got.row, waiting.tokens, got.reused, cached,
            waiting.arrival, waiting.room, waiting.overtaken, got.resident,
        )  # fmt: skip

    def _count_overtakes(self, arrival: int) -> bool:
        """Count an overtake for all that arrived before ``arrival``; return whether that changed their order."""
        overdue = [w.overtake() for w in self._waiting if w.arrival < arrival]
        if any(overdue):
            self._waiting.sort()
        return any(overdue)

    def _shares_soon(self, waiting: WaitingRequest) -> bool:
        """Whether another request is about to compute most of what this one needs."""
        request = waiting.request
        if not request.reuse:
            return False
        leader = self._running.get(request.after)
        if leader is not None and leader.computed < len(request.prompt):
            return True
        if any(w.request.request_id == request.after for w in self._waiting):
            return True
        limit = len(waiting.tokens) - 1
        for running in self._running.values():
            size = min(limit, len(running.tokens))
            if running.computed < size:  # still at its prompt
                common = common_prefix(waiting.tokens, running.tokens, size)
                if common > running.computed and common >= max(LEAST_REUSE, len(waiting.tokens) // 2):
                    _, known = self._prefixes.longest_prefix(waiting.tokens, self._running.values())
                    return known < common
        return False
