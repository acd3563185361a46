"""The plan: exactly what ``up`` will run, and why. Plain values that survive a trip through JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from llmlaunch.hardware.types import OccupiedPort
from llmlaunch.manifest.types import DEFAULT_LOG_KEEP, DEFAULT_LOG_MAX_BYTES, EngineName

_SHORTEST_HIDDEN = 6
"""Characters of a secret that is looked for in a text: shorter ones stand anywhere."""


class Component(StrEnum):
    """What a process is for."""

    CONTROLLER = "controller"
    WORKER = "worker"
    API = "api"


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process of a deployment. Two specs that are equal need no restart."""

    name: str
    """Unique in the deployment: ``controller``, ``api``, ``smollm2-1``."""
    component: Component
    argv: tuple[str, ...]
    """What is executed. May hold secrets: show through ``shown_argv``."""
    env: Mapping[str, str]
    """Added to what ``planning.environment`` leaves of the caller's environment, the device mask included. May hold
    secrets: show through ``shown_env``."""
    host: str
    """Where it binds."""
    port: int
    address: str
    """``http://host:port`` as others on this machine reach it (a wildcard host becomes loopback; IPv6 in brackets)."""
    model: str = ""
    names: tuple[str, ...] = ()
    engine: str = ""
    engine_model: str = ""
    """The name that it knows the model by; empty: it knows all of ``names``."""
    kind: str = ""
    """generate | embed | rerank, as the model's files say, or audio, as only the manifest can; empty when nothing is known."""
    gpus: tuple[str, ...] = ()
    """UUIDs, in mask order."""
    mask: str | None = None
    """CUDA_VISIBLE_DEVICES: UUIDs or indexes; "" hides every GPU."""
    vram_bytes: int = 0
    """Total over its GPUs."""
    vram_per_gpu: tuple[int, ...] = ()
    ready_path: str = "/health"
    """GET answers 200 once it can serve. Empty: it can as soon as its port takes connections."""
    live_path: str = "/health"
    """GET answers 200 as long as it should be left running. Empty: it is not probed."""
    probe_timeout_s: float | None = None
    """None: the supervisor's own, as for the three after it."""
    probe_failures: int | None = None
    """Failed probes in a row after which it is unhealthy."""
    restart_max: int | None = None
    """Failed starts in a row after which it is FAILED; 0: it is never restarted."""
    restart_delay_s: float | None = None
    """Seconds from FAILED until the next try."""
    self_registering: bool = False
    progress_patterns: tuple[str, ...] = ()
    max_concurrency: int | None = None
    """Requests it works on at a time, where the manifest or its engine says so."""
    request_timeout_s: float | None = None
    """Seconds without any output while it has requests, after which it counts as frozen; None: gateways decide."""
    max_model_len: int | None = None
    """Tokens of context that the manifest gives it; None: the engine decides, and says what it took."""
    start_timeout_s: float = 120.0
    stop_grace_s: float = 10.0
    needs: tuple[str, ...] = ()
    """Components that must be READY before this one starts. They only delay the start."""
    reason: str = ""
    """Why it runs where it runs, in words with the numbers."""
    secret_env: tuple[str, ...] = ()
    """Keys of ``env`` whose values are never shown, logged or written to disk."""
    env_pass: tuple[str, ...] = ()
    """Variables of its caller that it gets although they look secret: ``NAME`` or ``PREFIX_*``."""
    env_only: bool = False
    """True: of its caller's environment only what every program needs, and ``env_pass``."""
    argv_shown: tuple[str, ...] = ()
    """``argv`` as people may see it, with ``${NAME}`` for values from the environment; empty: as it is."""
    key_variable: str = ""
    """The environment variable in which it is told the key that its callers must show; empty: it asks for none."""
    own_env: tuple[str, ...] = ()
    """Variables of its caller that its part of the manifest refers to."""
    log_max_bytes: int = DEFAULT_LOG_MAX_BYTES
    """Bytes at which one of its log files is full and the next one begins."""
    log_keep: int = DEFAULT_LOG_KEEP
    """Number of log files kept for each of its lives."""
    prefix: int = 0
    """Words of ``argv`` before the program itself, for one that another runs (``numactl``)."""
    workdir: str = ""
    """The folder it starts in; empty: the plan's."""
    stop_signal: str = "SIGTERM"
    """What asks it to end."""
    path_first: str = ""
    """A folder that comes first on its PATH; empty: none."""
    own_python: bool = False
    """True: it runs in a Python of its own, and gets no variables that tell the caller's Python where things are."""
    engine_auto: bool = False
    """Whether its engine was chosen by the rules of ``planning.engine_choice``."""
    engine_reason: str = ""
    """Why this engine, and which installation of it; empty: the manifest says it, or there is one only."""
    learning_key: str = ""
    """Under which its measured VRAM is remembered (``PlanningContext.measured_vram``); empty: not worth remembering."""
    api_keys_file: str = ""
    """Of the API server: the file with the keys that it accepts; empty: none."""
    api_keys_variable: str = ""
    """Of the API server: the environment variable with keys that it accepts; empty: none."""

    @property
    def program(self) -> tuple[str, ...]:
        """``argv`` without its prefix."""
        return self.argv[self.prefix :]

    @property
    def shown_argv(self) -> tuple[str, ...]:
        """``argv`` as people may see it."""
        return self.argv_shown or self.argv

    def hide(self, text: str) -> str:
        """``text`` that its process printed, as it is shown in a message: its secrets as people may see them."""
        words = (
            zip(self.argv, self.argv_shown, strict=False) if len(self.argv) == len(self.argv_shown) else ()
        )
        values = ((self.env[name], "***") for name in self.secret_env)
        for secret, shown in sorted((*words, *values), key=lambda pair: -len(pair[0])):
            if secret != shown and len(secret) >= _SHORTEST_HIDDEN:
                text = text.replace(secret, shown)
        return text

    @property
    def shown_env(self) -> dict[str, str]:
        """``env`` as people may see it: secrets are ``***``."""
        return {k: "***" if k in self.secret_env else v for k, v in self.env.items()}


@dataclass(frozen=True, slots=True)
class GpuBudget:
    """One device's arithmetic; MIG instances are rows of their own."""

    index: int
    uuid: str
    name: str
    total_bytes: int
    free_bytes: int
    """Before the plan runs."""
    planned_bytes: int
    """What the plan's processes will take."""

    @property
    def label(self) -> str:
        """What messages call the device: ``GPU 0``."""
        return f"{self.uuid} on GPU {self.index}" if self.uuid.startswith("MIG-") else f"GPU {self.index}"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A model that does not fit, and why, with the numbers."""

    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What ``up`` will run, and what it will not."""

    deployment: str
    processes: tuple[ProcessSpec, ...]
    gpus: tuple[GpuBudget, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    served_names: tuple[str, ...] = ()
    """Every name the manifest promises, ready or not."""
    notes: tuple[str, ...] = ()
    """Notes for the user that refuse nothing."""
    manifest_path: str | None = None
    workdir: str = ""
    """The folder processes start in: the manifest's."""
    private_env: tuple[str, ...] = ()
    """Variables of the caller that only those components get whose they are; see ``planning.environment``."""

    @property
    def fits(self) -> bool:
        """Whether every replica has its place."""
        return not self.rejections


@dataclass(frozen=True, slots=True)
class MemoryPromise:
    """Memory of a GPU that a component of another deployment has not taken yet, and will."""

    uuid: str
    size_bytes: int
    who: str
    """``deployment/component``."""


@dataclass(frozen=True, slots=True)
class InstalledEngine:
    """An engine that can be run on this machine."""

    where: str
    """What it is called in a reason: its name, version and place."""
    architectures: frozenset[str] | None = None
    """Those that it knows; None: any."""


@dataclass(frozen=True, slots=True)
class PlanningContext:
    """What the planner must know of the machine beside its GPUs."""

    occupied_ports: tuple[OccupiedPort, ...] = ()
    deployment: str = ""
    """The one that is planned, as :attr:`OccupiedPort.owner` calls it."""
    running: tuple[ProcessSpec, ...] = ()
    """What this deployment's supervisor runs now; unchanged replicas keep their place and port."""
    idle: frozenset[str] = frozenset()
    """Those of ``running``, by name, that have no process now: whoever holds their port is a stranger."""
    promised: tuple[MemoryPromise, ...] = ()
    """To other deployments."""
    measured_vram: Mapping[str, int] = field(default_factory=dict)
    """Measured VRAM (bytes per replica) by ``planning.estimate.learning_key``."""
    python: str = "python3"
    local_addresses: frozenset[str] = frozenset()
    """Addresses and names of this machine, beside loopback and the wildcards."""
    unusable_hosts: Mapping[str, str] = field(default_factory=dict)
    """Why nobody can listen on a host of the manifest, as the rest of a sentence: "has no address: …"."""
    used_vram: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Bytes that a running component holds now, by its name and then by device UUID. A component that is missing here
    is taken to hold what its spec claims, as far as the device's used memory allows."""
    main_memory: int | None = None
    """Bytes of main memory; None: nobody can tell."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that the manifest names, as far as they are set: the one of ``api.api_keys_env``."""
    absent: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By a model's first name, the optional programs of engines that are not on its PATH."""
    installed: Mapping[str, Mapping[EngineName, InstalledEngine]] = field(default_factory=dict)
    """By the first name of a model with ``engine: auto``, what can be run for it; a name that is missing: nobody knows."""
    cores: int | None = None
    """Cores to compute on; None: this is not the machine."""
