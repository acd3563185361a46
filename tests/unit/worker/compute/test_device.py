"""A device that has failed is told from one that is only full."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from llmlaunch.worker.compute import device as devices
from llmlaunch.worker.errors import DeviceLostError


def on_cuda() -> Any:
    weight = SimpleNamespace(device=torch.device("cuda", 0))
    return SimpleNamespace(get_input_embeddings=lambda: SimpleNamespace(weight=weight))


@pytest.mark.parametrize(
    ("fault", "lost"),
    [
        (RuntimeError("CUDA error: an illegal memory access was encountered\nand so on"), True),
        (torch.OutOfMemoryError("CUDA out of memory"), False),
        (None, False),
    ],
    ids=str,
)
def test_a_device_that_computes_no_more_is_told_from_one_that_is_full(
    monkeypatch: pytest.MonkeyPatch, fault: Exception | None, lost: bool
) -> None:
    def zeros(*_: object, device: torch.device) -> torch.Tensor:
        assert device.type == "cuda"
        if fault is not None:
            raise fault
        return torch.ones(1)

    monkeypatch.setattr(torch, "zeros", zeros)
    if lost:
        with pytest.raises(
            DeviceLostError, match=r"cuda:0 has failed: CUDA error: an illegal .* encountered$"
        ):
            devices.check_alive(on_cuda())
    else:
        devices.check_alive(on_cuda())
