"""The worker's command line as values. They are checked before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llmlaunch.common.addresses import local_url
from llmlaunch.common.tool_parsers import AUTO, TOOL_PARSERS
from llmlaunch.errors import UsageError
from llmlaunch.manifest import resolve
from llmlaunch.manifest.types import Source

DEVICES = ("auto", "cpu", "cuda")
LOAD_IN = ("", "8bit", "4bit")
REASONING = ("auto", "off")
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What a worker serves, and how. Sizes in bytes, times in seconds, lengths in tokens."""

    model: str
    """A folder, a GGUF file, package://MODULE, or a hub id."""
    names: tuple[str, ...]
    """Served model names; the first one is the worker's own."""
    host: str = "127.0.0.1"
    port: int = 21002
    worker_address: str = ""
    """The address given to the controller and gateways; empty: from host and port."""
    controller_address: str = ""
    """The controller to register with; empty: the worker does not register."""
    component: str = ""
    """The name of this worker in its deployment; empty: it was started by hand."""
    device: str = "auto"
    dtype: str = "auto"
    max_concurrency: int = 32
    """Maximum number of requests that run at once; others wait."""
    max_queue: int = 1024
    """Maximum number of waiting requests; further ones get a 429."""
    max_model_len: int | None = None
    revision: str | None = None
    source: str = "auto"
    trust_remote_code: bool = False
    vram_bytes: int | None = None
    """The plan's claim for this worker, over all its devices."""
    max_gpu_memory: int | None = None
    """Maximum bytes of weights on each GPU."""
    cpu_offload: bool = False
    """Whether layers that do not fit the GPUs may stay in main memory."""
    load_in: str = ""
    """8bit or 4bit: quantise the weights while loading. Empty: as stored."""
    kv_cache_bytes: int | None = None
    threads: int | None = None
    seed: int | None = None
    stop_grace_s: float = 30.0
    request_timeout_s: float | None = None
    """How long gateways accept silence from this worker while it has requests; None: they decide."""
    prefix_reuse: bool = True
    reasoning: str = "auto"
    """auto: return the reasoning of models that mark it in a separate field. off: as part of the answer."""
    tool_parser: str = AUTO
    """How the model writes tool calls: one of TOOL_PARSERS."""
    strict_seeds: bool = False
    """Whether requests with a seed get forward passes of their own."""
    cuda_graphs: bool = True
    """Whether steps that only decode may be replayed as CUDA graphs."""

    @property
    def address(self) -> str:
        """Where others reach this worker. A wildcard host becomes loopback."""
        if self.worker_address:
            return self.worker_address.rstrip("/")
        return local_url(self.host, self.port)


def served_names(model: str, given: str) -> tuple[str, ...]:
    """Return ``given`` ("a,b") as names; when empty, the name that a manifest would give ``model``.

    Raises UsageError for an empty or repeated name, and when ``model`` has no part that can be a name.
    """
    if not given:
        return (_default_name(model),)
    names = tuple(name.strip() for name in given.split(","))
    if not all(names):
        raise UsageError(f"--model-names {given!r} has an empty name", hint="write it like --model-names a,b")
    if not all(map(resolve.is_served_name, names)):
        raise UsageError(f"--model-names {given!r} contains characters that a model name cannot have")
    if len(set(names)) != len(names):
        raise UsageError(f"--model-names {given!r} names one model twice")
    return names


def _default_name(model: str) -> str:
    """Raises UsageError when there is none."""
    try:
        name = resolve.default_name(resolve.model_path(model, Path.cwd()))
    except ValueError as error:
        raise UsageError(f"--model-path {model!r}: {error}") from error
    if not name:
        raise UsageError(
            f"no name can be made from --model-path {model!r}", hint="give one: --model-names NAME"
        )
    return name


def check(config: WorkerConfig) -> None:
    """Raises UsageError naming the flag if a value can never work."""
    problems = [
        (not config.model, "--model-path is empty"),
        (config.device not in DEVICES, f"--device {config.device!r} is not one of {', '.join(DEVICES)}"),
        (config.dtype not in DTYPES, f"--dtype {config.dtype!r} is not one of {', '.join(DTYPES)}"),
        (config.source not in set(Source), f"--source {config.source!r} is not one of {', '.join(Source)}"),
        (config.load_in not in LOAD_IN, f"--load-in {config.load_in!r} is not 8bit or 4bit"),
        (
            config.reasoning not in REASONING,
            f"--reasoning {config.reasoning!r} is not one of {', '.join(REASONING)}",
        ),
        (
            config.tool_parser not in TOOL_PARSERS,
            f"--tool-parser {config.tool_parser!r} is not one of {', '.join(TOOL_PARSERS)}",
        ),
        (config.max_concurrency < 1, "--limit-worker-concurrency must be at least 1"),
        (config.max_queue < 0, "--max-queue must be at least 0"),
        (
            config.max_model_len is not None and config.max_model_len < 1,
            "--max-model-len must be at least 1 token",
        ),
        (config.vram_bytes is not None and config.vram_bytes < 1, "--vram-bytes must be positive"),
        (
            config.kv_cache_bytes is not None and config.kv_cache_bytes < 1,
            "--kv-cache-bytes must be positive",
        ),
        (config.threads is not None and config.threads < 1, "--threads must be at least 1"),
        (config.stop_grace_s < 0, "--stop-grace must be at least 0 seconds"),
        (
            config.request_timeout_s is not None and config.request_timeout_s <= 0,
            "--request-timeout must be above 0 seconds",
        ),
    ]
    for wrong, message in problems:
        if wrong:
            raise UsageError(message)
    for flag, value in (
        ("--worker-address", config.worker_address),
        ("--controller-address", config.controller_address),
    ):
        if value and not value.startswith(("http://", "https://")):
            raise UsageError(f"{flag} {value!r} is not a URL", hint="write it like http://127.0.0.1:21002")
