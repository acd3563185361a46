"""How to run an engine: pure descriptions, from a placed replica to the process that serves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from llmlaunch.engines.flag_table import FlagTable
from llmlaunch.manifest.types import ModelSpec
from llmlaunch.models.facts import ModelFacts

Capability = tuple[int, int]
"""CUDA's compute capability, major and minor: (8, 9)."""


@dataclass(frozen=True, slots=True)
class Floors:
    """The lowest compute capabilities of GPUs that an engine runs on."""

    engine: Capability | None = None
    """For anything at all; None: the planner knows of no bound."""
    bfloat16: bool = False
    """``dtype: bfloat16`` is refused by GPUs that do not have it, instead of being emulated."""
    quantised: Mapping[str, Capability] = field(default_factory=dict)
    """For weights in a format, by :attr:`ModelFacts.quantisation`."""


class Windows(StrEnum):
    """Room that an engine gives to layers whose attention has a window."""

    POOLED = "pooled"
    """The windows of all sequences and one batch, from a pool."""
    EACH = "each"
    """The window and a batch for every sequence."""
    WHOLE = "whole"
    """As much as to layers without a window."""


@dataclass(frozen=True, slots=True)
class MemoryRule:
    """What an engine takes on a GPU beside the weights; see docs/explanation/architecture.md for the formula."""

    context_bytes: int = 500 << 20
    """CUDA context and libraries, per GPU."""
    parallel_bytes: int = 300 << 20
    """Communication buffers per GPU when a replica spans several."""
    graph_bytes: int = 0
    """CUDA graphs, per GPU."""
    default_sequences: int = 8
    """Concurrent sequences to plan the KV cache for by default."""
    default_context: int = 4096
    """Tokens per sequence to plan for; the model's own context bounds it."""
    batch_tokens: int = 2048
    """Tokens of one forward pass, for the activations."""
    paged: bool = False
    """Sequences share one pool of KV blocks: it need not hold every sequence at full length."""
    layer_split: bool = False
    """Several GPUs each hold some whole layers; False: each holds a part of every layer (tensor parallel)."""
    preallocates: bool = False
    """The KV cache is taken while loading, so what is measured once it is ready is all it will take."""
    windows: Windows = Windows.POOLED
    expands_mla: bool = False
    """The KV cache of an MLA model holds full heads instead of its small latent."""
    half_precision: bool = False
    """A float32 checkpoint is loaded in 16 bits unless ``dtype`` says otherwise."""


@dataclass(frozen=True, slots=True)
class MetricNames:
    """Metrics in the engine's own /metrics that give its load; empty: there is none."""

    running: str = ""
    waiting: str = ""
    kv_usage: str = ""


@dataclass(frozen=True, slots=True)
class DeviceClaim:
    """What one replica may take on one device."""

    uuid: str
    index: int
    total_bytes: int
    claim_bytes: int


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """A placed replica, ready to become a process."""

    component: str
    model: ModelSpec
    facts: ModelFacts | None
    """None for ``engine: command``."""
    host: str
    port: int
    controller_url: str
    devices: tuple[DeviceClaim, ...]
    """Empty: the CPU."""
    python: str
    """The interpreter that the manifest names, else the one of this installation."""
    kv_tokens: int | None = None
    """Tokens of KV cache that the claim has room for; None: unknown, or the CPU."""
    absent: frozenset[str] = frozenset()
    """Programs that engines can do without (:attr:`Engine.optional_program`) and that are not on the model's PATH."""
    cores: int | None = None
    """Cores to compute on; None: unknown."""
    mask: str = ""
    """CUDA_VISIBLE_DEVICES."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A process to start. Environment values are added to the supervisor's own environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    ready_path: str = "/health"
    """GET answers 200 once the replica can serve."""
    live_path: str = "/health"
    """GET answers 200 as long as it should be left running."""
    probe_timeout_s: float = 10.0
    """Seconds that an answer to either may take. llama-server was seen to need 3 s under forty requests."""
    probe_failures: int = 3
    """Failed probes of ``live_path`` in a row that make it unhealthy."""
    self_registering: bool = False
    """True: it registers with the controller itself. False: the supervisor does it on its behalf."""
    engine_model: str = ""
    """The one name that it knows its model by, or that its answers bear, if the model is served under others, too."""
    metrics: MetricNames = field(default_factory=MetricNames)
    progress_patterns: tuple[str, ...] = ()
    """Regular expressions; a new match in the log is progress of a start."""
    start_timeout_s: float = 120.0
    why: str = ""
    """Which installation was taken and why, where more than one was possible; empty: there is one only."""


class Engine(Protocol):
    """One of these per engine, in ``engines/registry.py``."""

    name: str
    memory: MemoryRule
    floors: Floors
    index_mask: bool
    """True: whole GPUs are named by index in CUDA_VISIBLE_DEVICES, because UUIDs break its parser."""
    key_variable: str
    """The environment variable in which it takes the key that its callers must show; empty: there is no way that other users cannot see."""
    auto_cpu: bool
    """Whether ``gpus: auto`` may mean the CPU on a machine without GPUs."""
    optional_program: str
    """A program that it runs where it is on the model's PATH, and can do without; empty: none."""
    flags: FlagTable
    """The flags that its program knows."""

    def problems(self, model: ModelSpec) -> tuple[str, ...]:
        """What the manifest asks for and this engine cannot do, one sentence each."""
        ...

    def unsupported(self, facts: ModelFacts, devices: int) -> str:
        """Why this engine cannot run that model on that many GPUs (0: the CPU), or empty."""
        ...

    def launch(self, request: LaunchRequest) -> Launch:
        """The process that serves ``request``, whose model has no :meth:`problems`. The device mask is the planner's."""
        ...

    def sequences(self, model: ModelSpec) -> int:
        """Concurrent sequences the replica will be started with."""
        ...

    def context(self, model: ModelSpec, facts: ModelFacts) -> int:
        """Tokens of context the replica will be started with."""
        ...
