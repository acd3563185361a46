"""What engines ask of a GPU's compute capability, NVIDIA's number for what its cores can do: 7.5 Turing, 8.0 and 8.6 Ampere,
8.9 Ada, 9.0 Hopper, 10 and 12 Blackwell. See https://developer.nvidia.com/cuda-gpus. Pure.
"""

from __future__ import annotations

from llmlaunch.engines.types import Capability, Engine
from llmlaunch.manifest.types import ModelSpec
from llmlaunch.models.facts import ModelFacts

_BFLOAT16: Capability = (8, 0)
_FP8: Capability = (8, 9)


def unsuited(engine: Engine, model: ModelSpec, facts: ModelFacts, has: Capability, where: str) -> str:
    """Why ``engine`` cannot run ``model`` on the GPU called ``where``, which has the capability ``has``, and what to do; or empty."""
    floors = engine.floors
    said = f"{where} has compute capability {_words(has)}"
    if floors.engine and has < floors.engine:
        return (
            f"{said}, and {engine.name} needs {_words(floors.engine)}; engine: transformers and, for GGUF files, llamacpp "
            "run on older GPUs"
        )
    if floors.bfloat16 and has < _BFLOAT16 and model.dtype == "bfloat16":
        return f"{said}, and bfloat16 needs {_words(_BFLOAT16)}; write dtype: float16, or leave dtype out"
    name = _quantisation(engine, model, facts)
    needed = floors.quantised.get(name)
    if needed and has < needed:
        return (
            f"{said}, and {engine.name} needs {_words(needed)} for {name} weights; use the model in another format, or on "
            "another GPU"
        )
    return ""


def remark(engine: Engine, model: ModelSpec, facts: ModelFacts, has: Capability, where: str) -> str:
    """What works on that GPU, but not as well as the user may expect; or empty."""
    if has >= _FP8 or not engine.floors.quantised:
        return ""
    found = []
    if _quantisation(engine, model, facts) == "fp8":
        found.append("its fp8 weights save memory there, but not time")
    cache = engine.flags.value(model.engine_args, "kv-cache-dtype")
    if isinstance(cache, str) and cache.startswith("fp8"):
        found.append(f"kv_cache_dtype {cache} may be refused there")
    if not found:
        return ""
    said = f"{where} has compute capability {_words(has)}, and calculates in fp8 from {_words(_FP8)} on"
    return f"{model.names[0]}: {said}: {' and '.join(found)}"


def _quantisation(engine: Engine, model: ModelSpec, facts: ModelFacts) -> str:
    asked = engine.flags.value(model.engine_args, "quantization")
    return asked if isinstance(asked, str) else facts.quantisation


def _words(capability: Capability) -> str:
    return f"{capability[0]}.{capability[1]}"
