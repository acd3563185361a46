"""Models whose weights are packed: what loading them takes, told before a byte of them is read.

Checked from the model's facts alone. What passes here is loaded by transformers, which knows the formats themselves.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from llmlaunch.models.facts import ModelFacts
from llmlaunch.worker.errors import CanNotServe

LOAD_IN = {"8bit": "load_in_8bit", "4bit": "load_in_4bit"}


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
    if device == "cpu":
        raise CanNotServe(
            f"--load-in {bits} is for CUDA GPUs, and this worker runs on the CPU",
            hint="on a CPU, a GGUF file or --dtype bfloat16 saves memory",
        )
    if facts.quantisation:
        raise CanNotServe(
            f"--load-in {bits}: the weights of {facts.source} are quantised already, with {facts.quantisation}",
            hint="leave out --load-in (load_in in engine_args)",
        )
    if not installed("bitsandbytes"):
        raise CanNotServe(
            f"--load-in {bits} needs the package bitsandbytes",
            hint="pip install bitsandbytes, in the environment llmlaunch runs in",
        )
