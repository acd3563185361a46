"""What the user wants, after the manifest was read and checked: plain frozen values without YAML or pydantic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from llmlaunch.common.dispatch_methods import DEFAULT as DEFAULT_DISPATCH
from llmlaunch.common.dispatch_methods import DispatchMethod

DEFAULT_HOST = "127.0.0.1"
DEFAULT_CONTROLLER_PORT = 21001
DEFAULT_WORKER_PORT = 21002
DEFAULT_API_PORT = 8000
DEFAULT_LOG_MAX_BYTES = 50 << 20
DEFAULT_LOG_KEEP = 5


class EngineName(StrEnum):
    """What serves a model: one of ``engines/registry.py``."""

    AUTO = "auto"
    """One of the others, by ``planning/engine_choice.py``."""
    TRANSFORMERS = "transformers"
    VLLM = "vllm"
    SGLANG = "sglang"
    LLAMACPP = "llamacpp"
    COMMAND = "command"


class Source(StrEnum):
    """Where a model id that is no local path is looked up."""

    AUTO = "auto"
    HUGGINGFACE = "huggingface"
    MODELSCOPE = "modelscope"


@dataclass(frozen=True, slots=True)
class GpuAuto:
    """``gpus: auto``: ``count`` devices chosen by free VRAM. On a box without GPUs: the CPU."""

    count: int | None = None
    """None when the manifest does not say: 1 where there is a GPU."""


@dataclass(frozen=True, slots=True)
class GpuCpu:
    """``gpus: cpu``: no GPU at all."""


@dataclass(frozen=True, slots=True)
class GpuPinned:
    """``gpus: [0, "GPU-…", "MIG-…"]``: these devices, in this order. Indexes are NVML's (PCI bus order)."""

    devices: tuple[int | str, ...]


GpuRequest = GpuAuto | GpuCpu | GpuPinned


@dataclass(frozen=True, slots=True)
class Position:
    """Where a value stands in the manifest; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class ControllerSpec:
    """What the manifest says of the controller."""

    host: str = DEFAULT_HOST
    port: int | None = None
    """None: the manifest does not say; 21001, or the next free one."""
    dispatch: DispatchMethod = DEFAULT_DISPATCH
    open_registration: bool = False
    """True: workers may register without the deployment's token."""
    log_max_bytes: int = DEFAULT_LOG_MAX_BYTES
    log_keep: int = DEFAULT_LOG_KEEP
    """As for a model."""


@dataclass(frozen=True, slots=True)
class ApiSpec:
    """What the manifest says of the endpoint."""

    host: str = DEFAULT_HOST
    port: int | None = None
    """None: 8000, or the next free one."""
    api_keys_file: str | None = None
    """Absolute path; one key a line, ``name: key`` or the bare key."""
    api_keys_env: str | None = None
    """Name of an environment variable that holds keys, separated by commas."""
    max_body_bytes: int = 32 << 20
    cors_origins: tuple[str, ...] = ()
    access_log: bool = False
    processes: int = 1
    """How many share the port."""
    tls_cert: str | None = None
    """Absolute path; with ``tls_key``: serve https."""
    tls_key: str | None = None
    max_bodies_bytes: int = 256 << 20
    allowed_hosts: tuple[str, ...] = ()
    log_max_bytes: int = DEFAULT_LOG_MAX_BYTES
    log_keep: int = DEFAULT_LOG_KEEP
    """As for a model."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks (CIDR) whose X-Forwarded-For is believed."""
    ollama: bool = False
    """Ollama's API is answered too."""


@dataclass(frozen=True, slots=True)
class Restarts:
    """When a replica that failed is started again."""

    max: int | None = None
    """Starts in a row that may fail before it counts as failed; 0: it is never restarted; None: the supervisor's own."""
    delay_s: float | None = None
    """Seconds until a failed one is tried again; None: the supervisor's own."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One entry of ``models``: what to serve, and how each of its replicas runs."""

    model: str
    """Local folder, GGUF file, ``package://module/file``, or hub id, as given; for ``command`` a label."""
    names: tuple[str, ...]
    """What clients ask for, at least one. Default: the last part of ``model``."""
    engine: EngineName = EngineName.TRANSFORMERS
    engine_model: str = ""
    """``engine: command`` only: the name that the server itself knows; empty: it takes all of ``names``."""
    host: str = DEFAULT_HOST
    port: int | None = None
    """Of the first replica; the others take the next free ones."""
    gpus: GpuRequest = field(default_factory=GpuAuto)
    replicas: int = 1
    vram_bytes: int | None = None
    """A replica's total over its GPUs; None: estimated."""
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    env_pass: tuple[str, ...] = ()
    """Variables of the caller that it gets although they look secret: ``NAME`` or ``PREFIX_*``."""
    env_only: bool = False
    """True: of the caller's environment only what every program needs, and ``env_pass``."""
    env_files: tuple[str, ...] = ()
    """Absolute paths of dotenv files; see ``manifest.places`` for who reads them."""
    engine_reason: str = ""
    """Why the rules chose ``engine``; empty: the manifest names it."""
    secret_env: frozenset[str] = frozenset()
    """Names in ``env`` whose values came from a file, and are never shown."""
    python: str | None = None
    """The interpreter that runs its engine: an absolute path, or a name on PATH; None: the engine's rule."""
    executable: str | None = None
    """``bin``: the engine's program, an absolute path or a name on PATH; None: the engine's rule."""
    venv: str = ""
    """The folder of the virtual environment that ``python`` or ``executable`` belongs to; empty: none."""
    prefix: tuple[str, ...] = ()
    """Words before the engine's own command line, such as ``numactl --cpunodebind=0``."""
    shown_prefix: tuple[str, ...] = ()
    """``prefix`` as people may see it. Empty: as it is."""
    workdir: str | None = None
    """Absolute path of the folder its processes start in; None: the manifest's."""
    stop_signal: str = "SIGTERM"
    """What asks its processes to end."""
    dtype: str = "auto"
    """auto | float32 | bfloat16 | float16"""
    revision: str | None = None
    source: Source = Source.AUTO
    trust_remote_code: bool = False
    max_concurrency: int | None = None
    """Requests that one replica works on at a time; None: the engine's own default."""
    max_model_len: int | None = None
    """Tokens of context; None: the model's own, as far as memory allows."""
    tool_parser: str | None = None
    """How the model writes tool calls; None: as its engine decides."""
    command: tuple[str, ...] = ()
    """``engine: command`` only. ``{host}``, ``{port}`` and more are filled in; see ``engines.command``."""
    kind: str = ""
    """``engine: command`` only: generate | embed | rerank | audio; empty: nobody says."""
    path: str = ""
    """``engine: command`` only: ``model`` as an absolute path where it is one, else as it stands."""
    probe: str | None = None
    """Path that answers 200 as long as the replica is healthy; "": it is not probed; None: the engine's own."""
    ready_probe: str | None = None
    """Path that answers 200 when the replica is ready; "": its port takes connections; None: as ``probe``."""
    probe_timeout_s: float | None = None
    """Seconds that the answer to a probe may take; None: the engine's own."""
    probe_failures: int | None = None
    """Failed probes in a row after which it is restarted; None: the engine's own."""
    restart: Restarts = field(default_factory=Restarts)
    request_timeout_s: float | None = None
    """Seconds without any output while it has requests, after which it counts as frozen; None: the engine's own."""
    start_timeout_s: float | None = None
    """Seconds without progress after which a start has failed; None: the engine's own."""
    stop_grace_s: float = 10.0
    """Seconds from asking a replica to end until it is killed."""
    variables: frozenset[str] = frozenset()
    """Names of the environment variables whose values stand in its env, command, prefix and engine_args."""
    shown_command: tuple[str, ...] = ()
    """``command`` as people may see it: with ``${NAME}`` where variables brought something in. Empty: as it is."""
    shown_engine_args: Mapping[str, Any] = field(default_factory=dict)
    """``engine_args`` as people may see it."""
    log_max_bytes: int = DEFAULT_LOG_MAX_BYTES
    """Bytes at which a log file of a replica is full and the next one begins."""
    log_keep: int = DEFAULT_LOG_KEEP
    """Number of log files kept for each life of a replica."""
    position: Position | None = None
    key_positions: Mapping[str, Position] = field(default_factory=dict)
    """Where its keys that name files and folders stand."""

    @property
    def hidden(self) -> list[tuple[Any, Any]]:
        """Values that words of its command line are made from and that hold something from the environment, each with what may be shown."""
        args = [(value, self.shown_engine_args.get(key, value)) for key, value in self.engine_args.items()]
        words = list(zip(self.command, self.shown_command or self.command, strict=True))
        before = list(zip(self.prefix, self.shown_prefix or self.prefix, strict=True))
        return [pair for pair in (*before, *words, *args) if pair[0] != pair[1]]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A whole manifest, checked, with its defaults filled in."""

    name: str
    """As ``common.deployment_name`` has it."""
    models: tuple[ModelSpec, ...]
    controller: ControllerSpec = field(default_factory=ControllerSpec)
    api: ApiSpec = field(default_factory=ApiSpec)
    path: str | None = None
    """The absolute path it was read from; relative paths inside it start at its folder."""
    secrets: frozenset[str] = frozenset()
    """Values that came from the environment; never shown."""

    @property
    def served_names(self) -> tuple[str, ...]:
        """Every name that clients may ask for, in file order."""
        return tuple(name for model in self.models for name in model.names)
