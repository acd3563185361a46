"""The supervisor's types: the state of a component, the events that change it, the commands that follow.

Times are seconds of one monotonic clock that the caller reads; nothing in this package reads a clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Phase(StrEnum):
    """What a component is doing."""

    PENDING = "pending"
    """Waiting for its gate: the components that it needs, its turn on a GPU, or free memory."""
    STARTING = "starting"
    """Spawned, or about to be; it does not answer its readiness probe yet."""
    READY = "ready"
    STOPPING = "stopping"
    """Draining, asked to end, or being killed. Something of it may still be alive."""
    BACKOFF = "backoff"
    """It failed and starts again after a delay."""
    STOPPED = "stopped"
    FAILED = "failed"
    """It failed too often, and is retried slowly; or in a way that no retry can fix, and stays down until it is told to
    start."""


LIVE_PHASES = frozenset({Phase.STARTING, Phase.READY, Phase.STOPPING})
"""Phases in which a process may exist. In all others there is none."""
DOWN_PHASES = frozenset({Phase.STOPPED, Phase.FAILED})
"""Phases that may last: nothing runs, and nothing will soon."""


class Why(StrEnum):
    """The kind of a :class:`Cause`."""

    NONE = "none"
    COMMAND = "command"
    START_TIMEOUT = "start_timeout"
    UNHEALTHY = "unhealthy"
    EXIT = "exit"
    SPAWN = "spawn"
    PORT = "port"
    """Another process has its port."""
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a component is in its phase."""

    why: Why = Why.NONE
    text: str = ""
    permanent: bool = False
    """No retry can fix it."""


@dataclass(frozen=True, slots=True)
class Death:
    """How an incarnation ended that nobody had stopped, or how its start failed."""

    incarnation: int
    at: float
    why: Why
    text: str
    """The message, as in the cause of what followed."""
    code: int | None = None
    """As in :class:`Exited`; None, too, if no process was created."""
    out_of_memory: bool = False
    """The kernel's OOM killer was active just before."""
    last_line: str = ""
    """As in :class:`Exited`."""


class Stage(StrEnum):
    """The stage of a stop."""

    NONE = "none"
    SPAWN = "spawn"
    """The process was still being created when the stop came: wait for it, then end it."""
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
    """Known after Spawned."""
    was_ready: bool = False
    """This incarnation has been READY."""
    failures: int = 0
    """In a row; a stable run resets them."""
    gave_up: int = 0
    """How many of them led to FAILED."""
    proven: bool = False
    """It has been READY since it was last told to start, so its flags and files are right."""
    restarts: int = 0
    """Starts that nobody asked for, since the supervisor started."""
    failed_probes: int = 0
    unanswered_since: float | None = None
    """When the first of the latest unanswered probes failed."""
    last_probe: str = ""
    """Why the last readiness probe failed."""
    stage: Stage = Stage.NONE
    deadline: float | None = None
    """When Tick has something to do: at the end of the start timeout, of a stop's stage, of the stable run, or of the delay
    before the next try."""
    stop_by: float = 0.0
    """End of a stop's grace, draining included."""
    since: float = 0.0
    """When this phase began."""
    cause: Cause = field(default_factory=Cause)
    last: Death | None = None
    """The latest failure, even if it has recovered since."""
    waiting: str = ""
    """What a PENDING component waits for."""
    progress: str = ""
    told_progress: bool = False
    """Whether the engine itself said something of the progress of this start."""
    note: str = ""
    """A warning that it gave when it became ready: that it runs differently than one might expect."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether a PENDING component may start now. ``timed``: the wait for this has a limit, and exceeding it is a failure."""

    is_open: bool
    reason: str = ""
    timed: bool = False


OPEN = Gate(True)


# ── events ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Spawned:
    """Its program runs, as process ``pid``."""

    incarnation: int
    pid: int


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """No process was created, or none is left of it."""

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
    """The first error in its log, or else the last line that says anything."""
    out_of_memory: bool = False
    """The kernel's OOM killer was active just before."""
    is_error: bool = False
    """Whether ``last_line`` is an error."""


@dataclass(frozen=True, slots=True)
class Probed:
    """The result of one readiness or liveness probe."""

    incarnation: int
    ok: bool
    detail: str = ""
    """Why the probe failed, or a warning on becoming ready."""
    unanswered: bool = False
    """No answer came, so the process is either busy or hung."""
    cpu: float | None = None
    """How many CPUs the process tree kept busy meanwhile; None if unknown."""
    answered: int = 0
    """Other requests that it answered since the previous probe, as far as known."""


@dataclass(frozen=True, slots=True)
class Progressed:
    """A sign that a start goes on: shards loaded, bytes fetched."""

    incarnation: int
    text: str
    counted: bool = False
    """Nobody said it: bytes were counted. What the engine itself says of its progress is more telling."""


@dataclass(frozen=True, slots=True)
class Drained:
    """No request is in flight any more, or nobody could tell."""

    incarnation: int


class Verb(StrEnum):
    """What a component can be told to do."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    KILL = "kill"
    """Stop without draining and without grace."""


@dataclass(frozen=True, slots=True)
class Commanded:
    """A user, a new plan or a shutdown has told it to do something."""

    verb: Verb
    drain: bool = True
    reason: str = ""
    """Why the command was given, if no user named this component."""


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
    """SIGKILL the whole tree at once."""

    incarnation: int


Command = Spawn | Drain | Terminate | Kill
