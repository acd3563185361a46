"""What a placed replica, the controller and the gateway are started with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmlaunch.errors import ManifestError
from llmlaunch.hardware.types import Gpu, GpuProcess
from llmlaunch.manifest.types import (
    ApiSpec,
    ControllerSpec,
    EngineName,
    GpuCpu,
    GpuPinned,
    Position,
    Restarts,
)
from llmlaunch.planning.plan import plan
from llmlaunch.planning.types import Component, PlanningContext
from tests.unit.planning.builders import (
    BARE,
    FACTS,
    LLAMA,
    VLLM,
    GiB,
    box,
    gpu,
    manifest,
    model,
    planned,
    reason,
    spec,
)


def test_a_probe_of_ones_own() -> None:
    worker = spec(planned(model(ready_probe="/warm", start_timeout_s=7, stop_grace_s=3), on=BARE), "llama-1")
    assert (worker.ready_path, worker.live_path) == ("/warm", "/health")
    assert (worker.start_timeout_s, worker.stop_grace_s) == (7, 3)
    worker = spec(planned(model(probe="/well"), on=BARE), "llama-1")
    assert (worker.ready_path, worker.live_path) == ("/well", "/well")
    worker = spec(planned(model(probe="", probe_timeout_s=30.0, probe_failures=7), on=BARE), "llama-1")
    assert (worker.ready_path, worker.live_path) == ("/ready", "")
    assert (worker.probe_timeout_s, worker.probe_failures) == (30.0, 7)
    own = model(engine=EngineName.COMMAND, command=("serve",), probe="", restart=Restarts(3, 7.0))
    worker = spec(planned(own, on=BARE), "llama-1")
    assert (worker.ready_path, worker.live_path) == ("", "")
    assert (worker.restart_max, worker.restart_delay_s) == (3, 7.0)


def test_secrets_are_known_by_name_and_by_value() -> None:
    env = {
        "HF_TOKEN": "x",
        "SAFE": "plain",
        "URL": "https://u:hunter2secret@h",
        "EXACT": "pin",
        "PINS": "pins",
    }
    wanted = replace(manifest(model(env=env)), secrets=frozenset({"hunter2secret", "pin", ""}))
    worker = spec(plan(wanted, BARE, FACTS, PlanningContext()), "llama-1")
    assert worker.secret_env == ("EXACT", "HF_TOKEN", "URL")
    assert worker.shown_env["SAFE"] == "plain"


def test_the_controller_and_the_api() -> None:
    wanted = replace(
        manifest(model()),
        controller=ControllerSpec(host="0.0.0.0", open_registration=True),
        api=ApiSpec(
            host="::",
            api_keys_file="/k",
            api_keys_env="LAB_KEYS",
            max_body_bytes=9,
            max_bodies_bytes=11,
            cors_origins=("https://a", "*"),
            trusted_proxies=("10.0.0.0/8", "::1"),
            allowed_hosts=("a.example",),
            access_log=True,
            ollama=True,
            processes=3,
            tls_cert="/c",
            tls_key="/k2",
        ),
    )
    made = plan(wanted, BARE, FACTS, PlanningContext(python="/py", env={"LAB_KEYS": "sk-1"}))
    assert spec(made, "controller").argv == (
        "/py", "-m", "llmlaunch", "controller", "--host", "0.0.0.0", "--port", "21001",
        "--dispatch-method", "shortest_queue", "--open-registration",
    )  # fmt: skip
    api = spec(made, "api")
    assert api.argv == (
        "/py", "-m", "llmlaunch", "api", "--host", "::", "--port", "8000",
        "--controller-address", "http://127.0.0.1:21001", "--api-keys-file", "/k", "--api-keys-env", "LAB_KEYS",
        "--max-body-bytes", "9", "--stop-grace", "10", "--max-bodies-bytes", "11",
        "--cors-origin", "https://a", "--cors-origin", "*", "--allowed-host", "a.example",
        "--trusted-proxy", "10.0.0.0/8", "--trusted-proxy", "::1",
        "--access-log", "--ollama", "--processes", "3", "--tls-cert", "/c", "--tls-key", "/k2",
    )  # fmt: skip
    assert api.address == "https://[::1]:8000"
    assert api.env["LAB_KEYS"] == "sk-1"
    assert api.shown_env["LAB_KEYS"] == "***"
    assert all(s.needs == () for s in made.processes)


@pytest.mark.parametrize(
    ("api", "noted"),
    [
        (ApiSpec(), False),
        (ApiSpec(host="localhost"), False),
        (ApiSpec(host="::1"), False),
        (ApiSpec(host="0.0.0.0"), True),
        (ApiSpec(host="::"), True),
        (ApiSpec(host="192.168.1.5"), True),
        (ApiSpec(host="0.0.0.0", api_keys_file="/k"), False),
        (ApiSpec(host="0.0.0.0", api_keys_env="KEYS"), False),
    ],
)
def test_an_endpoint_that_is_open_to_everybody_is_noted(api: ApiSpec, noted: bool) -> None:
    context = PlanningContext(local_addresses=frozenset({"192.168.1.5"}))
    made = plan(replace(manifest(model()), api=api), BARE, FACTS, context)
    assert any("anyone who can reach this machine" in note for note in made.notes) == noted


def test_the_api_outlasts_the_longest_grace_of_its_models() -> None:
    """It ends open streams itself, with an error that clients can see; killed at the same moment it could not."""
    made = plan(
        manifest(model(stop_grace_s=45.0), model("smollm2", stop_grace_s=1.0)), BARE, FACTS, PlanningContext()
    )
    api = spec(made, "api")
    assert api.argv[api.argv.index("--stop-grace") + 1] == "45"
    assert api.stop_grace_s == 48.0


def test_all_that_the_engines_cannot_do_is_said_at_once_with_its_place() -> None:
    where = Position("/srv/deploy.yaml", 7, 5)
    bad = model(engine=VLLM, engine_args={"port": 1}, env={"CUDA_VISIBLE_DEVICES": "0"}, position=where)
    worse = model("smollm2", engine_args={"device": "cpu"})
    with pytest.raises(ManifestError) as error:
        planned(bad, worse, on=BARE)
    first, second, third = error.value.problems
    assert str(first).startswith("/srv/deploy.yaml:7:5: model llama: engine_args: port is set by the plan")
    assert "env: CUDA_VISIBLE_DEVICES is set by the plan" in second.message
    assert "device" in third.message
    assert error.value.exit_code == 2


def test_sglang_gets_the_tokens_that_its_claim_has_room_for() -> None:
    worker = spec(planned(model(engine=EngineName.SGLANG), on=box(gpu(0))), "llama-1")
    assert worker.argv[worker.argv.index("--max-total-tokens") + 1] == str(8 * 4096)


def test_processes_on_a_gpu_are_named_largest_first() -> None:
    crowd = tuple(GpuProcess(pid, pid * GiB, "p") for pid in range(1, 6))
    full: Gpu = replace(gpu(0, used=70), processes=crowd)
    text = reason(planned(model(gpus=GpuPinned((0,))), on=box(full)))
    assert "held by p (pid 5) 5.0 GiB, p (pid 4) 4.0 GiB, p (pid 3) 3.0 GiB and 2 more" in text


@pytest.mark.parametrize(
    ("engine", "more", "expected"),
    [
        (EngineName.LLAMACPP, {}, 4),
        (EngineName.LLAMACPP, {"max_concurrency": 9}, 9),
        (EngineName.VLLM, {}, 64),
        (EngineName.VLLM, {"engine_args": {"max_num_seqs": 7}}, 7),
        (EngineName.SGLANG, {"engine_args": {"max-running-requests": 5}}, 5),
        (EngineName.COMMAND, {"command": ("serve",), "gpus": GpuCpu()}, None),
        (EngineName.COMMAND, {"command": ("serve",), "gpus": GpuCpu(), "max_concurrency": 2}, 2),
        # It says so itself when it registers.
        (EngineName.TRANSFORMERS, {}, None),
    ],
)
def test_gateways_hear_how_many_requests_an_engine_works_on_at_a_time(
    engine: EngineName, more: dict[str, Any], expected: int | None
) -> None:
    facts = {"llama": replace(LLAMA, format="gguf") if engine is EngineName.LLAMACPP else LLAMA}
    made = plan(manifest(model(engine=engine, **more)), box(gpu(0)), facts, PlanningContext())
    (worker,) = (spec for spec in made.processes if spec.component is Component.WORKER)
    assert worker.max_concurrency == expected


def test_where_an_engine_lives_and_how_its_process_runs() -> None:
    own = model(
        engine=EngineName.VLLM,
        python="/opt/vllm/bin/python",
        venv="/opt/vllm",
        prefix=("numactl", "--cpunodebind=0"),
        workdir="/srv",
        stop_signal="SIGINT",
    )
    worker = spec(planned(own, on=box(gpu(0))), "llama-1")
    assert worker.argv[:4] == ("numactl", "--cpunodebind=0", "/opt/vllm/bin/python", "-m")
    assert worker.program == worker.argv[2:]
    assert (worker.path_first, worker.own_python) == ("/opt/vllm/bin", True)
    assert worker.env["VIRTUAL_ENV"] == "/opt/vllm"
    assert (worker.workdir, worker.stop_signal) == ("/srv", "SIGINT")
    plain = spec(planned(model(engine=EngineName.VLLM), on=box(gpu(0))), "llama-1")
    assert (plain.path_first, plain.own_python, plain.prefix, plain.workdir) == ("", False, 0, "")
    assert plain.program == plain.argv


@pytest.mark.parametrize(
    ("place", "folder"),
    [
        ({"python": "/usr/bin/python3"}, ""),
        ({"python": "python3.12"}, ""),
        ({"python": "/opt/conda/envs/vllm/bin/python"}, "/opt/conda/envs/vllm/bin"),
        ({"executable": "/opt/vllm/bin/vllm"}, "/opt/vllm/bin"),
        ({"executable": "/usr/local/bin/vllm"}, ""),
        ({"executable": "vllm"}, ""),
    ],
    ids=str,
)
def test_folders_that_everybody_has_on_the_path_stay_where_they_are(
    place: dict[str, str], folder: str
) -> None:
    worker = spec(planned(model(engine=EngineName.VLLM, **place), on=box(gpu(0))), "llama-1")
    assert (worker.path_first, worker.own_python) == (folder, True)


def test_a_prefix_with_a_secret_is_shown_as_it_is_written() -> None:
    own = model(prefix=("ssh-agent", "hunter2secret"), shown_prefix=("ssh-agent", "${LAB_TOKEN}"))
    worker = spec(planned(own, on=BARE), "llama-1")
    assert worker.argv[:2] == ("ssh-agent", "hunter2secret")
    assert worker.shown_argv[:2] == ("ssh-agent", "${LAB_TOKEN}")
    assert worker.shown_argv[2:] == worker.argv[2:]


def test_variables_from_a_file_are_never_shown() -> None:
    own = model(env={"MODE": "quiet", "LEVEL": "3"}, secret_env=frozenset({"MODE"}))
    worker = spec(planned(own, on=BARE), "llama-1")
    assert worker.env["MODE"] == "quiet"
    assert (worker.shown_env["MODE"], worker.shown_env["LEVEL"]) == ("***", "3")


def test_a_command_is_told_its_devices_and_has_the_kind_of_the_manifest() -> None:
    own = model(
        engine=EngineName.COMMAND,
        command=("serve", "{gpus}", "{gpu_count}", "{vram_fraction}"),
        vram_bytes=20 * GiB,
        kind="audio",
        gpus=GpuPinned((1,)),
    )
    worker = spec(planned(own, on=box(gpu(0), gpu(1))), "llama-1")
    assert worker.argv == ("serve", "1", "1", "0.25")
    assert worker.kind == "audio"


def test_the_name_that_an_engine_knows() -> None:
    """Gateways write it into requests, and the name that was asked for into the answers."""
    infinity = model(engine=EngineName.COMMAND, command=("x",), gpus=GpuCpu(), engine_model="BAAI/bge-m3")
    assert spec(planned(infinity, on=box(gpu(0))), "llama-1").engine_model == "BAAI/bge-m3"
    for engine in (EngineName.SGLANG, EngineName.VLLM):
        for names, known in ((("one",), ""), (("one", "two:large"), "one")):
            found = spec(planned(model(engine=engine, names=names), on=box(gpu(0))), "one-1")
            assert (found.engine_model, found.names) == (known, names)


def test_another_reason_for_the_same_engine_restarts_nothing() -> None:
    wanted = model(engine=EngineName.SGLANG)
    before = spec(planned(wanted, on=box(gpu(0))), "llama-1")
    assert "which runs llmlaunch" in before.engine_reason
    old = replace(before, engine_reason="by an older rule")
    again = planned(wanted, on=box(gpu(0)), context=PlanningContext(running=(old,)))
    assert spec(again, "llama-1") == old
