"""The supervisor's vocabulary: what a component is doing, what can happen to it, what can be done about it.

Times are seconds of one monotonic clock that the caller reads; nothing in this package reads a clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Phase(StrEnum):
    PENDING = "pending"
    """Wanted, and waiting for its gate: what it needs, its turn on a GPU, memory that comes back."""
    STARTING = "starting"
    """Spawned, or about to be; it does not answer its readiness probe yet."""
    READY = "ready"
    STOPPING = "stopping"
    """Draining, asked to end, or being killed. Something of it may still be alive."""
    BACKOFF = "backoff"
    """It failed and starts again after a delay."""
    STOPPED = "stopped"
    FAILED = "failed"
    """It failed too often, or in a way that no retry mends. It is tried again slowly in the first case; in the second it
    stays down until it is told to start."""


LIVE_PHASES = frozenset({Phase.STARTING, Phase.READY, Phase.STOPPING})
"""Phases in which a process may exist. In all others there is none."""
DOWN_PHASES = frozenset({Phase.STOPPED, Phase.FAILED})
"""Phases that nobody waits for the end of: nothing runs, and nothing will soon."""


class Why(StrEnum):
    """The kinds of cause; :class:`Cause` adds the words."""

    NONE = "none"
    COMMAND = "command"
    START_TIMEOUT = "start_timeout"
    UNHEALTHY = "unhealthy"
    EXIT = "exit"
    SPAWN = "spawn"
    PORT = "port"
    """Somebody else holds the port."""
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Cause:
    why: Why = Why.NONE
    text: str = ""
    permanent: bool = False
    """No retry can mend it."""


@dataclass(frozen=True, slots=True)
class Death:
    """How a life ended that nobody had told to end, or how a start failed."""

    incarnation: int
    at: float
    why: Why
    text: str
    """In words, as the cause of what followed."""
    code: int | None = None
    """As in :class:`Exited`; None as well when no process came to be."""
    out_of_memory: bool = False
    """The kernel killed something for lack of memory just then."""
    last_line: str = ""


class Stage(StrEnum):
    """How far a stop has come."""

    NONE = "none"
    SPAWN = "spawn"
    """The process was still being made when the stop came: wait for it, then end it."""
    DRAIN = "drain"
    TERM = "term"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class Record:
    """One component's state. ``incarnation`` counts its processes; events of older ones are dropped."""

    phase: Phase = Phase.PENDING
    wanted: bool = True
    incarnation: int = 0
    pid: int | None = None
    """Known once Spawned came."""
    was_ready: bool = False
    """This incarnation has been READY."""
    failures: int = 0
    """In a row; a stable run forgives them."""
    gave_up: int = 0
    """How many of them ended in FAILED."""
    proven: bool = False
    """It has been READY since somebody last told it to start: its flags and files are right."""
    restarts: int = 0
    """Starts that nobody asked for, since the supervisor runs."""
    failed_probes: int = 0
    unanswered_since: float | None = None
    """When the first of the probes came back that were not answered since."""
    last_probe: str = ""
    """What the last probe of a start came to, as long as it is not ready."""
    stage: Stage = Stage.NONE
    deadline: float | None = None
    """When Tick has something to do: the end of the start, of the stop's stage, of the stable run, or of the wait before the
    next try."""
    stop_by: float = 0.0
    """End of the grace that a stop was given, draining included."""
    since: float = 0.0
    """When this phase began."""
    cause: Cause = field(default_factory=Cause)
    last: Death | None = None
    """The latest failure, whatever came after it."""
    waiting: str = ""
    """What a PENDING component waits for."""
    progress: str = ""
    note: str = ""
    """What it said of itself when it became ready: that it runs otherwise than one might expect."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether a PENDING component may start now. ``timed``: waiting for this is bounded, and failing if it lasts."""

    is_open: bool
    reason: str = ""
    timed: bool = False


OPEN = Gate(True)


# ── events ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Spawned:
    incarnation: int
    pid: int


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """No process came to be, or none is left of it."""

    incarnation: int
    reason: str
    permanent: bool = False
    why: Why = Why.SPAWN


@dataclass(frozen=True, slots=True)
class Exited:
    """The process ended and nothing is left of its tree. ``code``: negative for a signal, None when nobody saw it."""

    incarnation: int
    code: int | None
    last_line: str = ""
    out_of_memory: bool = False
    """The kernel killed something for lack of memory just before."""


@dataclass(frozen=True, slots=True)
class Probed:
    incarnation: int
    ok: bool
    detail: str = ""
    """Why not, or what it remarks on becoming ready."""
    unanswered: bool = False
    """It failed for want of an answer: a process that is busy and one that hangs look alike."""
    cpu: float | None = None
    """How many CPUs the process tree kept busy while it did not answer; None: not known."""
    answered: int = 0
    """Requests that it answered since the probe before, as far as that is known, though it did not answer this one."""


@dataclass(frozen=True, slots=True)
class Progressed:
    """A sign that a start goes on: shards loaded, bytes fetched."""

    incarnation: int
    text: str


@dataclass(frozen=True, slots=True)
class Drained:
    """No request is in flight any more, or there was no way to find out."""

    incarnation: int


class Verb(StrEnum):
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    KILL = "kill"
    """Stop without draining and without grace."""


@dataclass(frozen=True, slots=True)
class Commanded:
    verb: Verb
    drain: bool = True
    reason: str = ""
    """Where the command comes from, in words, when nobody gave it to this component by name."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed. ``gate`` matters to PENDING components only."""

    gate: Gate = OPEN


Event = Spawned | SpawnFailed | Exited | Probed | Progressed | Drained | Commanded | Tick
OfOneProcess = Spawned | SpawnFailed | Exited | Probed | Progressed | Drained


# ── commands ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Spawn:
    """Answered by Spawned or SpawnFailed, always."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Answered by Drained."""

    incarnation: int
    grace_s: float


@dataclass(frozen=True, slots=True)
class Terminate:
    """Ask the tree to end. Answered by Exited, as Kill is."""

    incarnation: int
    grace_s: float


@dataclass(frozen=True, slots=True)
class Kill:
    incarnation: int


Command = Spawn | Drain | Terminate | Kill
