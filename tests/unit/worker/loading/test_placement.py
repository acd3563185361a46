"""Where the weights go, on GPUs that are not there."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
import torch

from llmlaunch.worker.config import WorkerConfig, check
from llmlaunch.worker.errors import StartupError
from llmlaunch.worker.loading import placement

CONFIG = WorkerConfig(model="m", names=("m",))


def test_settings_of_gpus_need_one() -> None:
    for change in ({"max_gpu_memory": 1 << 30}, {"cpu_offload": True}):
        with pytest.raises(StartupError, match="applies to GPUs"):
            placement.device_map("cpu", replace(CONFIG, **change))
    assert placement.device_map("cpu", CONFIG) == {}
    check(replace(CONFIG, load_in="4bit"))


def test_layers_are_shared_within_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    gib = 1 << 30
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (40 * gib, 48 * gib))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(is_integrated=0))
    limited = replace(CONFIG, max_gpu_memory=10 * gib)
    assert placement.device_map("cuda", limited)["max_memory"] == {0: 10 * gib, 1: 10 * gib}
    with pytest.raises(StartupError, match=r"30\.0 GiB.*10\.0 GiB on each of 2 GPUs"):
        placement.check_limit(30 * gib, limited)
    placement.check_limit(20 * gib, limited)
    placement.check_limit(30 * gib, replace(limited, cpu_offload=True))
    placement.check_limit(None, limited)
    spread = placement.device_map("cuda", replace(CONFIG, cpu_offload=True, vram_bytes=40 * gib))
    assert spread["device_map"] == "auto"
    assert spread["max_memory"].keys() == {0, 1, "cpu"}
    assert 0 < spread["max_memory"][0] < 20 * gib


def test_what_a_gpu_takes_of_main_memory_is_not_there_for_offloading(monkeypatch: pytest.MonkeyPatch) -> None:
    gib = 1 << 30
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10 * gib, 120 * gib))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(is_integrated=1))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=100 * gib))
    limits = placement.device_map("cuda", replace(CONFIG, cpu_offload=True))["max_memory"]
    assert limits[0] + limits["cpu"] == 100 * gib
