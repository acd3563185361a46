"""``engine: command``: any server that speaks HTTP.

In each word of ``command`` these are filled in:

===================  ==============================================================
``{host}``           where it listens
``{port}``           its port
``{model}``          ``model:`` as it stands in the manifest
``{path}``           the same, as an absolute path where it is a file or a folder
``{name}``           the first served name
``{names}``          all of them, by commas
``{gpus}``           its GPUs as in CUDA_VISIBLE_DEVICES; empty on the CPU
``{gpu_count}``      how many these are; 0 on the CPU
``{vram_fraction}``  the share of each of them that ``vram:`` makes, rounded down to four digits; 0 on the CPU,
                     and where nobody can tell how much memory a GPU has
``{max_model_len}``  ``max_model_len:`` of the model
===================  ==============================================================

Braces around anything but a plain word stay as they are, so JSON needs no care; ``{{name}}`` is a literal ``{name}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from llmlaunch.common.spelling import nearest
from llmlaunch.engines import common, progress
from llmlaunch.engines.flag_table import FlagTable
from llmlaunch.engines.types import Floors, Launch, LaunchRequest, MemoryRule
from llmlaunch.manifest.types import GpuCpu, ModelSpec
from llmlaunch.models.facts import ModelFacts

_PLACEHOLDER = re.compile(r"\{\{([A-Za-z_]\w*)\}\}|\{([A-Za-z_]\w*)\}")
_KNOWN = (
    "host",
    "port",
    "model",
    "path",
    "name",
    "names",
    "gpus",
    "gpu_count",
    "vram_fraction",
    "max_model_len",
)


class CommandEngine:
    """Any server, started with the words of ``command:``. Only its port is known."""

    name = "command"
    memory = MemoryRule(preallocates=True)
    floors = Floors()
    index_mask = True
    """How its server parses the mask is unknown; every parser takes indexes."""
    key_variable = ""
    auto_cpu = True
    optional_program = ""
    flags = FlagTable("")

    def problems(self, model: ModelSpec) -> tuple[str, ...]:
        found = []
        if not model.command:
            found.append("engine: command requires command: with the words that start the server")
        used = [(m[2], word) for word in model.command for m in _PLACEHOLDER.finditer(word) if m[2]]
        found += [_unknown(name, word) for name, word in used if name not in _KNOWN]
        names = {name for name, _ in used}
        if "max_model_len" in names and model.max_model_len is None:
            found.append("command: {max_model_len} needs max_model_len: on the model")
        if "vram_fraction" in names and model.vram_bytes is None and not isinstance(model.gpus, GpuCpu):
            found.append("command: {vram_fraction} needs vram: on the model")
        if model.engine_args:
            found.append("engine_args does not apply to engine: command; write the flags into command:")
        found += common.no_bin(model, "write it as the first word of command")
        return (*found, *common.no_tool_parser(model))

    def unsupported(self, facts: ModelFacts, devices: int) -> str:
        return ""

    def sequences(self, model: ModelSpec) -> int:
        return model.max_concurrency or self.memory.default_sequences

    def context(self, model: ModelSpec, facts: ModelFacts) -> int:
        return model.max_model_len or self.memory.default_context

    def launch(self, request: LaunchRequest) -> Launch:
        model = request.model
        values = {
            "host": request.host,
            "port": str(request.port),
            "model": model.model,
            "name": model.names[0],
            "names": ",".join(model.names),
            "path": model.path or model.model,
            "gpus": request.mask,
            "gpu_count": str(len(request.devices)),
            "vram_fraction": f"{common.vram_fraction(request.devices):g}",
            "max_model_len": str(model.max_model_len),
        }
        return Launch(
            argv=tuple(_fill(word, values) for word in model.command), progress_patterns=progress.ANY_LINE
        )


def _fill(word: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda m: f"{{{m[1]}}}" if m[1] else values[m[2]], word)


def _unknown(name: str, word: str) -> str:
    near = nearest(name, _KNOWN)
    text = f"command: {word!r} has an unknown placeholder {{{name}}}; expected one of "
    text += ", ".join(f"{{{known}}}" for known in _KNOWN)
    return text + (f"; did you mean {{{near}}}?" if near else f"; write {{{{{name}}}}} for a literal one")
