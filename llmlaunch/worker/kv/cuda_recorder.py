"""Records and replays CUDA graphs on one GPU; ``graphs`` decides when."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class CudaRecorder:
    """CUDA graphs on one device that share a memory pool.

    See https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.begin()

    def begin(self) -> None:
        """Start a new memory pool; that of earlier graphs is freed with them."""
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Capture ``compute`` in a CUDA graph; the function returned launches it, and returns the same tensor each time."""
        usual = torch.cuda.current_stream(self._device)
        self._try(compute, usual)
        graph = torch.cuda.CUDAGraph()
        recording = torch.cuda.graph(
            graph, pool=self._pool, stream=self._aside, capture_error_mode="thread_local"
        )
        try:
            with recording:
                logits = compute()
        except BaseException:
            # Some PyTorch releases leave the allocator in recording mode if the recording fails; others reject this call.
            with contextlib.suppress(Exception):
                torch._C._cuda_endAllocateToPool(self._device.index, self._pool)
            raise
        finally:
            torch.cuda.set_stream(usual)  # a failed recording does not restore the stream

        def replay() -> Tensor:
            graph.replay()
            return logits

        return replay

    def _try(self, compute: Callable[[], Tensor], usual: torch.cuda.Stream) -> None:
        """Run once before the recording: libraries allocate what they need, and whatever cannot be recorded fails harmlessly."""
        mode = torch.cuda.get_sync_debug_mode()
        self._aside.wait_stream(usual)
        torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.cuda.stream(self._aside):
                compute()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
            usual.wait_stream(self._aside)

    def seconds(self, work: Callable[[], object]) -> float:
        """Wall-clock seconds of ``work``, until the GPU has finished it."""
        torch.cuda.synchronize(self._device)
        began = time.perf_counter()
        work()
        torch.cuda.synchronize(self._device)
        return time.perf_counter() - began

    def used(self) -> int:
        """Bytes of the GPU that PyTorch has reserved, without free blocks."""
        torch.cuda.empty_cache()  # cached free blocks are not in use
        return torch.cuda.memory_reserved(self._device)


def recorder(model: Any) -> CudaRecorder | None:
    """A recorder for ``model``; None if it is on a CPU or on more than one device."""
    devices = {weight.device for weight in model.parameters()}
    device = devices.pop()
    return CudaRecorder(device) if device.type == "cuda" and not devices else None
