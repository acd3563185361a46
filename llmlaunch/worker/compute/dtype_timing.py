"""Times a layer's products on this CPU in the types that a model may be computed in, and remembers the result.

CPU time of a single thread is taken: it hardly depends on what else runs on the machine while a model loads.
"""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llmlaunch import paths
from llmlaunch.common import file_lock, files
from llmlaunch.worker.compute import onednn_weights
from llmlaunch.worker.compute.dtype_choice import WIDENED, ProductTimes

FEW, MANY = 1, 32
"""Tokens of the two products: a decode of one request, and of a full batch."""
FEW_WEIGHTS, MANY_WEIGHTS = 24 << 20, 4 << 20
"""Maximum number of weights in a pass with few tokens, which must be more than the caches hold, and with many, which computes
longer. Together they take a quarter of a second at most."""
_PASSES = 2
_MOST_KNOWN = 256


def times(stored: str, hidden: int, inner: int) -> dict[str, ProductTimes]:
    """Seconds by type, for ``stored`` and float32, and layers of ``[inner, hidden]`` and back. Remembered per CPU and shape."""
    key = _key(stored, hidden, inner)
    known = files.load(_file(), _decoded) or {}
    if key in known:
        return known[key]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        measured = {name: measure(getattr(torch, name), hidden, inner) for name in (stored, WIDENED)}
    finally:
        torch.set_num_threads(threads)
    _remember(key, measured)
    return measured


@torch.inference_mode()
def measure(dtype: torch.dtype, hidden: int, inner: int) -> ProductTimes:
    """Time the products of a model's layers. Of large layers only some rows are taken: rows do not depend on each other."""
    rows = max(1, min(inner, MANY_WEIGHTS // (2 * hidden)))
    size = 2 * hidden * rows
    pairs = [
        (_layer(rows, hidden, dtype), _layer(hidden, rows, dtype)) for _ in range(max(1, FEW_WEIGHTS // size))
    ]

    def run(tokens: int, layers: int) -> float:
        there, back = torch.ones(tokens, hidden, dtype=dtype), torch.ones(tokens, rows, dtype=dtype)
        began = time.thread_time()
        for up, down in pairs[:layers]:
            up(there), down(back)
        return (time.thread_time() - began) / layers

    def quickest(tokens: int, layers: int) -> float:
        run(tokens, 1)  # the first product of a shape compiles its kernel
        return min(run(tokens, layers) for _ in range(_PASSES))

    return ProductTimes(quickest(FEW, len(pairs)), quickest(MANY, max(1, MANY_WEIGHTS // size)))


def _layer(outputs: int, inputs: int, dtype: torch.dtype) -> nn.Module:
    """A layer as a loaded model has it. Its weights hold any numbers."""
    plain = nn.Linear(inputs, outputs, bias=False, device="meta")
    plain.weight = nn.Parameter(torch.ones(outputs, inputs, dtype=dtype), requires_grad=False)
    return onednn_weights.PackedLinear(plain) if onednn_weights.supports(dtype) else plain


def _key(stored: str, hidden: int, inner: int) -> str:
    limits = [os.environ.get(name, "") for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")]
    return " | ".join(
        [
            *(_cpu(), torch.backends.cpu.get_cpu_capability(), *filter(None, limits)),
            *(f"torch {torch.__version__}", f"{stored} {hidden}x{inner}"),
        ]
    )


def _cpu() -> str:
    """The CPU's model name, as Linux gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _file() -> Path:
    return paths.cache_root() / "dtypes.json"


def _decoded(data: dict[str, Any]) -> dict[str, dict[str, ProductTimes]]:
    return {
        key: {name: ProductTimes(few=float(row[0]), many=float(row[1])) for name, row in rows.items()}
        for key, rows in data.items()
        if all(float(value) > 0 for row in rows.values() for value in row)
    }


def _remember(key: str, measured: dict[str, ProductTimes]) -> None:
    try:
        paths.private_dir(paths.cache_root())
        with file_lock.held(_file().with_suffix(".lock")):
            known = files.load(_file(), _decoded) or {}
            kept = list((known | {key: measured}).items())[-_MOST_KNOWN:]
            rows = {k: {name: (t.few, t.many) for name, t in v.items()} for k, v in kept}
            files.write(_file(), json.dumps(rows, indent=1))
    except OSError:
        pass  # a cache that cannot be written costs a quarter of a second at the next start
