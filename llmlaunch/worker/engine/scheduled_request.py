"""One request as the scheduler sees it: what it asks for, and its state while it waits and while it runs. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

MOST_OVERTAKES = 64
"""Maximum number of times that later requests, or their prompts, may overtake a waiting one."""
GROWTH = 256
"""Tokens of room that an answer takes at a time once it is longer than expected."""

Rank = tuple[int, int, int]
"""A sort key: lower runs first."""


@dataclass(frozen=True, slots=True)
class ScheduledRequest:
    """What a request asks of the scheduler; it does not change."""

    request_id: str
    prompt: tuple[int, ...]
    max_new: int
    """Maximum number of tokens in the answer."""
    priority: int = 0
    """Lower runs earlier."""
    reuse: bool = True
    """Whether it may reuse columns that another request computed."""
    after: str = ""
    """The id of a request with the same prompt, whose computation is worth waiting for."""
    expected: int | None = None
    """Tokens of the answer that room is reserved for at the start. None: all of ``max_new``, and no preemption."""
    fixed_chunks: bool = False
    """Whether its prompt is always split at the same positions, so that it is rounded the same way every time."""

    @property
    def max_length(self) -> int:
        """Maximum number of tokens in the prompt and the answer together."""
        return len(self.prompt) + self.max_new

    @property
    def preemptible(self) -> bool:
        """Whether it may be preempted. One that has reserved all it can need is not: it never takes room from others."""
        return self.expected is not None

    def rank(self, arrival: int, overtaken: int) -> Rank:
        """Its place among the others if it was the ``arrival``-th to come and has been overtaken ``overtaken`` times."""
        return (0, 0, arrival) if overtaken >= MOST_OVERTAKES else (1, self.priority, arrival)


@dataclass(frozen=True, slots=True)
class PendingPrompt:
    """The part of a prompt that is not computed yet."""

    tokens: int
    """Their number."""
    begun: bool = False
    """Whether a chunk of it was computed in an earlier step."""


@dataclass(order=True, slots=True)
class WaitingRequest:
    """A request without a row: it has just arrived, or it was preempted. Waiting requests sort by rank."""

    rank: Rank
    request: ScheduledRequest = field(compare=False)
    tokens: list[int] = field(compare=False)
    """The prompt, and the answer so far if it was preempted."""
    arrival: int = field(compare=False)
    overtaken: int = field(default=0, compare=False)
    cached: int | None = field(default=None, compare=False)
    """Reused prompt tokens when it first ran; None: it has not run yet."""

    @property
    def overdue(self) -> bool:
        """Whether it was overtaken so often that it now comes before all that were not."""
        return self.overtaken >= MOST_OVERTAKES

    @property
    def room(self) -> int:
        """Tokens to reserve when it starts."""
        if self.request.expected is None:
            return self.request.max_length
        generated = len(self.tokens) - len(self.request.prompt)
        expected = max(self.request.expected, generated + GROWTH)
        return min(self.request.max_length, len(self.request.prompt) + expected)

    def overtake(self) -> bool:
        """Count that a later request was admitted before this one. Returns whether that makes it overdue."""
        self.overtaken += 1
        if self.overtaken != MOST_OVERTAKES:
            return False
        self.rank = self.request.rank(self.arrival, self.overtaken)
        return True


@dataclass(slots=True)
class RunningRequest:
    """A request in a row of the cache."""

    request: ScheduledRequest
    row: int
    tokens: list[int]
    """The prompt and the answer so far."""
    computed: int
    """Number of ``tokens`` whose keys and values are in the row."""
    cached: int
    """Prompt tokens that were reused when it first ran."""
    arrival: int
    room: int
    """Tokens that it has reserved."""
    overtaken: int
    resident: int
    """Columns of its row that were in memory when the request got it."""

    @property
    def remaining(self) -> int:
        """Number of tokens that still have to go through the model."""
        return len(self.tokens) - self.computed

    @property
    def pending_prompt(self) -> PendingPrompt:
        """What is left of its prompt, or of all its tokens if it was preempted."""
        return PendingPrompt(self.remaining, begun=self.computed > self.cached)

    @property
    def decoding(self) -> bool:
        """Whether only the newest token of its answer is left to compute."""
        return self.remaining == 1 and len(self.tokens) > len(self.request.prompt)

    @property
    def reserved(self) -> int:
        """Tokens of the cache's memory that it takes or may take without asking again."""
        return max(self.resident, self.room)

    @property
    def rank(self) -> Rank:
        """Its place among the running requests."""
        return self.request.rank(self.arrival, self.overtaken)

    def grow(self) -> None:
        """Reserve more room if its answer is longer than expected."""
        if len(self.tokens) > self.room:
            self.room = min(self.request.max_length, len(self.tokens) + GROWTH)
