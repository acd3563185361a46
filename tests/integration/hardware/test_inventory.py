"""NVML through the real pynvml, on the mock library, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from llmlaunch.hardware import simulated
from llmlaunch.hardware.types import ComputeMode, Inventory, LinkKind, MemoryKind
from tests.support.nvml import MockNvml
from tests.support.waiting import wait_until

MIB = 1 << 20
PROBE = """
import json
from llmlaunch.hardware import inventory, simulated
print(json.dumps(simulated.to_json(inventory.probe())))
"""


def python(mock: MockNvml, code: str, extra: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env=mock.environment(extra), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def probe(mock: MockNvml, extra: Mapping[str, str] | None = None) -> Inventory:
    return simulated.load(python(mock, PROBE, extra))


def gpus_command(mock: MockNvml, *arguments: str, extra: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "llmlaunch", "gpus", *arguments],
        env=mock.environment(extra), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_a_driver_that_never_answers_is_left_alone(mock_nvml: MockNvml) -> None:
    mock_nvml.file.unlink()
    os.mkfifo(mock_nvml.file)  # the mock waits for somebody to write
    found = simulated.load(python(mock_nvml, PROBE.replace("probe()", "probe(patience_s=0.3)")))
    assert (found.gpus, found.note) == ((), "the NVIDIA driver did not answer within 0.3 s")


def test_a_healthy_box(mock_nvml: MockNvml) -> None:
    inventory = probe(mock_nvml)
    assert [gpu.name for gpu in inventory.gpus] == [
        "NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-40GB", "NVIDIA L4",
    ]  # fmt: skip
    first = inventory.gpus[0]
    assert (first.total_bytes, first.reserved_bytes, first.free_bytes) == (
        81559 * MIB,
        527 * MIB,
        81032 * MIB,
    )
    assert (first.utilisation, first.temperature, first.power_watts, first.power_limit_watts) == (
        37,
        41,
        118,
        700,
    )
    assert (first.compute_capability, first.pci_bus, first.processes) == ((9, 0), "0000:1B:00.0", ())
    assert (inventory.driver, inventory.cuda, inventory.note, inventory.visible) == (
        "580.95.05",
        "13.0",
        "",
        None,
    )


def test_links(mock_nvml: MockNvml) -> None:
    mock_nvml.write(
        "gpu nvlink=18\ngpu nvlink=18\ngpu\ngpu numa=1\ngpu numa=1\n"
        "link a=2 b=3 lanes=4\ntopo a=3 b=4 level=10\n"
    )
    inventory = probe(mock_nvml)
    index = {gpu.uuid: gpu.index for gpu in inventory.gpus}
    kinds = {(index[link.a], index[link.b]): (link.kind, link.nvlinks) for link in inventory.links}
    assert len(kinds) == 10
    assert kinds[0, 1] == (LinkKind.NVLINK, 18)
    assert kinds[2, 3] == (LinkKind.NVLINK, 4)
    assert kinds[3, 4] == (LinkKind.SWITCH, 0)
    assert kinds[0, 2] == (LinkKind.NODE, 0)
    assert kinds[0, 4] == (LinkKind.SYSTEM, 0)


def test_processes_and_what_containers_hide(mock_nvml: MockNvml) -> None:
    mock_nvml.write(
        f"gpu\ngpu used=9000\ngpu\ngpu\nproc gpu=0 pid={os.getpid()} used=2048\nproc gpu=0 pid=999999 used=100 keep=1\n"
        f"proc gpu=3 pid={os.getpid()} used=-1\nfail fn=nvmlDeviceGetComputeRunningProcesses_v3 code=4 gpu=2\n"
        "fail fn=nvmlDeviceGetGraphicsRunningProcesses_v3 code=4 gpu=2\n"
    )
    one, hidden, refused, untold = probe(mock_nvml).gpus
    assert one.processes is not None
    by_pid = {process.pid: process for process in one.processes}
    assert by_pid[os.getpid()].used_bytes == 2048 * MIB
    assert by_pid[os.getpid()].name
    assert by_pid[999999].name == ""
    assert one.used_bytes == 2148 * MIB
    assert hidden.processes is None, "memory in use and an empty list: the list is not for us"
    assert refused.processes is None
    assert untold.processes is not None
    assert untold.processes[0].used_bytes is None
    assert "container" in probe(mock_nvml).note


def test_mig_instances_and_holes_between_their_slots(mock_nvml: MockNvml) -> None:
    mock_nvml.write(
        "gpu total=40960\nmig gpu=0 uuid=MIG-a total=19968 used=12 gi=1 slot=0\nmig gpu=0 uuid=MIG-b total=9856 gi=5 ci=1 slot=4\n"
        f"proc gpu=0 pid={os.getpid()} used=12 gi=1\n"
    )
    (gpu,) = probe(mock_nvml).gpus
    assert gpu.mig_enabled
    assert [
        (mig.uuid, mig.total_bytes, mig.free_bytes, mig.gpu_instance, mig.compute_instance) for mig in gpu.mig
    ] == [
        ("MIG-a", 19968 * MIB, 19956 * MIB, 1, 0),
        ("MIG-b", 9856 * MIB, 9856 * MIB, 5, 1),
    ]
    assert gpu.utilisation is None
    assert gpu.processes is not None
    assert [process.pid for process in gpu.processes] == [os.getpid()]


@pytest.mark.parametrize(
    "function", ["nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetTemperatureV"]
)
def test_one_lost_gpu_hides_no_other(mock_nvml: MockNvml, function: str) -> None:
    mock_nvml.write(f"gpu\ngpu\ngpu\nfail fn={function} code=15 gpu=1\n")
    inventory = probe(mock_nvml)
    assert [gpu.lost for gpu in inventory.gpus] == ["", "GPU is lost", ""]
    assert [gpu.index for gpu in inventory.gpus] == [0, 1, 2]
    assert inventory.gpus[2].free_bytes > 0
    assert inventory.note == "", "the GPU itself says it"
    assert len(inventory.links) == 1


def test_what_a_gpu_does_not_tell_is_none(mock_nvml: MockNvml) -> None:
    names = (
        "UtilizationRates",
        "TemperatureV",
        "Temperature",
        "PowerUsage",
        "EnforcedPowerLimit",
        "CudaComputeCapability",
        "ComputeMode",
    )
    mock_nvml.write("gpu\n" + "".join(f"fail fn=nvmlDeviceGet{name} code=3\n" for name in names))
    (gpu,) = probe(mock_nvml).gpus
    assert (gpu.utilisation, gpu.temperature, gpu.power_watts, gpu.power_limit_watts) == (None,) * 4
    assert (gpu.compute_capability, gpu.compute_mode) == (None, ComputeMode.DEFAULT)
    assert not gpu.lost


UNIFIED = """
import json
from llmlaunch.hardware import inventory, memory, simulated
main = memory.MainMemory(total=120 << 30, limit=100 << 30, available=70 << 30)
with inventory.Sampler(main=lambda: main) as sampler:
    print(json.dumps(simulated.to_json(sampler.sample())))
"""
NO_MEMORY = "fail fn=nvmlDeviceGetMemoryInfo code={0}\nfail fn=nvmlDeviceGetMemoryInfo_v2 code={0}\n"


@pytest.mark.parametrize(
    "description",
    [
        pytest.param('gpu name="NVIDIA GB10" total=0 reserved=0 cc=12.1\n' + NO_MEMORY.format(3), id="GB10"),
        pytest.param('gpu name="Orin (nvgpu)"\n' + NO_MEMORY.format(3), id="Orin"),
        pytest.param('gpu name="Orin (nvgpu)"\n' + NO_MEMORY.format(999), id="an odd error"),
        pytest.param('gpu name="NVIDIA Thor" total=0 reserved=0\n', id="0 bytes"),
        pytest.param('gpu name="NVIDIA GB10" total=8128 reserved=0\n', id="a part"),
        pytest.param('gpu name="NVIDIA Something New"\n' + NO_MEMORY.format(3), id="an unknown name"),
        pytest.param("gpu\nfail fn=nvmlDeviceGetName code=3\n" + NO_MEMORY.format(3), id="no name"),
    ],
)
def test_a_gpu_without_memory_of_its_own_has_main_memory(mock_nvml: MockNvml, description: str) -> None:
    mock_nvml.write(description)
    found = simulated.load(python(mock_nvml, UNIFIED))
    (gpu,) = found.gpus
    assert (gpu.lost, gpu.memory, gpu.memory_error) == ("", MemoryKind.MAIN, "")
    # What a control group keeps from this process counts as reserved: engines take their share of all there is.
    sizes = (gpu.total_bytes, gpu.reserved_bytes, gpu.used_bytes, gpu.free_bytes)
    assert [size >> 30 for size in sizes] == [120, 20, 30, 70]
    assert (gpu.processes, found.note) == ((), ""), "that main memory is in use hides no process"


def test_gh200_has_its_own_memory(mock_nvml: MockNvml) -> None:
    mock_nvml.write('gpu name="NVIDIA GH200 480GB" total=97871 reserved=620\n')
    (gpu,) = simulated.load(python(mock_nvml, UNIFIED)).gpus
    assert (gpu.memory, gpu.total_bytes) == (MemoryKind.OWN, 97871 * MIB)


def test_a_gpu_that_gives_no_memory_figures_is_not_lost(mock_nvml: MockNvml) -> None:
    mock_nvml.write(
        'gpu name="NVIDIA L4"\ngpu name="Odd"\nmig gpu=1 uuid=MIG-a\ngpu name="Odd"\n' + NO_MEMORY.format(4)
    )
    known, sliced, odd = simulated.load(python(mock_nvml, UNIFIED)).gpus
    assert [gpu.lost for gpu in (known, sliced, odd)] == ["", "", ""]
    assert {gpu.memory for gpu in (known, sliced, odd)} == {MemoryKind.UNKNOWN}
    assert [part.memory for part in sliced.mig] == [MemoryKind.UNKNOWN]
    assert (known.total_bytes, odd.total_bytes) == (23034 * MIB, 0), "what every L4 has"
    assert known.memory_error == "Insufficient Permissions"


def test_no_uuid(mock_nvml: MockNvml) -> None:
    mock_nvml.write("gpu\ngpu\nfail fn=nvmlDeviceGetUUID code=3\n")
    assert [gpu.uuid for gpu in probe(mock_nvml).gpus] == ["unknown-0", "unknown-1"]


def test_a_gpu_that_a_container_keeps_from_this_process(mock_nvml: MockNvml) -> None:
    mock_nvml.write("gpu\ngpu\nfail fn=nvmlDeviceGetHandleByIndex_v2 code=4 gpu=1\n")
    mine, others = probe(mock_nvml).gpus
    assert (mine.lost, others.lost) == ("", "this process has no permission to use it")


def test_compute_modes(mock_nvml: MockNvml, tmp_path: Path) -> None:
    mock_nvml.write("gpu\ngpu mode=1\ngpu mode=2\ngpu mode=3\n")
    inventory = probe(mock_nvml, {"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path)})
    default, exclusive, prohibited = ComputeMode.DEFAULT, ComputeMode.EXCLUSIVE, ComputeMode.PROHIBITED
    assert [gpu.compute_mode for gpu in inventory.gpus] == [default, exclusive, prohibited, exclusive]
    assert not inventory.mps
    (tmp_path / "control").touch()
    assert probe(mock_nvml, {"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path)}).mps


def test_an_old_driver_without_symbols(mock_nvml: MockNvml, nvml_library: Callable[..., Path]) -> None:
    library = nvml_library(
        "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetTemperatureV", "nvmlDeviceGetMigMode", "nvmlDeviceGetNvLinkState",
        "nvmlDeviceGetTopologyCommonAncestor", "nvmlDeviceGetP2PStatus", "nvmlDeviceGetGraphicsRunningProcesses_v3",
        "nvmlDeviceGetPowerUsage", "nvmlDeviceGetComputeMode",
    )  # fmt: skip
    old = MockNvml(library, mock_nvml.file)
    inventory = probe(old)
    first = inventory.gpus[0]
    assert (first.total_bytes, first.reserved_bytes, first.free_bytes) == (81559 * MIB, 0, 81032 * MIB)
    assert (first.temperature, first.power_watts, first.mig_enabled, first.processes) == (41, None, False, ())
    assert {link.kind for link in inventory.links} == {LinkKind.UNKNOWN}


def test_a_driver_that_cannot_even_count(mock_nvml: MockNvml, nvml_library: Callable[..., Path]) -> None:
    inventory = probe(MockNvml(nvml_library("nvmlDeviceGetCount_v2"), mock_nvml.file))
    assert not inventory.gpus
    assert "too old" in inventory.note


@pytest.mark.parametrize(
    ("code", "words"),
    [(9, "not loaded"), (18, "version mismatch"), (4, "permission"), (999, "Unknown Error")],
)
def test_a_driver_that_does_not_start(mock_nvml: MockNvml, code: int, words: str) -> None:
    mock_nvml.write(f"gpu\nfail fn=nvmlInitWithFlags code={code}\n")
    inventory = probe(mock_nvml)
    assert not inventory.gpus
    assert words in inventory.note
    assert words in gpus_command(mock_nvml)


def test_no_driver_and_no_gpu(mock_nvml: MockNvml, tmp_path: Path) -> None:
    mock_nvml.write("sys driver=1\n")
    assert probe(mock_nvml).note == "the NVIDIA driver works but shows no GPU"
    bare = MockNvml(tmp_path, mock_nvml.file)
    assert "no NVIDIA driver" in probe(bare).note or probe(bare).gpus
    assert json.loads(gpus_command(bare, "--json"))["format"] == 1


def test_a_container_with_gpus_and_without_nvml(mock_nvml: MockNvml, tmp_path: Path) -> None:
    place = tmp_path / "proc/driver/nvidia/gpus/0000:41:00.0"
    place.mkdir(parents=True)
    (place / "information").write_text("Model: \t NVIDIA L4\nGPU UUID: \t GPU-11111111-2222-3333\n")
    code = f"""
import json
from pathlib import Path
from llmlaunch.hardware import inventory, procfs, simulated
listed = procfs.gpus
procfs.gpus = lambda: listed(Path({str(tmp_path)!r}))
print(json.dumps(simulated.to_json(inventory.probe())))
"""
    bare = MockNvml(tmp_path, mock_nvml.file)
    found = simulated.load(python(bare, code))
    if not found.driver:  # this machine has no NVML of its own
        assert [(gpu.uuid, gpu.memory) for gpu in found.gpus] == [
            ("GPU-11111111-2222-3333", MemoryKind.UNKNOWN)
        ]
        assert "NVML is missing" in found.note
    # A driver that is there and does not work is another matter.
    mock_nvml.write("gpu\nfail fn=nvmlInitWithFlags code=18\n")
    assert simulated.load(python(mock_nvml, code)).gpus == ()


def test_a_mask_limits_what_may_be_used(mock_nvml: MockNvml) -> None:
    uuid = "GPU-11111111-2222-3333-4444-555555555555"
    inventory = probe(mock_nvml, {"CUDA_VISIBLE_DEVICES": "GPU-1111"})
    assert inventory.visible == (uuid,)
    assert len(inventory.gpus) == 4
    assert "hidden by the device mask" in gpus_command(mock_nvml, extra={"CUDA_VISIBLE_DEVICES": "GPU-1111"})


def test_the_sampler_sees_changes_and_survives_the_driver(mock_nvml: MockNvml) -> None:
    """A driver that goes away and comes back, as after a reset: the same sampler sees it again."""
    code = """
import os
from pathlib import Path
from llmlaunch.hardware.inventory import Sampler
file = Path(os.environ["MOCK_NVML"])
with Sampler() as sampler:
    for text in (
        "gpu\\ngpu\\n",
        "gpu used=500\\n",
        "gpu\\nfail fn=nvmlDeviceGetCount_v2 code=1\\nfail fn=nvmlInitWithFlags code=9\\n",
        "gpu\\ngpu\\ngpu\\n",
    ):
        file.write_text(text)
        look = sampler.sample()
        print(len(look.gpus), len(look.links), sum(g.used_bytes for g in look.gpus) >> 20, look.note)
"""
    lines = python(mock_nvml, code).splitlines()
    assert lines[0] == "2 1 0 "
    assert lines[1].startswith("1 0 500")
    assert lines[2] == "0 0 0 the NVIDIA driver is installed but not loaded"
    assert lines[3] == "3 3 0 "


def test_a_process_claims_memory_until_it_ends(mock_nvml: MockNvml) -> None:
    """The mock itself: what a fake engine writes counts while it lives."""
    folder = mock_nvml.procdir()
    mock_nvml.write(f"sys procdir={folder}\ngpu\n")
    child = subprocess.Popen(["sleep", "60"])
    try:
        (folder / str(child.pid)).write_text("0 5000\n")
        assert probe(mock_nvml).gpus[0].used_bytes == 5000 * MIB
    finally:
        child.kill()
        child.wait()
    assert probe(mock_nvml).gpus[0].used_bytes == 0


def test_the_json_form_comes_back_exactly(mock_nvml: MockNvml) -> None:
    mock_nvml.write(
        f"gpu nvlink=4\ngpu nvlink=4\nmig gpu=1 uuid=MIG-x\nproc gpu=0 pid={os.getpid()} used=100\n"
        "gpu\nfail fn=nvmlDeviceGetMemoryInfo_v2 code=15 gpu=2\n"
    )
    printed: dict[str, Any] = json.loads(gpus_command(mock_nvml, "--json"))
    assert printed["gpus"][0]["processes"][0]["component"] is None
    loaded = simulated.load(json.dumps(printed))
    assert loaded == probe(mock_nvml)
    assert simulated.load(json.dumps(simulated.to_json(loaded))) == loaded


def test_the_component_of_a_process_and_of_its_children(mock_nvml: MockNvml, tmp_path: Path) -> None:
    names = {"LLMLAUNCH_DEPLOYMENT": "lab", "LLMLAUNCH_COMPONENT": "smollm2-1"}
    # The engine's own child starts with an environment that was emptied: its parent tells.
    code = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen(['sleep', '60'], env={})\n"
        "open(sys.argv[1], 'w').write(f'{child.pid}\\n')\n"
        "child.wait()\n"
    )
    pid_file = tmp_path / "child"
    parent = subprocess.Popen([sys.executable, "-c", code, str(pid_file)], env={**os.environ, **names})
    grandchild = 0
    try:
        grandchild = int(
            wait_until(lambda: pid_file.exists() and pid_file.read_text().strip(), what="the child's pid")
        )
        mock_nvml.write(f"gpu\nproc gpu=0 pid={parent.pid} used=10\nproc gpu=0 pid={grandchild} used=20\n")
        shown = gpus_command(mock_nvml)
        assert shown.count("lab/smollm2-1") == 2
        processes = json.loads(gpus_command(mock_nvml, "--json"))["gpus"][0]["processes"]
        assert {process["component"] for process in processes} == {"lab/smollm2-1"}
    finally:
        for pid in (grandchild, parent.pid):
            if pid:
                os.kill(pid, 9)
        parent.wait()


def test_plain_lines_in_a_pipe(mock_nvml: MockNvml) -> None:
    shown = gpus_command(mock_nvml)
    assert "\x1b" not in shown
    for words in (
        "79.6 GiB",
        "118/700 W",
        "41 °C",
        "0000:D1:00.0",
        "NV18",
        "SYS",
        "driver 580.95.05, CUDA 13.0",
    ):
        assert words in shown


def test_remarks(mock_nvml: MockNvml, tmp_path: Path) -> None:
    mock_nvml.write(
        'gpu name="NVIDIA GB10"\ngpu mode=3\ngpu mode=2\ngpu mig=1\ngpu name="Odd"\n'
        "fail fn=nvmlDeviceGetMemoryInfo code=999 gpu=4\nfail fn=nvmlDeviceGetMemoryInfo_v2 code=999 gpu=4\n"
    )
    folder = {"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path)}
    lines = [line for line in gpus_command(mock_nvml, extra=folder).splitlines() if " GPU-0000" in line]
    remarks = [line.rpartition("  ")[2] for line in lines]
    assert remarks == [
        "uses main memory",
        "exclusive-process",
        "prohibited",
        "MIG on, no instances",
        "memory unknown: Unknown Error",
    ]
    printed = json.loads(gpus_command(mock_nvml, "--json", extra=folder))["gpus"]
    assert [gpu["memory"] for gpu in printed] == ["main", "own", "own", "own", "unknown"]
    assert [gpu["compute_mode"] for gpu in printed[:3]] == ["default", "exclusive-process", "prohibited"]
    (tmp_path / "control").touch()
    assert "exclusive-process (shared by MPS)" in gpus_command(mock_nvml, extra=folder)
