"""SGLang: ``python -m sglang.launch_server``, or ``sglang serve`` of ``bin:``.

Its ``--mem-fraction-static`` is a fraction of what happens to be *free* when it starts, which on a shared GPU depends on who came
first. ``--max-total-tokens`` bounds the KV cache itself, so that is what the plan sets; the fraction stays SGLang's own.
Source: https://docs.sglang.io/advanced_features/server_arguments.html
"""

from __future__ import annotations

from llmlaunch.engines import common, progress, units
from llmlaunch.engines.flag_table import FlagTable
from llmlaunch.engines.flag_tables import sglang as recorded
from llmlaunch.engines.flags import positive, problems, repeated, to_flags
from llmlaunch.engines.types import Floors, Launch, LaunchRequest, MemoryRule, MetricNames
from llmlaunch.manifest.types import ModelSpec, Source
from llmlaunch.models.facts import ModelFacts, ModelKind

_MEMORY = "write vram: on the model, the plan computes the tokens from it"
_OWNED = common.PYTHON_SERVER | {
    "device": "write gpus: on the model",
    "base-gpu-id": "write gpus: on the model",
    "max-total-tokens": _MEMORY,
    "admin-api-key": common.API_KEY,
}
_SERVER = ("-m", "sglang.launch_server")


class Sglang:
    """``sglang.launch_server``."""

    name = "sglang"
    memory = MemoryRule(graph_bytes=3 << 29, paged=True, preallocates=True, half_precision=True)
    floors = Floors((7, 5), bfloat16=True, quantised={"fp8": (8, 0), "mxfp4": (8, 0)})
    index_mask = True
    key_variable = ""
    """It takes a key only in its argv, which every user of the machine can read."""
    auto_cpu = False
    optional_program = ""
    flags = FlagTable(recorded.VERSION, recorded.FLAGS, abbreviates=True, count=units.sglang)

    def problems(self, model: ModelSpec) -> tuple[str, ...]:
        args = model.engine_args
        keys = {
            "max-running-requests": model.max_concurrency,
            "context-length": model.max_model_len,
            "tool-call-parser": model.tool_parser,
        }
        return (
            *problems(args, self.flags, _OWNED),
            *repeated(args, self.flags, keys),
            *positive(args, self.flags, "max-running-requests", "context-length"),
        )

    def unsupported(self, facts: ModelFacts, devices: int) -> str:
        return common.indivisible(facts, devices)

    def sequences(self, model: ModelSpec) -> int:
        return common.sequences(model, self.flags, "max-running-requests", 64)

    def context(self, model: ModelSpec, facts: ModelFacts) -> int:
        return common.context(model, facts, self.memory, self.flags, "context-length")

    def launch(self, request: LaunchRequest) -> Launch:
        model, facts, args = request.model, request.facts, request.model.engine_args
        program, why = _program(model, request.python)
        given = self.flags.value
        argv = [
            *program,
            *("--model-path", facts.path if facts else model.model),
            *("--served-model-name", model.names[0]),
            *("--host", request.host, "--port", str(request.port), "--enable-metrics"),
        ]
        if request.devices:
            argv += ["--tp-size", str(len(request.devices))]
        else:
            argv += ["--device", "cpu"]
        if request.kv_tokens:
            argv += ["--max-total-tokens", str(request.kv_tokens)]
        if model.max_model_len:
            argv += ["--context-length", str(model.max_model_len)]
        if given(args, "max-running-requests") is None:
            argv += ["--max-running-requests", str(self.sequences(model))]
        if not self.flags.mentions(args, "uvicorn-access-log-exclude-prefixes"):
            argv += ["--uvicorn-access-log-exclude-prefixes", "/health", "/metrics"]
        if model.dtype != "auto":
            argv += ["--dtype", model.dtype]
        if model.revision:
            argv += ["--revision", model.revision]
        if model.trust_remote_code:
            argv.append("--trust-remote-code")
        if model.tool_parser:
            argv += ["--tool-call-parser", model.tool_parser]
        if facts and facts.kind is ModelKind.EMBED and given(args, "is-embedding") is None:
            argv.append("--is-embedding")
        return Launch(
            argv=(*argv, *to_flags(args, self.flags)),
            env={"SGLANG_USE_MODELSCOPE": "true"} if model.source is Source.MODELSCOPE else {},
            # It has one name, and takes what follows a colon in another one for a LoRA adapter.
            engine_model=model.names[0] if len(model.names) > 1 else "",
            metrics=MetricNames("sglang:num_running_reqs", "sglang:num_queue_reqs", "sglang:token_usage"),
            progress_patterns=progress.SGLANG,
            # Its /health waits a second, then generates a token, and answers 503 when that took longer than 20 s.
            probe_timeout_s=25.0,
            probe_failures=2,
            start_timeout_s=600.0,
            why=why,
        )


def _program(model: ModelSpec, python: str) -> tuple[tuple[str, ...], str]:
    """The words that start its server, and why these: ``bin:``, ``python:``, a PATH under ``env:``, our own Python, in this order."""
    if model.executable:
        return (model.executable, "serve"), ""
    if model.python:
        return (model.python, *_SERVER), ""
    if "PATH" in model.env:
        return ("python3", *_SERVER), "sglang of the first python3 on the PATH under env:"
    return (python, *_SERVER), f"sglang of {python}, which runs llmlaunch; python: names another"
