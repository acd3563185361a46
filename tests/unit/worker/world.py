"""The scheduler's steps carried out on rows that are lists of tokens."""

from __future__ import annotations

from typing import Any

from llmlaunch.worker.engine.scheduled_request import ScheduledRequest
from llmlaunch.worker.engine.scheduler import Scheduler
from llmlaunch.worker.kv.types import Capacity, CopyColumns, DropRow


class World:
    """Carries steps out on rows that are lists of tokens, and checks each against what it should compute from.

    ``held`` counts the columns that were written since a row was last dropped: the memory that it really takes.
    """

    def __init__(self, capacity: Capacity, prompt_budget: int = 16) -> None:
        self.capacity = capacity
        self.scheduler = Scheduler(capacity)
        self.budget = prompt_budget
        self.rows: dict[int, list[int]] = {row: [] for row in range(capacity.rows)}
        self.held: dict[int, int] = dict.fromkeys(range(capacity.rows), 0)
        self.said: dict[str, list[int]] = {}
        self.requests: dict[str, ScheduledRequest] = {}
        self.order: list[str] = []
        """Names as their prompts began; those of one step by row."""
        self.began: dict[str, int] = {}
        """The step in which each prompt began."""
        self.steps = 0

    def add(self, name: str, prompt: list[int], max_new: int = 4, **fields: Any) -> None:
        request = ScheduledRequest(name, tuple(prompt), max_new, **fields)
        self.scheduler.add(request)
        self.requests[name] = request
        self.said[name] = []

    def step(self) -> list[str]:
        """Names that sampled a token."""
        self.steps += 1
        step = self.scheduler.step(self.budget)
        for move in step.moves:
            if isinstance(move, CopyColumns):
                self.rows[move.target] = self.rows[move.source][: move.columns]
                assert len(self.rows[move.target]) == move.columns, "copied columns that were not there"
            elif isinstance(move, DropRow):
                self.rows[move.row] = []
                self.held[move.row] = 0
        for row, held in self.rows.items():
            self.held[row] = max(self.held[row], len(held))
        assert len({span.row for span in step.spans}) == len(step.spans), "two requests in one row"
        assert len({span.request_id for span in step.spans}) == len(step.spans)
        chunks = sum(len(span.tokens) for span in step.spans if span.prompt)
        assert chunks <= max(1, self.budget)
        sampled: list[str] = []
        for span in step.spans:
            kept = self.rows[span.row][: span.start]
            whole = [*self.requests[span.request_id].prompt, *self.said[span.request_id]]
            assert kept == whole[: span.start], "computes on top of another's columns"
            assert list(span.tokens) == whole[span.start : span.start + len(span.tokens)]
            self.rows[span.row] = kept + list(span.tokens)
            assert len(self.rows[span.row]) <= self.capacity.columns
            self.held[span.row] = max(self.held[span.row], len(self.rows[span.row]))
            assert span.samples == (len(self.rows[span.row]) == len(whole))
            if span.prompt and span.request_id not in self.order:
                self.order.append(span.request_id)
                self.began[span.request_id] = self.steps
            if span.samples:
                sampled.append(span.request_id)
        assert sum(self.held.values()) <= self.capacity.tokens, "takes more memory than the cache has"
        for name in sampled:
            self.said[name].append(1000 + len(self.said[name]))
            self.scheduler.advance(name, self.said[name][-1])
            if len(self.said[name]) == self.requests[name].max_new:
                assert self.scheduler.remove(name)
        return sampled

    def finish(self) -> None:
        limit = 10 * sum(len(t.prompt) + t.max_new for t in self.requests.values()) + 10
        for _ in range(limit):
            if not self.scheduler.busy:
                return
            self.step()
        raise AssertionError("starved: " + ", ".join(self.scheduler.requests()))
