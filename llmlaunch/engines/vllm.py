"""vLLM: ``vllm serve``.

It takes ``--gpu-memory-utilization`` of the *total* of each GPU and refuses to start when that much is not free, so on a shared
GPU the fraction is the claim over the total, rounded down. Weights, activations and KV cache live inside that claim.
Without a ``max_model_len`` vLLM is told ``auto``: the model's own context, or the longest that its memory can hold.
Source: vLLM's engine arguments, https://docs.vllm.ai/en/latest/configuration/engine_args/ (0.16 and later know all that is written here).
"""

from __future__ import annotations

from llmlaunch.engines import common, progress, units
from llmlaunch.engines.flag_table import FlagTable
from llmlaunch.engines.flag_tables import vllm as recorded
from llmlaunch.engines.flags import positive, problems, repeated, to_flags
from llmlaunch.engines.types import Floors, Launch, LaunchRequest, MemoryRule, MetricNames
from llmlaunch.manifest.types import ModelSpec, Source
from llmlaunch.models.facts import ModelFacts

_MEMORY = "write vram: on the model, the plan computes the fraction from it"
_OWNED = common.PYTHON_SERVER | {
    "gpu-memory-utilization": _MEMORY,
    "kv-cache-memory-bytes": _MEMORY,
    "device-ids": "write gpus: on the model",
    "uds": "workers are reached over TCP",
    "headless": "workers are reached over HTTP",
    "grpc": "workers are reached over HTTP",
}


class Vllm:
    """``vllm serve``: of ``python:``, of ``bin:``, or from the PATH that its process gets."""

    name = "vllm"
    memory = MemoryRule(graph_bytes=3 << 29, paged=True, preallocates=True, half_precision=True)
    # Weight-only kernels (Marlin) stand in where a GPU cannot calculate in a format.
    # Source: https://docs.vllm.ai/en/latest/features/quantization/ and get_min_capability of its formats.
    floors = Floors(
        (7, 0),
        bfloat16=True,
        quantised={"fp8": (7, 5), "awq": (7, 5), "mxfp4": (8, 0), "modelopt_fp4": (8, 0)},
    )
    index_mask = True
    key_variable = "VLLM_API_KEY"
    """Required under /v1 only: /health and /metrics stay open."""
    auto_cpu = False
    optional_program = ""
    flags = FlagTable(recorded.VERSION, recorded.FLAGS, abbreviates=True, count=units.vllm)

    def problems(self, model: ModelSpec) -> tuple[str, ...]:
        args = model.engine_args
        keys = {
            "max-num-seqs": model.max_concurrency,
            "max-model-len": model.max_model_len,
            "tool-call-parser": model.tool_parser,
        }
        return (
            *problems(args, self.flags, _OWNED),
            *repeated(args, self.flags, keys),
            *positive(args, self.flags, "max-num-seqs"),
        )

    def unsupported(self, facts: ModelFacts, devices: int) -> str:
        return common.indivisible(facts, devices)

    def sequences(self, model: ModelSpec) -> int:
        # vLLM's own default of 256 and more costs memory for logits and graphs that a shared GPU may not have.
        return common.sequences(model, self.flags, "max-num-seqs", 64)

    def context(self, model: ModelSpec, facts: ModelFacts) -> int:
        return common.context(model, facts, self.memory, self.flags, "max-model-len")

    def launch(self, request: LaunchRequest) -> Launch:
        model, args = request.model, request.model.engine_args
        program: tuple[str, ...] = (model.executable or "vllm",)
        if model.python:
            # A venv that was moved or copied still has a good python, when the scripts beside it no longer are.
            program = (model.python, "-m", "vllm.entrypoints.cli.main")
        given = self.flags.value
        argv = [
            *(*program, "serve", request.facts.path if request.facts else model.model),
            *("--served-model-name", *model.names),
            *("--host", request.host, "--port", str(request.port)),
        ]
        if request.devices:
            argv += ["--tensor-parallel-size", str(len(request.devices))]
            # Of unknown memory no fraction can be told: vLLM's own default holds.
            if fraction := common.vram_fraction(request.devices):
                argv += ["--gpu-memory-utilization", f"{fraction:g}"]
        if model.max_model_len:
            argv += ["--max-model-len", str(model.max_model_len)]
        elif request.devices and given(args, "max-model-len") is None:
            # On a CPU "auto" falls to 512 tokens; there vLLM's own default is the model's context.
            argv += ["--max-model-len", "auto"]
        if given(args, "max-num-seqs") is None:
            argv += ["--max-num-seqs", str(self.sequences(model))]
        if not self.flags.mentions(args, "disable-access-log-for-endpoints"):
            argv += ["--disable-access-log-for-endpoints", "/health,/metrics"]
        if model.dtype != "auto":
            argv += ["--dtype", model.dtype]
        if model.revision:
            argv += ["--revision", model.revision]
        if model.trust_remote_code:
            argv.append("--trust-remote-code")
        if model.tool_parser:
            argv += ["--tool-call-parser", model.tool_parser]
            # Without it vLLM refuses tool_choice: auto, which clients send.
            if given(args, "enable-auto-tool-choice") is None:
                argv.append("--enable-auto-tool-choice")
        return Launch(
            argv=(*argv, *to_flags(args, self.flags)),
            env={"VLLM_USE_MODELSCOPE": "True"} if model.source is Source.MODELSCOPE else {},
            # It takes every name, but its answers bear the first one.
            engine_model=model.names[0] if len(model.names) > 1 else "",
            metrics=MetricNames(
                "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"
            ),
            progress_patterns=progress.VLLM,
            # torch.compile and graph capture can be silent for minutes.
            start_timeout_s=600.0,
        )
