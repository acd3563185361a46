"""llama.cpp: ``llama-server`` on a GGUF file, on GPUs or on the CPU.

``-c`` is the context of all slots together, so it is slots × context; the whole KV cache is taken at the start. Because ``-c`` is
always given, ``--fit`` has nothing left to enlarge, and the claim holds. Several GPUs share the layers (``--split-mode layer``).
Source: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

from __future__ import annotations

from llmlaunch.engines import common
from llmlaunch.engines.flags import invalid_flags, lookup, positive, repeated, to_flags
from llmlaunch.engines.types import Floors, Launch, LaunchRequest, MemoryRule, MetricNames, Windows
from llmlaunch.manifest.types import ModelSpec
from llmlaunch.models.facts import ModelFacts, ModelKind

_SLOTS = "write max_concurrency: on the model"
_CONTEXT = "write max_model_len: on the model"
_OWNED = common.OWNED | {
    "model": "write model: on the model",
    "m": "write model: on the model",
    "hf-repo": "write model: on the model",
    "alias": "write names: on the model",
    "a": "write names: on the model",
    "ctx-size": _CONTEXT,
    "c": _CONTEXT,
    "parallel": _SLOTS,
    "np": _SLOTS,
    "device": "write gpus: on the model",
    "main-gpu": "write gpus: on the model",
    "tensor-split": "write gpus: on the model",
    "api-key-file": common.OWNED["api-key"],
    "ssl-key-file": common.OWNED["ssl-keyfile"],
    "ssl-cert-file": common.OWNED["ssl-certfile"],
}
# llama.cpp's abbreviations take one dash; its long flags of the same length (--fit, --temp) take two.
_SHORT = frozenset({
    "cb", "cd", "cmoe", "cram", "ctk", "ctkd", "ctv", "ctvd", "dev", "fa", "kvu", "lv", "md", "mm", "mmu", "ncmoe",
    "ngl", "ngld", "nkvo", "nocb", "ot", "rea", "sm", "sps", "tb", "td", "to", "ub",
})  # fmt: skip
_LAYERS = ("gpu-layers", "n-gpu-layers", "ngl")


class LlamaCpp:
    """``llama-server`` on a GGUF file."""

    name = "llamacpp"
    memory = MemoryRule(
        default_sequences=4,
        default_context=8192,
        batch_tokens=512,
        layer_split=True,
        preallocates=True,
        windows=Windows.EACH,
    )
    floors = Floors()
    index_mask = False
    key_variable = "LLAMA_API_KEY"
    """/health does not require it."""
    auto_cpu = True

    def problems(self, model: ModelSpec) -> tuple[str, ...]:
        args = model.engine_args
        both = [name for name in _LAYERS if lookup(args, name) is not None]
        return (
            *invalid_flags(args, _OWNED),
            *repeated(args, {}),
            *positive(args, "batch-size", "ubatch-size"),
            *common.no_tool_parser(model),
            *([f"engine_args: {' and '.join(both)} are the same flag"] if len(both) > 1 else []),
        )

    def unsupported(self, facts: ModelFacts, devices: int) -> str:
        if facts.format == "gguf":
            return ""
        return f"llama.cpp reads GGUF files, and {facts.source} is {facts.format}; name a .gguf file, or another engine"

    def sequences(self, model: ModelSpec) -> int:
        return common.sequences(model, "parallel", self.memory.default_sequences)

    def context(self, model: ModelSpec, facts: ModelFacts) -> int:
        return common.context(model, facts, self.memory, "ctx-size")

    def launch(self, request: LaunchRequest) -> Launch:
        model, facts, args = request.model, request.facts, request.model.engine_args
        slots = self.sequences(model)
        source = (
            ("-m", facts.path) if facts and facts.local else ("-hf", facts.path if facts else model.model)
        )
        argv = [
            *("llama-server", *source, "--alias", ",".join(model.names)),
            *("--host", request.host, "--port", str(request.port), "--metrics"),
            *("--parallel", str(slots)),
        ]
        if facts:
            argv += ["--ctx-size", str(slots * self.context(model, facts))]
        if not request.devices:
            argv += ["--gpu-layers", "0"]
        elif lookup(args, *_LAYERS) is None:
            # More layers than any model has: all of them, understood by every version ("all" is not).
            argv += ["--gpu-layers", "999"]
        if len(request.devices) > 1 and lookup(args, "split-mode", "sm") is None:
            argv += ["--split-mode", "layer"]
        if facts and facts.kind is ModelKind.EMBED and lookup(args, "embedding", "embeddings") is None:
            argv.append("--embedding")
        if facts and facts.kind is ModelKind.RERANK and lookup(args, "rerank", "reranking") is None:
            argv.append("--rerank")
        return Launch(
            argv=(*argv, *to_flags(args, joined=False, short=_SHORT)),
            metrics=MetricNames("llamacpp:requests_processing", "llamacpp:requests_deferred"),
            progress_patterns=(
                r"load_tensors:",
                r"llama_context:",
                r"llama_kv_cache",
                r"(?:llama_)?model_loader?:",
            ),
            start_timeout_s=300.0,
        )
