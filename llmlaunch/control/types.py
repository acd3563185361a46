"""The wire types of the control API: ``status`` and the progress stream.

The supervisor speaks HTTP over a unix socket (see ``paths.DeploymentPaths.socket``):

=======  ==================  =========================================  =====================================
method   path                request                                    answer
=======  ==================  =========================================  =====================================
GET      /status             –                                          :class:`StatusReport`
GET      /about              –                                          :class:`About`
GET      /specs              –                                          {"processes": [ProcessSpec…], env included,
                                                                        "phases": {name: phase}}
POST     /apply              {"plan": Plan, "restart_down": bool,       :class:`ApplyResult`
                             "environment": {name: text}}
POST     /command            {"verb": stop|start|restart, "names": […]}  {"names": […]}
POST     /shutdown           {"force": bool}                            {} at once; the process ends when all is down
GET      /events?since=N     –                                          NDJSON of :class:`ProgressEvent`, live, until closed
=======  ==================  =========================================  =====================================

Times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmlaunch.planning.types import ProcessSpec

ALREADY_RUNNING_EXIT = 75
"""Exit code of a supervisor that found another one in charge of its deployment (EX_TEMPFAIL of sysexits.h)."""
_NO_PROCESS = ("pending", "backoff", "stopped", "failed")


@dataclass(frozen=True, slots=True)
class LastFailure:
    """The latest end of a component that nobody had asked for, or its latest start that failed."""

    at: float
    incarnation: int
    why: str
    """The kind, as in :class:`ComponentStatus`, but for command."""
    text: str
    """In words: "was killed by SIGKILL; its last line: …"."""
    exit_code: int | None = None
    """None when a signal ended it, or no process came to be."""
    signal: str | None = None
    """SIGKILL, SIGSEGV …"""
    out_of_memory: bool = False
    """The kernel's OOM killer was at work just then, in its cgroup or, where that cannot be told, on the machine."""
    last_line: str = ""
    """The first error in its log, or else the last line that says anything."""


@dataclass(frozen=True, slots=True)
class ComponentStatus:
    """One component as ``status`` shows it."""

    name: str
    component: str
    model: str
    names: tuple[str, ...]
    engine: str
    phase: str
    pid: int | None
    address: str
    gpus: tuple[str, ...]
    vram_bytes: int
    """What the plan gave it."""
    vram_used_bytes: int | None
    """What NVML sees in use by its process tree; None when unknown."""
    restarts: int
    since: float
    cause: str
    """Why it is in this phase, in words; empty when all is well."""
    progress: str
    """The last sign of progress while starting: "loading weights 120 MiB of 260 MiB"."""
    incarnation: int
    why: str = ""
    """The kind of the cause, for programs: command, start_timeout, unhealthy, exit, spawn, port, memory."""
    note: str = ""
    """Its own remark while ready: "requests run one at a time, because it is an encoder-decoder"."""
    next_try: float | None = None
    """In backoff and failed: when it is started again. None: only on command."""
    last: LastFailure | None = None
    """Kept through recoveries and restarts, until the next one."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """What a supervisor was last told to run, environments and their secrets included, and each component's phase."""

    specs: tuple[ProcessSpec, ...] = ()
    phases: Mapping[str, str] = field(default_factory=dict)

    @property
    def devices(self) -> dict[str, tuple[str, ...]]:
        """UUIDs of the GPUs that each component was given, by its name."""
        return {spec.name: spec.gpus for spec in self.specs}

    @property
    def idle(self) -> frozenset[str]:
        """Components that have no process now."""
        return frozenset(name for name, phase in self.phases.items() if phase in _NO_PROCESS)


@dataclass(frozen=True, slots=True)
class SupervisorStatus:
    """The supervisor's own process; ``started_at`` is seconds since the epoch."""

    pid: int
    started_at: float
    version: str = ""
    """Of llmlaunch; empty: older than this field."""


@dataclass(frozen=True, slots=True)
class About:
    """Which deployment a supervisor runs. Quick to answer, whatever its components and GPUs do."""

    deployment: str
    manifest: str | None
    """The file it was started from; None: nobody brought a plan yet."""
    version: str
    """Of llmlaunch."""


@dataclass(frozen=True, slots=True)
class ApiStatus:
    """Where the endpoint is."""

    url: str


@dataclass(frozen=True, slots=True)
class GpuStatus:
    """One GPU's memory in bytes: what the driver says, and what the plan has given away."""

    index: int
    uuid: str
    name: str
    total_bytes: int
    used_bytes: int
    free_bytes: int
    planned_bytes: int
    lost: str = ""
    """Why the GPU cannot be used ("GPU is lost"), or empty."""
    memory: str = "own"
    """own, main (it uses the machine's main memory), or unknown: the driver gives no figures."""


@dataclass(frozen=True, slots=True)
class StatusReport:
    """All of a deployment at one moment."""

    deployment: str
    supervisor: SupervisorStatus
    api: ApiStatus
    components: tuple[ComponentStatus, ...]
    gpus: tuple[GpuStatus, ...] = ()
    manifest: str | None = None
    stopping: bool = False
    note: str = ""
    """Why there is nothing to see of the GPUs it uses: "the NVIDIA driver did not answer within 5 s"."""
    seq: int = 0
    """The number of the last :class:`ProgressEvent` before this report: later ones are news to it."""


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """Names of components, by what the new plan means for them."""

    started: tuple[str, ...] = ()
    restarted: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """One change of one component, numbered from 1 per supervisor."""

    seq: int
    at: float
    component: ComponentStatus
    log_tail: tuple[str, ...] = field(default=())
    """The last lines it printed, when it just failed."""
