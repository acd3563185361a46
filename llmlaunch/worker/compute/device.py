"""Which device a worker uses, how it is set up, and whether it still works."""

from __future__ import annotations

import os
from typing import Any

import torch

from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.errors import DeviceLostError, StartupError, first_line


def choose(config: WorkerConfig) -> str:
    """The device type, "cpu" or "cuda". Raises StartupError if CUDA was requested but is not available."""
    if config.device == "cpu":
        return "cpu"
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        mask = os.environ.get("CUDA_VISIBLE_DEVICES")
        if torch.version.cuda is None:
            why = "this PyTorch was built without CUDA"
        elif mask is not None:
            why = f"PyTorch sees no GPU with CUDA_VISIBLE_DEVICES={mask!r}"
        else:
            why = "PyTorch sees no GPU"
        raise StartupError(
            f"--device cuda, but {why}", hint="check `llmlaunch gpus`, or run with --device cpu"
        )
    return "cuda" if available else "cpu"


def configure(device: str) -> None:
    """Set process-wide PyTorch options for ``device``."""
    if device == "cuda":
        # On Hopper PyTorch prefers cuDNN attention, which compiles a plan for each new shape: tens of milliseconds a layer.
        # Here almost every step has a new shape. The other kernels need no plan.
        torch.backends.cuda.enable_cudnn_sdp(False)


def check_alive(model: Any) -> None:
    """Raises DeviceLostError if ``model``'s device has failed: most CUDA errors break it for the whole process."""
    device = model.get_input_embeddings().weight.device
    if device.type != "cuda":
        return
    try:
        torch.zeros(1, device=device).item()
    except torch.OutOfMemoryError:
        return
    except Exception as error:
        raise DeviceLostError(
            f"{device} has failed: {first_line(error)}",
            hint="only a new process can use it; the kernel log (dmesg, Xid) may say what happened to the GPU",
        ) from error
