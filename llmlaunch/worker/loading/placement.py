"""Where the weights go: one GPU, several, main memory, and within which limits."""

from __future__ import annotations

from typing import Any

import psutil
import torch

from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.errors import StartupError
from llmlaunch.worker.kv.memory import GPU_RESERVE, free_on, integrated

OFFLOAD_SHARE = 0.7
"""Fraction of a GPU for weights when layers are offloaded to main memory. The rest is for the KV cache and activations."""


def device_map(device: str, config: WorkerConfig) -> dict[str, Any]:
    """Arguments for ``from_pretrained``: one GPU takes the whole model; several share its layers evenly.

    With ``cpu_offload``, layers that do not fit the GPUs stay in main memory. Raises StartupError if GPU options are
    set on a CPU.
    """
    if device == "cpu":
        given = {"--max-gpu-memory": config.max_gpu_memory, "--cpu-offload": config.cpu_offload}
        for flag, value in given.items():
            if value:
                raise StartupError(
                    f"{flag} applies to GPUs, but this worker runs on the CPU", hint="remove it"
                )
        return {}
    count = torch.cuda.device_count()
    if config.cpu_offload:
        rooms: dict[int | str, int] = {index: _weights_room(index, count, config) for index in range(count)}
        shared = sum(rooms[index] for index in range(count) if integrated(index))
        beside = max(0, psutil.virtual_memory().available - shared)
        return {"device_map": "auto", "max_memory": rooms | {"cpu": beside}}
    if count == 1:
        return {"device_map": {"": 0}}
    if config.max_gpu_memory:
        return {"device_map": "balanced", "max_memory": dict.fromkeys(range(count), config.max_gpu_memory)}
    arguments: dict[str, Any] = {"device_map": "balanced"}
    if config.vram_bytes:
        arguments["max_memory"] = {
            index: max(config.vram_bytes // count - GPU_RESERVE, 1) for index in range(count)
        }
    return arguments


def _weights_room(index: int, count: int, config: WorkerConfig) -> int:
    if config.max_gpu_memory:
        return config.max_gpu_memory
    free = free_on(index)
    claim = config.vram_bytes // count if config.vram_bytes else free
    return max(1, int((min(free, claim) - GPU_RESERVE) * OFFLOAD_SHARE))


def check_limit(weights: int | None, config: WorkerConfig) -> None:
    """Raises StartupError if ``weights`` bytes exceed --max-gpu-memory on all GPUs."""
    if not (weights and config.max_gpu_memory) or config.cpu_offload or config.load_in:
        return
    count = max(1, torch.cuda.device_count())
    if weights > config.max_gpu_memory * count:
        raise StartupError(
            f"the weights take {weights / 2**30:.1f} GiB, but --max-gpu-memory allows "
            f"{config.max_gpu_memory / 2**30:.1f} GiB on each of {count} GPU{'s' if count > 1 else ''}",
            hint="raise the limit, add GPUs, or keep the rest in main memory with --cpu-offload",
        )
