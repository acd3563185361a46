"""What is asked of CUDA to record and replay, by a stand-in for its device."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest
import torch
from torch import Tensor

from llmlaunch.worker.kv import cuda_recorder
from tests.unit.worker import tiny


class Device:
    """What a recorder calls of PyTorch, under the signatures that the installed one has, and in which order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fault: Exception | None = None) -> None:
        self.done: list[str] = []
        self.usual, self.aside = (SimpleNamespace(wait_stream=self._log(f"{name} waits")) for name in "ua")
        cuda = torch.cuda
        spec = create_autospec
        done = self.done

        class Within:
            def __init__(self, name: str, fault: Exception | None = None) -> None:
                self._name, self._fault = name, fault

            def __enter__(self) -> None:
                done.append(self._name)

            def __exit__(self, *_: object) -> None:
                if self._fault is not None:
                    raise self._fault
                done.append(f"end of {self._name}")

        def recording(graph: Any, **how: Any) -> Within:
            assert how == {"pool": (0, 1), "stream": self.aside, "capture_error_mode": "thread_local"}
            return Within("recording", fault)

        for name, fake in {
            "Stream": spec(cuda.Stream, return_value=self.aside),
            "graph_pool_handle": spec(cuda.graph_pool_handle, return_value=(0, 1)),
            "current_stream": spec(cuda.current_stream, return_value=self.usual),
            "stream": spec(cuda.stream, side_effect=lambda stream: Within("aside")),
            "CUDAGraph": lambda: SimpleNamespace(replay=self._log("replay")),
            "graph": spec(cuda.graph, side_effect=recording),
            "set_stream": spec(cuda.set_stream, side_effect=self._back),
            "synchronize": spec(cuda.synchronize, side_effect=lambda *_: done.append("wait")),
            "empty_cache": spec(cuda.empty_cache),
            "memory_reserved": spec(cuda.memory_reserved, return_value=70),
            "get_sync_debug_mode": spec(cuda.get_sync_debug_mode, return_value=0),
            "set_sync_debug_mode": spec(
                cuda.set_sync_debug_mode, side_effect=lambda mode: done.append(f"waiting: {mode}")
            ),
        }.items():
            monkeypatch.setattr(cuda, name, fake)

    def _log(self, what: str) -> Callable[..., None]:
        return lambda *_: self.done.append(what)

    def _back(self, stream: Any) -> None:
        assert stream is self.usual
        self.done.append("back")


def test_a_graph_is_recorded_aside_after_a_pass_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)
    recorder = cuda_recorder.CudaRecorder(torch.device("cuda", 0))
    logits = torch.ones(2)

    def compute() -> Tensor:
        device.done.append("compute")
        return logits

    replay = recorder.record(compute)
    assert device.done == [
        "a waits", "waiting: error", "aside", "compute", "end of aside", "waiting: 0", "u waits",
        "recording", "compute", "end of recording", "back",
    ]  # fmt: skip
    device.done.clear()
    assert replay() is logits
    assert recorder.seconds(replay) > 0
    assert device.done == ["replay", "wait", "replay", "wait"]
    assert recorder.used() == 70


def test_a_recording_that_fails_goes_back_to_the_usual_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's own does not when the end of a recording raises, as it does after whatever went wrong in it."""
    device = Device(monkeypatch, RuntimeError("capture was invalidated"))
    with pytest.raises(RuntimeError, match="invalidated"):
        cuda_recorder.CudaRecorder(torch.device("cuda", 0)).record(lambda: torch.ones(2))
    assert device.done[-1] == "back"


def test_cpus_record_nothing() -> None:
    assert cuda_recorder.recorder(tiny.model("Llama")) is None
