"""Loads on one GPU take turns, and starts wait for memory, with the real pynvml on a mock driver."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmlaunch.cli.display.render import status_lines
from llmlaunch.planning.types import GpuBudget, ProcessSpec
from llmlaunch.supervision.gpu.measured_vram import load_measurements
from tests.integration.supervision.world import QUICK, World, component, engine, past_events, until_phase
from tests.support.nvml import MockNvml
from tests.support.waiting import wait_until

GPUS = """\
sys driver=580.95.05 cuda=13000 procdir={procdir}
gpu name="NVIDIA L4" uuid=GPU-a total=24000 reserved=0
gpu name="NVIDIA L4" uuid=GPU-b total=24000 reserved={reserved}
"""
MIB = 1 << 20


@pytest.fixture
def gpus(mock_nvml: MockNvml, monkeypatch: pytest.MonkeyPatch) -> MockNvml:
    describe(mock_nvml)
    for key, value in mock_nvml.env.items():
        monkeypatch.setenv(key, value)
    return mock_nvml


def describe(mock: MockNvml, reserved: int = 0) -> None:
    mock.write(GPUS.format(procdir=mock.procdir(), reserved=reserved))


def on_gpu(name: str, uuid: str, mib: int, *flags: str, **changes: Any) -> ProcessSpec:
    index = "ab".index(uuid)
    claim = ("--vram", f"{index}:{mib}", *flags)
    size = mib * MIB
    values: dict[str, Any] = {"gpus": (f"GPU-{uuid}",), "vram_bytes": size, "vram_per_gpu": (size,)} | changes
    return engine(name, *claim, **values)


def test_loads_on_one_gpu_take_turns(lab: World, gpus: MockNvml) -> None:
    slow = ("--ready-after", "0.4")
    specs = [
        on_gpu("w1", "a", 5000, *slow),
        on_gpu("w2", "a", 5000, *slow),
        on_gpu("other", "b", 5000, *slow),
    ]
    client = lab.up(*specs)
    for spec in specs:
        until_phase(client, spec.name, "ready")
    loading: set[str] = set()
    together: list[set[str]] = []
    for event in past_events(client):
        if event.component.phase == "starting":
            loading.add(event.component.name)
        else:
            loading.discard(event.component.name)
        together.append(set(loading))
    assert {"w1", "w2"} not in [both & {"w1", "w2"} for both in together]
    assert any("other" in both and len(both) == 2 for both in together), "another GPU waits for nobody"


def test_a_start_waits_until_the_memory_is_back(
    lab: World, gpus: MockNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMLAUNCH_SUPERVISION", json.dumps(QUICK | {"memory_wait_s": 30}))
    describe(gpus, reserved=20_000)
    client = lab.up(on_gpu("big", "b", 20_000))
    wait_until(lambda: "needs" in component(client, "big").cause, 5)
    assert component(client, "big").cause.startswith(
        "waiting for VRAM: needs 19.5 GiB on GPU-b, which has 3.9 GiB free"
    )
    describe(gpus)
    assert until_phase(client, "big", "ready").incarnation == 1


def test_memory_that_does_not_come_back_fails_with_the_numbers(lab: World, gpus: MockNvml) -> None:
    client = lab.up(on_gpu("big", "b", 20_000), gpus=(GpuBudget(1, "GPU-b", "NVIDIA L4", 0, 0, 0),))
    until_phase(client, "big", "ready")
    describe(gpus, reserved=20_000)
    client.command("restart", ["big"])
    failed = until_phase(client, "big", "failed")
    assert failed.incarnation == 1, "it was not started again"
    assert failed.restarts == 0
    assert failed.cause == (
        "after 0.5 s still waiting for VRAM: needs 19.5 GiB on GPU 1, which has 3.9 GiB free; "
        "`llmlaunch gpus` shows what uses it"
    )
    tails = [event.log_tail for event in past_events(client)]
    assert not any(tails), "what its healthy life printed explains nothing"


def test_status_tells_of_a_lost_gpu_and_of_a_driver_that_went_away(lab: World, gpus: MockNvml) -> None:
    client = lab.up(on_gpu("w", "a", 7000))
    until_phase(client, "w", "ready")
    described = gpus.file.read_text()
    gpus.write(described + "fail fn=nvmlDeviceGetMemoryInfo_v2 code=15 gpu=1\n")
    wait_until(lambda: [g.lost for g in client.status().gpus] == ["", "GPU is lost"], 5)
    assert "1    NVIDIA L4: GPU is lost  -" in "\n".join(status_lines(client.status(), 0))
    gpus.write(described + "fail fn=nvmlInitWithFlags code=9\nfail fn=nvmlDeviceGetCount_v2 code=9\n")
    wait_until(lambda: not client.status().gpus, 5)
    assert component(client, "w").phase == "ready", "it serves on"
    last = status_lines(client.status(), 0)[-1]
    assert last == "GPUs: the NVIDIA driver is installed but not loaded"


def test_status_shows_gpus_and_measured_memory_and_learns_it(lab: World, gpus: MockNvml) -> None:
    client = lab.up(
        on_gpu("w", "a", 7000, vram_bytes=9000 * MIB, vram_per_gpu=(9000 * MIB,), learning_key="k")
    )
    until_phase(client, "w", "ready")
    wait_until(lambda: component(client, "w").vram_used_bytes == 7000 * MIB, 5)
    status = client.status()
    assert [(g.uuid, g.used_bytes, g.planned_bytes) for g in status.gpus] == [
        ("GPU-a", 7000 * MIB, 9000 * MIB),
        ("GPU-b", 0, 0),
    ]
    wait_until(lambda: load_measurements() == {"k": 7000 * MIB}, 15, "what it really took is remembered")


def test_a_deployment_on_the_cpu_never_touches_nvml(lab: World, gpus: MockNvml) -> None:
    client = lab.up(engine("w"))
    until_phase(client, "w", "ready")
    assert client.status().gpus == ()
    assert "libnvidia-ml" not in Path(f"/proc/{client.supervisor_pid}/maps").read_text()
