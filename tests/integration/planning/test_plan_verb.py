"""``llmlaunch plan`` as a user runs it: text, JSON, exit codes, and nothing left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deployment import Cli, cli
from tests.support.nvml import MockNvml
from tests.support.ports import free_port

MANIFEST = """\
name: lab
models:
  - model: label
    names: [small]
    port: @PORT@
    engine: command
    command: [sh, --port, "{port}"]
    vram: 10GiB
    env: {LAB_TOKEN: "${LAB_TOKEN:-hunter2}"}
  - {model: label, names: [wide], engine: command, command: [sh], vram: 60GiB, gpu_count: 2}
"""


PORT = free_port()


def write(box: Cli, old: str = "", new: str = "") -> None:
    text = MANIFEST.replace("@PORT@", str(PORT))
    assert old in text
    (box.cwd / "deploy.yaml").write_text(text.replace(old, new))


@pytest.fixture
def box() -> Iterator[Cli]:
    with cli(CUDA_VISIBLE_DEVICES="") as found:
        write(found)
        yield found


def test_the_plan_in_plain_lines(box: Cli) -> None:
    text = box.ok("plan", "--gpus", "2xA100-80GB,1xL4")
    lines = text.splitlines()
    assert lines[0] == "lab: 4 processes, everything fits; nothing was started"
    row = next(line for line in lines if line.startswith("small-1 "))
    assert row.split()[1:] == [f"http://127.0.0.1:{PORT}", "command", "2", "2", "10.0", "GiB"]
    assert any(line.startswith("wide-1: on GPUs 0 and 1 (") and "joined by NVLink" in line for line in lines)
    card = next(line for line in lines if line.startswith("2 "))
    assert card.endswith("small-1 10.0 GiB")
    assert "\x1b" not in text
    assert box.processes() == []
    assert not list(box.home.rglob("*.sock"))


def test_the_plan_as_json(box: Cli) -> None:
    report = json.loads(box.ok("plan", "--json", "--gpus", "2xA100-80GB,1xL4", "deploy.yaml"))
    assert report["deployment"] == "lab"
    assert [p["name"] for p in report["processes"]] == ["controller", "small-1", "wide-1", "api"]
    small = report["processes"][1]
    assert small["component"] == "worker"
    assert small["env"]["LAB_TOKEN"] == "***"
    assert small["argv"] == ["sh", "--port", str(PORT)]
    assert small["gpus"] == [report["gpus"][2]["uuid"]]
    assert (small["mask"], small["vram_bytes"]) == ("2", 10 << 30)
    assert report["gpus"][2]["planned_bytes"] == 10 << 30
    assert report["rejections"] == []


def test_what_does_not_fit_is_exit_code_1_with_the_numbers(box: Cli) -> None:
    done = box.run("plan", "--gpus", "1xL4")
    assert done.returncode == 1
    assert "lab: 1 model does not fit; nothing was started" in done.stdout
    assert "does not fit: wide: needs 2 GPUs, and 1 GPU can be used" in done.stdout
    report = json.loads(box.run("plan", "--gpus", "1xL4", "--json").stdout)
    assert [rejection["model"] for rejection in report["rejections"]] == ["wide"]


def test_without_a_gpu_commands_run_on_the_cpu_with_a_note(box: Cli) -> None:
    manifest = MANIFEST.replace(", vram: 60GiB, gpu_count: 2", "").replace("    vram: 10GiB\n", "")
    (box.cwd / "deploy.yaml").write_text(manifest.replace("@PORT@", str(free_port())))
    text = box.ok("plan", "--gpus", "none")
    assert "note: small runs on the CPU" in text
    assert "note: wide runs on the CPU" in text


def test_without_a_gpu_a_command_that_claims_vram_is_refused(box: Cli) -> None:
    write(box, ", gpu_count: 2", "")
    done = box.run("plan", "--gpus", "none")
    assert done.returncode == 1
    assert "does not fit: wide: needs a GPU, 60.0 GiB of it (vram)" in done.stdout
    assert "gpus: cpu starts it without one" in done.stdout


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("engine: command\n", "engine: comand\n"), "command"),
        (("{port}", "{prot}"), "did you mean {port}?"),
    ],
)
def test_a_wrong_manifest_is_exit_code_2_with_its_place(box: Cli, change: tuple[str, str], says: str) -> None:
    write(box, *change)
    done = box.run("plan")
    assert done.returncode == 2
    assert says in done.stderr
    assert "deploy.yaml:" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("plan", "nowhere.yaml"), 2),
        (("plan", "--gpus", "3xWarpDrive"), 1),
        (("plan", "--gpus", "nowhere.json"), 1),
        (("plan", "--name", "Not A Name"), 2),
    ],
)
def test_what_is_not_there_is_one_message(box: Cli, words: tuple[str, ...], code: int) -> None:
    done = box.run(*words)
    assert done.returncode == code
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_a_name_of_ones_own(box: Cli) -> None:
    assert box.ok("plan", "--gpus", "4xL40S", "--name", "other").startswith("other: ")


def test_on_the_gpus_that_nvml_shows(box: Cli, mock_nvml: MockNvml) -> None:
    environment = mock_nvml.environment({"LLMLAUNCH_HOME": str(box.home)})
    done = subprocess.run(
        [sys.executable, "-m", "llmlaunch", "plan", "--json"], cwd=box.cwd, env=environment, capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    masks = {p["name"]: p["mask"] for p in json.loads(done.stdout)["processes"]}
    assert masks == {"controller": "", "small-1": "3", "wide-1": "0,1", "api": ""}


def test_tables_on_a_terminal_hold_the_same(tmp_path: Path) -> None:
    from rich.console import Console

    from llmlaunch.cli.plan import _tables
    from llmlaunch.planning.plan import plan
    from llmlaunch.planning.types import PlanningContext
    from tests.unit.planning.builders import FACTS, gpu, manifest, model
    from tests.unit.planning.builders import box as gpus

    made = plan(
        manifest(model(replicas=2), model(names=("[bold]",))), gpus(gpu(0, 24)), FACTS, PlanningContext()
    )
    console = Console(width=200, record=True, markup=False, file=(tmp_path / "out").open("w"))
    console.print(_tables(made))
    console.file.close()
    text = console.export_text()
    assert "2 models do not fit" in text
    assert "[bold] does not fit" in text
    assert "replica 2 of 2: needs 20.3 GiB" in text
    assert "llama-1 20.3 GiB" in text


def test_what_runs_is_planned_where_it_runs(box: Cli) -> None:
    """The plan of a running deployment keeps every port, although all of them are taken: by itself."""
    engine = Path(__file__).parents[2] / "support" / "fake_engine.py"
    ports = {"controller": free_port(), "api": free_port()}
    (box.cwd / "deploy.yaml").write_text(
        json.dumps(
            {
                "name": "plan-running",
                "controller": {"port": ports["controller"]},
                "api": {"port": ports["api"]},
                "models": [
                    {
                        "model": "label",
                        "names": ["tiny"],
                        "engine": "command",
                        "gpus": "cpu",
                        "port": PORT,
                        "command": [
                            sys.executable,
                            "-I",
                            "-S",
                            str(engine),
                            "--port",
                            "{port}",
                            "--names",
                            "{names}",
                        ],
                    }
                ],
            }
        )
    )
    box.ok("up", "-d")
    try:
        running = {c["name"]: c["address"] for c in box.status()["components"]}
        planned = {p["name"]: p["address"] for p in json.loads(box.ok("plan", "--json"))["processes"]}
        assert planned == running
    finally:
        box.run("down")


def test_a_lost_gpu_is_told_once(mock_nvml: MockNvml) -> None:
    mock_nvml.write("gpu\ngpu total=102400\nfail fn=nvmlDeviceGetMemoryInfo_v2 code=15 gpu=0\n")
    with cli(**mock_nvml.env) as box:
        write(box)
        done = box.run("plan")
    assert done.returncode == 1
    assert [line for line in done.stdout.splitlines() if line.startswith("note: ")] == [
        "note: GPU 0 (NVIDIA MOCK GPU) is left out: GPU is lost"
    ]
