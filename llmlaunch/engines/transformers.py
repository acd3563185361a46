"""The built-in worker: ``llmlaunch worker`` on transformers. It registers itself, and runs on CPUs as well."""

from __future__ import annotations

from llmlaunch.common import variables
from llmlaunch.common.spelling import nearest
from llmlaunch.common.tool_parsers import TOOL_PARSERS
from llmlaunch.engines import common
from llmlaunch.engines.flag_table import FlagTable
from llmlaunch.engines.flag_tables import worker as recorded
from llmlaunch.engines.flags import positive, problems, repeated, to_flags
from llmlaunch.engines.types import Floors, Launch, LaunchRequest, MemoryRule, MetricNames, Windows
from llmlaunch.manifest.types import ModelSpec, Source
from llmlaunch.models.facts import ModelFacts

_OWNED = common.OWNED | {
    "revision": "write revision: on the model",
    "trust-remote-code": "write trust_remote_code: on the model",
    "dtype": "write dtype: on the model",
    "model-path": "write model: on the model",
    "model-names": "write names: on the model",
    "worker-address": "it follows host: and port:",
    "controller-address": "it follows controller:",
    "component": "it names the replica",
    "device": "write gpus: on the model",
    "source": "write source: on the model",
    "vram-bytes": "write vram: on the model",
    "request-timeout": "write request_timeout: on the model",
    "stop-grace": "write stop_grace: on the model",
    "no-register": "the deployment's workers always register",
    "prepare": "run `llmlaunch worker --prepare` by hand",
}


def _unknown_parser(name: str | None) -> list[str]:
    if name is None or name in TOOL_PARSERS:
        return []
    similar = nearest(name, TOOL_PARSERS)
    ask = f"; did you mean {similar}?" if similar else f"; expected one of {', '.join(TOOL_PARSERS)}"
    return [f"tool_parser: {name!r} is not one of its formats{ask}"]


def _source(request: LaunchRequest) -> str:
    """What is still on a hub is found there by the manifest's words, which may name a file."""
    facts = request.facts
    return facts.path if facts and facts.local else request.model.model


class Transformers:
    """``llmlaunch worker`` in this very installation, or in the one of ``python:``."""

    name = "transformers"
    memory = MemoryRule(
        context_bytes=720 << 20,
        graph_bytes=128 << 20,
        layer_split=True,
        windows=Windows.WHOLE,
        expands_mla=True,
    )
    floors = Floors()
    index_mask = False
    key_variable = variables.WORKER_KEY
    auto_cpu = True
    optional_program = ""
    flags = FlagTable(recorded.VERSION, recorded.FLAGS)

    def problems(self, model: ModelSpec) -> tuple[str, ...]:
        args = model.engine_args
        keys = {
            "limit-worker-concurrency": model.max_concurrency,
            "max-model-len": model.max_model_len,
            "tool-parser": model.tool_parser,
        }
        return (
            *problems(args, self.flags, _OWNED, complete=model.python is None),
            *repeated(args, self.flags, keys),
            *positive(args, self.flags, "limit-worker-concurrency", "max-model-len"),
            *_unknown_parser(model.tool_parser),
            *common.no_bin(model, "python: names the interpreter that runs it"),
        )

    def unsupported(self, facts: ModelFacts, devices: int) -> str:
        if facts.format == "mistral":
            return (
                f"{facts.source} is in Mistral's own format (params.json), which needs engine: vllm; "
                "this engine reads models with a config.json"
            )
        return ""

    def sequences(self, model: ModelSpec) -> int:
        return common.sequences(model, self.flags, "limit-worker-concurrency", self.memory.default_sequences)

    def context(self, model: ModelSpec, facts: ModelFacts) -> int:
        return common.context(model, facts, self.memory, self.flags, "max-model-len")

    def launch(self, request: LaunchRequest) -> Launch:
        model, claims = request.model, request.devices
        argv = [
            *(request.python, "-m", "llmlaunch", "worker"),
            *("--model-path", _source(request)),
            *("--model-names", ",".join(model.names)),
            *("--host", request.host, "--port", str(request.port)),
            *("--controller-address", request.controller_url, "--component", request.component),
            *("--device", "cuda" if claims else "cpu", "--dtype", model.dtype),
            *("--stop-grace", f"{model.stop_grace_s:g}"),
        ]
        if model.max_concurrency:
            argv += ["--limit-worker-concurrency", str(model.max_concurrency)]
        if model.request_timeout_s:
            argv += ["--request-timeout", f"{model.request_timeout_s:g}"]
        if model.max_model_len:
            argv += ["--max-model-len", str(model.max_model_len)]
        if model.revision:
            argv += ["--revision", model.revision]
        if model.source is not Source.AUTO:
            argv += ["--source", model.source.value]
        if model.tool_parser:
            argv += ["--tool-parser", model.tool_parser]
        if model.trust_remote_code:
            argv.append("--trust-remote-code")
        if total := sum(claim.claim_bytes for claim in claims):
            argv += ["--vram-bytes", str(total)]
        return Launch(
            argv=(*argv, *to_flags(model.engine_args, self.flags)),
            ready_path="/ready",
            live_path="/health",
            self_registering=True,
            metrics=MetricNames(),
            start_timeout_s=300.0,
        )
