"""llama.cpp: ``llama-server`` on a GGUF file, on GPUs or on the CPU.

``-c`` is the context of all slots together, so it is slots × context; the whole KV cache is taken at the start. Because ``-c`` is
always given, ``--fit`` has nothing left to enlarge, and the claim holds. Several GPUs share the layers (``--split-mode layer``).

Without ``llama-server`` on the model's PATH, or with ``python:``, the same server runs out of a Python package
(``llmlaunch/llamacpp``), with the same flags.

On the CPU its threads wait for each other after every product. By default they spin meanwhile; as soon as another process takes one
of their cores, the others burn theirs until it comes back, and 73 tokens a second become 4. So they sleep instead: ``--poll 0`` for
ggml's own threads, OMP_WAIT_POLICY for those of OpenMP, which most builds have.
Source: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from llmlaunch.engines import common, progress
from llmlaunch.engines.flag_table import FlagTable
from llmlaunch.engines.flag_tables import llamacpp as recorded
from llmlaunch.engines.flags import positive, problems, to_flags
from llmlaunch.engines.types import Floors, Launch, LaunchRequest, MemoryRule, MetricNames, Windows
from llmlaunch.manifest.types import ModelSpec, Source
from llmlaunch.models.facts import ModelFacts, ModelKind

_SLOTS = "write max_concurrency: on the model"
_CONTEXT = "write max_model_len: on the model"
_OWNED = common.OWNED | {
    "model": "write model: on the model",
    "hf-repo": "write model: on the model",
    "alias": "write names: on the model",
    "ctx-size": _CONTEXT,
    "parallel": _SLOTS,
    "device": "write gpus: on the model",
    "main-gpu": "write gpus: on the model",
    "tensor-split": "write gpus: on the model",
    "api-key": common.API_KEY,
    "api-key-file": common.API_KEY,
    "ssl-key-file": common.PYTHON_SERVER["ssl-keyfile"],
    "ssl-cert-file": common.PYTHON_SERVER["ssl-certfile"],
}
_PROGRAM = "llama-server"
_PACKAGE = ("-m", "llmlaunch.llamacpp")
"""The same server out of a Python package, behind the interpreter."""
PROJECTOR_FLAGS = ("mmproj", "mmproj-url", "mmproj-auto")
"""Without any of these it takes the projector that lies beside the model."""
_FLAGS = FlagTable(recorded.VERSION, recorded.FLAGS, joined=False, commas=True)
_given = _FLAGS.value


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
    optional_program = _PROGRAM
    flags = _FLAGS

    def problems(self, model: ModelSpec) -> tuple[str, ...]:
        args = model.engine_args
        return (
            *problems(args, _FLAGS, _OWNED),
            *positive(args, _FLAGS, "batch-size", "ubatch-size"),
            *common.no_tool_parser(model),
        )

    def unsupported(self, facts: ModelFacts, devices: int) -> str:
        if facts.format == "gguf":
            return _cannot_download(facts)
        return f"llama.cpp reads GGUF files, and {facts.source} is {facts.format}; name a .gguf file, or another engine"

    def sequences(self, model: ModelSpec) -> int:
        return common.sequences(model, _FLAGS, "parallel", self.memory.default_sequences)

    def context(self, model: ModelSpec, facts: ModelFacts) -> int:
        return common.context(model, facts, self.memory, _FLAGS, "ctx-size")

    def launch(self, request: LaunchRequest) -> Launch:
        model, facts, args = request.model, request.facts, request.model.engine_args
        slots = self.sequences(model)
        program, why = _program(request)
        argv = [
            *(*program, *_source(request), "--alias", ",".join(model.names)),
            *("--host", request.host, "--port", str(request.port), "--metrics"),
            *("--parallel", str(slots)),
        ]
        if facts:
            argv += ["--ctx-size", str(slots * self.context(model, facts))]
        env = {}
        if not request.devices:
            argv += ["--gpu-layers", "0", *_patient_threads(args, request.cores)]
            env["OMP_WAIT_POLICY"] = "passive"
        elif _given(args, "gpu-layers") is None:
            # More layers than any model has: all of them, understood by every version ("all" is not).
            argv += ["--gpu-layers", "999"]
        if len(request.devices) > 1 and _given(args, "split-mode") is None:
            argv += ["--split-mode", "layer"]
        if facts:
            argv += _of_its_kind(facts, args, self.context(model, facts))
        if not _FLAGS.mentions(args, "verbosity", "verbose"):
            # The default of 2026 (3) leaves out what is loaded and why loading fails; prompts are printed from 5 on.
            argv += ["--verbosity", "4"]
        return Launch(
            argv=(*argv, *to_flags(args, _FLAGS)),
            env=env,
            metrics=MetricNames("llamacpp:requests_processing", "llamacpp:requests_deferred"),
            progress_patterns=progress.LLAMACPP,
            start_timeout_s=300.0,
            why=why,
        )


def _program(request: LaunchRequest) -> tuple[tuple[str, ...], str]:
    """The words that start its server, and why these: ``bin:``, the package in ``python:``, llama-server on PATH, the package in ours."""
    model = request.model
    if model.executable:
        return (model.executable,), ""
    if model.python:
        return (model.python, *_PACKAGE), ""
    if _PROGRAM in request.absent:
        return (
            request.python,
            *_PACKAGE,
        ), f"no llama-server on PATH: the one in the packages of {request.python}"
    return (_PROGRAM,), ""


def _cannot_download(facts: ModelFacts) -> str:
    """Why the server could not fetch a model that is not on this machine; empty: it can, or need not."""
    if facts.local:
        return ""
    if facts.hub == Source.MODELSCOPE:
        return f"llama.cpp downloads from Hugging Face only; download {facts.source} and name the file, or another engine"
    if facts.revision:
        return f"llama.cpp downloads the newest revision only; download {facts.source} at {facts.revision} and name the file"
    return ""


def _source(request: LaunchRequest) -> list[str]:
    """Where the model is; one that is still on Hugging Face is downloaded by the server itself, the very file that was planned."""
    facts = request.facts
    if facts is None:
        return ["-hf", request.model.model]
    if facts.local:
        words = ["-m", facts.path]
        if facts.projector and _given(request.model.engine_args, *PROJECTOR_FLAGS) is None:
            words += ["--mmproj", str(PurePath(facts.path).parent / facts.projector)]
        return words
    words = ["--hf-repo", facts.path]
    return [*words, "--hf-file", facts.files[0]] if facts.files else words


def _of_its_kind(facts: ModelFacts, args: Mapping[str, Any], context: int) -> list[str]:
    """What makes it chat with tools, embed or rerank, where ``engine_args`` do not say it."""
    if facts.kind is ModelKind.GENERATE:
        # The model's own chat template, without which there are no tools; the default of newer versions only.
        return ["--jinja"] if _given(args, "jinja") is None else []
    name = "embedding" if facts.kind is ModelKind.EMBED else "rerank"
    words = [f"--{name}"] if _given(args, name) is None else []
    # A text is embedded in one piece: longer ones than a batch are refused, and the default is 512 tokens.
    for name in ("batch-size", "ubatch-size"):
        if _given(args, name) is None:
            words += [f"--{name}", str(context)]
    return words


def _patient_threads(args: Mapping[str, Any], cores: int | None) -> list[str]:
    """As many threads as cores, which do not spin; what ``engine_args`` says about either counts."""
    words = []
    if cores and _given(args, "threads") is None:
        words += ["--threads", str(cores)]
    if _given(args, "poll") is None:
        words += ["--poll", "0"]
    return words
