"""The engines by name."""

from __future__ import annotations

from typing import Any

from llmlaunch.engines.command import CommandEngine
from llmlaunch.engines.llamacpp import LlamaCpp
from llmlaunch.engines.sglang import Sglang
from llmlaunch.engines.transformers import Transformers
from llmlaunch.engines.types import Engine
from llmlaunch.engines.vllm import Vllm
from llmlaunch.manifest.types import EngineName, ModelSpec

_ENGINES: dict[EngineName, Engine] = {
    EngineName.TRANSFORMERS: (_BUILT_IN := Transformers()),
    # Until the rules have chosen: what a manifest asks for must be something that the last of them can do.
    EngineName.AUTO: _BUILT_IN,
    EngineName.VLLM: Vllm(),
    EngineName.SGLANG: Sglang(),
    EngineName.LLAMACPP: LlamaCpp(),
    EngineName.COMMAND: CommandEngine(),
}


def get(name: EngineName | str) -> Engine:
    """The engine called ``name``. Raises ValueError for a name that the manifest would have refused."""
    return _ENGINES[EngineName(name)]


def given(model: ModelSpec, *names: str) -> Any:
    """The value in ``engine_args`` of the flag that the model's engine has under one of these names, or None."""
    return get(model.engine).flags.value(model.engine_args, *names)
