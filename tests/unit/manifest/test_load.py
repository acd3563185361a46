"""What a right manifest means: short forms, defaults, names, sizes, ports."""

from __future__ import annotations

import pytest

from llmlaunch.manifest.types import (
    ApiSpec,
    ControllerSpec,
    EngineName,
    GpuAuto,
    GpuCpu,
    GpuPinned,
    GpuRequest,
    ModelSpec,
    Restarts,
    Source,
)
from tests.unit.manifest.reading import manifest, model, problem

UUID = "01234567-89ab-cdef-0123-456789abcdef"


def test_everything_left_out() -> None:
    found = manifest("models: [org/m]")
    spec = found.models[0]
    assert (found.name, found.controller.port, found.api.port) == ("deploy", None, None)
    assert (spec.names, spec.host, spec.port, spec.replicas) == (("m",), "127.0.0.1", None, 1)
    assert (spec.engine, spec.gpus, spec.vram_bytes, spec.dtype) == (
        EngineName.AUTO,
        GpuAuto(None),
        None,
        "auto",
    )
    assert (spec.source, spec.stop_grace_s, spec.start_timeout_s) == (Source.AUTO, 10.0, None)


def test_everything_said() -> None:
    found = manifest(
        """\
        name: lab
        runtime: local
        controller: {host: "::1", port: 7001, dispatch: lottery, open_registration: true}
        api: {host: 0.0.0.0, port: 7000, api_keys_file: k, api_keys_env: K, max_body: 1MiB, max_bodies: 2MiB, cors_origins: "*",
              allowed_hosts: [llm.example.org, "[::1]"],
              access_log: true, ollama: true, processes: 3, trusted_proxies: [10.0.0.0/8, "::1"], tls_cert: c.pem, tls_key: /k.pem}
        models:
          - model: org/m
            names: [a, b c]
            engine: vllm
            host: "[::1]"
            port: 7002
            gpus: auto
            gpu_count: 2
            replicas: 3
            vram: 18GiB
            engine_args: {x: 1, y: [a, {b: c}]}
            env: {A: b}
            dtype: float16
            revision: main
            source: modelscope
            trust_remote_code: true
            max_concurrency: 4
            max_model_len: 8192
            probe: /live
            ready_probe: /ready
            probe_timeout: 30s
            probe_failures: 5
            restart: {max: 3, delay: 1m}
            request_timeout: 2m
            start_timeout: 5m
            stop_grace: 90
        """
    )
    spec = found.models[0]
    assert (found.controller.host, found.controller.dispatch, found.controller.open_registration) == (
        "::1",
        "lottery",
        True,
    )
    assert (found.api.max_body_bytes, found.api.cors_origins, found.api.api_keys_env) == (
        1 << 20,
        ("*",),
        "K",
    )
    assert found.api.max_bodies_bytes == 2 << 20
    assert found.api.trusted_proxies == ("10.0.0.0/8", "::1")
    assert found.api.allowed_hosts == ("llm.example.org", "::1")
    assert found.api.api_keys_file == "/nowhere/k"
    assert (found.api.access_log, found.api.ollama, found.api.processes) == (True, True, 3)
    assert (found.api.tls_cert, found.api.tls_key) == ("/nowhere/c.pem", "/k.pem")
    assert (spec.names, spec.engine, spec.host, spec.gpus) == (
        ("a", "b c"),
        EngineName.VLLM,
        "::1",
        GpuAuto(2),
    )
    assert (spec.vram_bytes, spec.start_timeout_s, spec.stop_grace_s) == (18 << 30, 300.0, 90.0)
    assert (spec.dtype, spec.revision, spec.source) == ("float16", "main", Source.MODELSCOPE)
    assert (spec.probe, spec.ready_probe, spec.probe_timeout_s, spec.probe_failures) == (
        "/live",
        "/ready",
        30.0,
        5,
    )
    assert spec.restart == Restarts(3, 60.0)
    assert (spec.max_concurrency, spec.max_model_len, spec.trust_remote_code) == (4, 8192, True)
    assert spec.request_timeout_s == 120
    assert spec.engine_args == {"x": 1, "y": ["a", {"b": "c"}]}


@pytest.mark.parametrize(
    ("text", "restart"),
    [
        ("never", Restarts(0)),
        ("{max: 2}", Restarts(2)),
        ("{delay: 30s}", Restarts(None, 30.0)),
        ("{}", Restarts()),
        ("null", Restarts()),
        ('{max: "${N}", delay: "${D}"}', Restarts(7, 90.0)),
    ],
)
def test_when_a_failed_one_starts_again(text: str, restart: Restarts) -> None:
    found = model(f"defaults: {{restart: {text}}}\nmodels: [a]", {"N": "7", "D": "1.5m"})
    assert found.restart == restart


def test_no_probe_is_something_else_than_the_engines_own() -> None:
    assert (model("models: [a]").probe, model("models: [{model: a, probe: none}]").probe) == (None, "")


def test_any_server() -> None:
    text = 'models: [{model: any label, engine: command, command: [a, "{port}", ""], vram: 1GB}]'
    spec = model(text)
    assert (spec.model, spec.names, spec.command, spec.vram_bytes) == (
        "any label",
        ("any label",),
        ("a", "{port}", ""),
        10**9,
    )


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("auto", GpuAuto(None)),
        ("cpu", GpuCpu()),
        ("2", GpuPinned((2,))),
        ("'2'", GpuPinned((2,))),
        ("[0, 1]", GpuPinned((0, 1))),
        ("'1, 0'", GpuPinned((1, 0))),
        (f"GPU-{UUID}", GpuPinned((f"GPU-{UUID}",))),
        (f"gpu-{UUID.upper()}", GpuPinned((f"GPU-{UUID}",))),
        (f"[MIG-{UUID}, 3]", GpuPinned((f"MIG-{UUID}", 3))),
        (f"MIG-GPU-{UUID}/1/0", GpuPinned((f"MIG-GPU-{UUID}/1/0",))),
    ],
)
def test_gpus(text: str, gpus: GpuRequest) -> None:
    assert model(f"models: [{{model: m, gpus: {text}}}]").gpus == gpus


@pytest.mark.parametrize(
    "text",
    [
        f"MIG-GPU-{UUID}",
        f"GPU-{UUID}/0/0",
        f"[GPU-{UUID}, gpu-{UUID.upper()}]",
        "{a: 1}",
        "~",
        "[[0]]",
        "1.0",
        "'٣'",
    ],
)
def test_no_gpus(text: str) -> None:
    assert problem(f"models: [{{model: m, gpus: {text}}}]").message.startswith(("gpus ", "item "))


def test_defaults_are_for_models_that_do_not_say_otherwise() -> None:
    a, b = manifest(
        "models: [a, {model: b, engine: sglang, replicas: 1}]\ndefaults: {engine: vllm, replicas: 2, vram: 1GiB}"
    ).models
    assert (a.engine, a.replicas, a.vram_bytes) == ("vllm", 2, 1 << 30)
    assert (b.engine, b.replicas, b.vram_bytes) == ("sglang", 1, 1 << 30)


def test_gpus_and_gpu_count_are_inherited_together() -> None:
    a, b, c = manifest("models: [a, {model: b, gpus: cpu}, 'c@@@1']\ndefaults: {gpu_count: 2}").models
    assert (a.gpus, b.gpus, c.gpus) == (GpuAuto(2), GpuCpu(), GpuPinned((1,)))
    a, b = manifest("models: [a, {model: b, gpu_count: 2}]\ndefaults: {gpus: [0]}").models
    assert (a.gpus, b.gpus) == (GpuPinned((0,)), GpuAuto(2))


def test_env_and_engine_args_add_to_the_defaults() -> None:
    a, b = manifest(
        """\
        defaults: {engine: vllm, env: {A: 1.0, B: 2.0}, engine_args: {x: 1, y: 2}}
        models: [{model: a, env: {B: 3.0}, engine_args: {y: 3}}, {model: b, engine: sglang, engine_args: {z: 1}}]
        """
    ).models
    assert (a.env, a.engine_args) == ({"A": "1.0", "B": "3.0"}, {"x": 1, "y": 3})
    assert (b.env, b.engine_args) == ({"A": "1.0", "B": "2.0"}, {"z": 1})


def test_flags_of_the_defaults_engine_are_not_for_a_command() -> None:
    text = (
        "defaults: {engine: vllm, engine_args: {x: 1}}\nmodels: [{model: a, engine: command, command: [x]}]\n"
    )
    assert model(text).engine_args == {}


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        ("a@@6000", "b@@6000", True),
        ("a@0.0.0.0@6000", "b@127.0.0.1@6000", True),
        ("a@[::1]@6000", "b@127.0.0.1@6000", False),
        ("a@@6000", "b@@6001", False),
        ("{model: a, port: 6000, replicas: 3}", "b@@6000", True),
        ("{model: a, port: 6000, replicas: 3}", "b@@6002", False),
        ("{model: a, port: 6000, replicas: 3}", "{model: b, port: 6002, replicas: 3}", False),
        ("a@0.0.0.0@21001", "b", True),
        ("a@10.0.0.9@21001", "b", False),
    ],
)
def test_ports_clash(first: str, second: str, clash: bool) -> None:
    text = "models:\n- {}\n- {}\n".format(*(m if m.startswith("{") else f"'{m}'" for m in (first, second)))
    if clash:
        assert "is taken by" in problem(text).message
    else:
        manifest(text)


def test_a_default_port_moves_for_nobody_but_can_be_given() -> None:
    text = "models: [a@@21001]\ncontroller: {port: 21000}\n"
    assert manifest(text).models[0].port == 21001


def test_replicas_claim_no_more_than_the_first_port() -> None:
    lines = "".join(f"- {{model: m{i}, port: {10_000 + i}}}\n" for i in range(1200))
    assert len(manifest("defaults: {replicas: 1024}\nmodels:\n" + lines).models) == 1200


def test_logs_are_bounded_for_everything_by_defaults_and_for_each_by_its_own() -> None:
    plain = manifest("models: [a]")
    assert (plain.models[0].log_max_bytes, plain.models[0].log_keep) == (50 << 20, 5)
    text = """
defaults: {log_max: 1MiB, log_keep: 2}
controller: {log_keep: 3}
api: {log_max: 2MiB}
models: [a, {model: b, log_max: 3MiB}]
"""
    found = manifest(text)
    specs: list[ControllerSpec | ApiSpec | ModelSpec] = [found.controller, found.api, *found.models]
    assert [spec.log_max_bytes >> 20 for spec in specs] == [1, 2, 1, 3]
    assert [spec.log_keep for spec in specs] == [3, 2, 2, 2]
