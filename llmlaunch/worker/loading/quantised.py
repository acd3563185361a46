"""Quantised models: what loading them requires, checked before any weights are read.

Checks use the model's facts alone. Transformers itself loads the formats that pass.
Unquantised weights can be quantised while they are loaded (``--load-in``), by a package that supports the device.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llmlaunch.models.facts import ModelFacts
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.errors import StartupError

LOAD_IN_PACKAGES = {
    ("8bit", "cuda"): "bitsandbytes",
    ("4bit", "cuda"): "bitsandbytes",
    # On a CPU bitsandbytes also rounds the inputs of its 8-bit layers and takes twice as long; torchao has no 4-bit mode.
    ("8bit", "cpu"): "torchao",
    ("4bit", "cpu"): "bitsandbytes",
}
"""The package that quantises weights while loading; its import name is also its name on PyPI."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a format requires. ``packages``: pairs of import name and PyPI name."""

    packages: tuple[tuple[str, str], ...] = ()
    cuda: bool = False
    note: str = ""
    """A warning for models that run without CUDA."""


_GPTQMODEL = ("gptqmodel", "gptqmodel")
REQUIREMENTS = {
    "gptq": Requirements((("optimum", "optimum"), _GPTQMODEL)),
    "awq": Requirements((_GPTQMODEL,)),
    "auto-round": Requirements((("auto_round", "auto-round"),)),
    "autoround": Requirements((("auto_round", "auto-round"),)),
    "bitsandbytes": Requirements((("bitsandbytes", "bitsandbytes"),)),
    "bitsandbytes-8bit": Requirements((("bitsandbytes", "bitsandbytes"),)),
    "bitsandbytes-4bit": Requirements((("bitsandbytes", "bitsandbytes"),)),
    "compressed-tensors": Requirements((("compressed_tensors", "compressed-tensors"),)),
    "aqlm": Requirements((("aqlm", "aqlm"),)),
    "hqq": Requirements((("hqq", "hqq"),)),
    "quanto": Requirements((("optimum.quanto", "optimum-quanto"),)),
    "quark": Requirements((("quark", "amd-quark"),)),
    "spqr": Requirements((("spqr_quant", "spqr-quant"),), cuda=True),
    "torchao": Requirements((("torchao", "torchao"),)),
    "vptq": Requirements((("vptq", "vptq"),), cuda=True),
    "eetq": Requirements((("kernels", "kernels"),), cuda=True),
    "fbgemm_fp8": Requirements((("fbgemm_gpu", "fbgemm-gpu"),), cuda=True),
    "bitnet": Requirements(),
    "fp8": Requirements(note="its fp8 weights are dequantised while loading: they take twice the size of the files"),
    "mxfp4": Requirements(note="without an mxfp4 kernel its weights are dequantised: they take up to four times the files' size"),
}  # fmt: skip
"""By quant_method, as transformers' quantizers require them. fp8 and mxfp4 need no package."""


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of its parent
        return False


def check(facts: ModelFacts, device: str, installed: Callable[[str], bool] = _installed) -> str:
    """Return a warning about how a quantised model runs on ``device``; usually empty.

    Raises StartupError if a package or CUDA is missing, or the format is not supported.
    """
    method = facts.quantisation
    if not method or facts.format == "gguf":
        return ""
    required = REQUIREMENTS.get(method)
    elsewhere = "or serve the model with another engine (engine: vllm)"
    if required is None:
        raise StartupError(
            f"{facts.source}: its weights are quantised with {method}, which the built-in engine does not support",
            hint="serve the model with another engine (engine: vllm), or use an unquantised version",
        )
    missing = [pip for module, pip in required.packages if not installed(module)]
    if missing:
        plural = "s" if len(missing) > 1 else ""
        raise StartupError(
            f"{facts.source}: its weights are quantised with {method}, which requires the package{plural} "
            f"{' and '.join(missing)}",
            hint=f"pip install {' '.join(missing)}, in the environment llmlaunch runs in; {elsewhere}",
        )
    if required.cuda and device == "cpu":
        raise StartupError(
            f"{facts.source}: its weights are quantised with {method}, which requires a CUDA GPU",
            hint="give it a GPU (gpus: in the manifest), or use an unquantised version or a GGUF file",
        )
    return required.note if device == "cpu" else ""


def check_load_in(
    bits: str, facts: ModelFacts, device: str, installed: Callable[[str], bool] = _installed
) -> None:
    """Raises StartupError if ``--load-in`` (8bit or 4bit) is not possible."""
    if facts.quantisation:
        raise StartupError(
            f"--load-in {bits}: the weights of {facts.source} are already quantised with {facts.quantisation}",
            hint="remove --load-in (load_in in engine_args)",
        )
    package = LOAD_IN_PACKAGES[bits, device]
    if not installed(package):
        where = "CPU" if device == "cpu" else "GPU"
        raise StartupError(
            f"--load-in {bits} on a {where} requires the package {package}",
            hint=f"pip install {package}, in the environment llmlaunch runs in",
        )


def load_in_arguments(config: WorkerConfig, device: str) -> dict[str, Any]:
    """Arguments for ``from_pretrained`` that quantise the weights as ``--load-in`` asks; empty if it does not."""
    if not config.load_in:
        return {}
    if LOAD_IN_PACKAGES[config.load_in, device] == "torchao":
        # It warns about every GPU kernel that it cannot load.
        logging.getLogger("torchao").setLevel(logging.ERROR)
        from torchao.quantization import Int8WeightOnlyConfig
        from transformers import TorchAoConfig

        return {"quantization_config": TorchAoConfig(Int8WeightOnlyConfig())}
    import torch
    from transformers import BitsAndBytesConfig

    if config.load_in == "8bit":
        quantisation = BitsAndBytesConfig(
            load_in_8bit=True, llm_int8_enable_fp32_cpu_offload=config.cpu_offload
        )
    else:
        computing = torch.bfloat16 if config.dtype == "auto" else getattr(torch, config.dtype)
        quantisation = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=computing,
            llm_int8_enable_fp32_cpu_offload=config.cpu_offload,
        )
    return {"quantization_config": quantisation}
