"""Models whose weights are packed: what loading them takes, told before a byte of them is read.

Checked from the model's facts alone. What passes here is loaded by transformers, which knows the formats themselves.
Plain weights can be packed while they are loaded (``--load-in``), by a package that can do it on the device.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llmlaunch.models.facts import ModelFacts
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.errors import CanNotServe

PACKERS = {
    ("8bit", "cuda"): "bitsandbytes",
    ("4bit", "cuda"): "bitsandbytes",
    # On a CPU bitsandbytes rounds what goes into its 8-bit layers, too, and takes twice the time; torchao has no 4 bits.
    ("8bit", "cpu"): "torchao",
    ("4bit", "cpu"): "bitsandbytes",
}
"""Who packs plain weights while they are loaded; importable, and pip's, names."""


@dataclass(frozen=True, slots=True)
class Need:
    """``packages``: importable names, with what pip calls them."""

    packages: tuple[tuple[str, str], ...] = ()
    cuda: bool = False
    note: str = ""
    """What a person should know, where it runs without CUDA."""


_GPTQMODEL = ("gptqmodel", "gptqmodel")
NEEDS = {
    "gptq": Need((("optimum", "optimum"), _GPTQMODEL)),
    "awq": Need((_GPTQMODEL,)),
    "auto-round": Need((("auto_round", "auto-round"),)),
    "autoround": Need((("auto_round", "auto-round"),)),
    "bitsandbytes": Need((("bitsandbytes", "bitsandbytes"),)),
    "bitsandbytes-8bit": Need((("bitsandbytes", "bitsandbytes"),)),
    "bitsandbytes-4bit": Need((("bitsandbytes", "bitsandbytes"),)),
    "compressed-tensors": Need((("compressed_tensors", "compressed-tensors"),)),
    "aqlm": Need((("aqlm", "aqlm"),)),
    "hqq": Need((("hqq", "hqq"),)),
    "quanto": Need((("optimum.quanto", "optimum-quanto"),)),
    "quark": Need((("quark", "amd-quark"),)),
    "spqr": Need((("spqr_quant", "spqr-quant"),), cuda=True),
    "torchao": Need((("torchao", "torchao"),)),
    "vptq": Need((("vptq", "vptq"),), cuda=True),
    "eetq": Need((("kernels", "kernels"),), cuda=True),
    "fbgemm_fp8": Need((("fbgemm_gpu", "fbgemm-gpu"),), cuda=True),
    "bitnet": Need(),
    "fp8": Need(note="its fp8 weights are unpacked while loading: they take twice the memory of the files"),
    "mxfp4": Need(note="without kernels for it, its mxfp4 weights are unpacked: up to four times the files' size"),
}  # fmt: skip
"""By quant_method, as transformers' quantizers ask for them. fp8 and mxfp4 need no package."""


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of its parent
        return False


def check(facts: ModelFacts, device: str, installed: Callable[[str], bool] = _installed) -> str:
    """What a person should know of how a packed model runs on ``device``; mostly nothing.

    Raises CanNotServe where a package or CUDA is missing, or the format is not known here.
    """
    method = facts.quantisation
    if not method or facts.format == "gguf":
        return ""
    need = NEEDS.get(method)
    elsewhere = "or serve the model with another engine (engine: vllm)"
    if need is None:
        raise CanNotServe(
            f"{facts.source}: its weights are quantised with {method}, which the built-in engine does not read",
            hint="serve the model with another engine (engine: vllm), or take its unquantised form",
        )
    missing = [pip for module, pip in need.packages if not installed(module)]
    if missing:
        plural = "s" if len(missing) > 1 else ""
        raise CanNotServe(
            f"{facts.source}: its weights are quantised with {method}; to read them the package{plural} "
            f"{' and '.join(missing)} must be there",
            hint=f"pip install {' '.join(missing)}, in the environment llmlaunch runs in; {elsewhere}",
        )
    if need.cuda and device == "cpu":
        raise CanNotServe(
            f"{facts.source}: its weights are quantised with {method}, which runs on CUDA GPUs alone",
            hint="give it a GPU (gpus: in the manifest), or take the model's unquantised form or a GGUF file",
        )
    return need.note if device == "cpu" else ""


def check_load_in(
    bits: str, facts: ModelFacts, device: str, installed: Callable[[str], bool] = _installed
) -> None:
    """Raises CanNotServe where ``--load-in`` (8bit or 4bit) can not be done."""
    if facts.quantisation:
        raise CanNotServe(
            f"--load-in {bits}: the weights of {facts.source} are quantised already, with {facts.quantisation}",
            hint="leave out --load-in (load_in in engine_args)",
        )
    package = PACKERS[bits, device]
    if not installed(package):
        where = "CPU" if device == "cpu" else "GPU"
        raise CanNotServe(
            f"--load-in {bits} on a {where} needs the package {package}",
            hint=f"pip install {package}, in the environment llmlaunch runs in",
        )


def packing(config: WorkerConfig, device: str) -> dict[str, Any]:
    """Arguments for ``from_pretrained`` that pack the weights as ``--load-in`` asks; none where it does not."""
    if not config.load_in:
        return {}
    if PACKERS[config.load_in, device] == "torchao":
        # It tells of every kernel for GPUs that it can not load.
        logging.getLogger("torchao").setLevel(logging.ERROR)
        from torchao.quantization import Int8WeightOnlyConfig
        from transformers import TorchAoConfig

        return {"quantization_config": TorchAoConfig(Int8WeightOnlyConfig())}
    import torch
    from transformers import BitsAndBytesConfig

    if config.load_in == "8bit":
        packed = BitsAndBytesConfig(load_in_8bit=True, llm_int8_enable_fp32_cpu_offload=config.cpu_offload)
    else:
        computing = torch.bfloat16 if config.dtype == "auto" else getattr(torch, config.dtype)
        packed = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=computing,
            llm_int8_enable_fp32_cpu_offload=config.cpu_offload,
        )
    return {"quantization_config": packed}
