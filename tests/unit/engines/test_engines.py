"""From a placed replica to the process that serves it, engine by engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmlaunch.engines import registry
from llmlaunch.engines.types import DeviceClaim, LaunchRequest
from llmlaunch.manifest.types import EngineName, GpuCpu, ModelSpec, Source
from llmlaunch.models.facts import ModelFacts, ModelKind

GiB = 1 << 30
FACTS = ModelFacts(
    source="org/llama",
    path="/models/llama",
    local=True,
    format="safetensors",
    attention_heads=32,
    context_length=8192,
)
GGUF = replace(FACTS, path="/models/llama.gguf", format="gguf")


def request(engine: str, *, gpus: int = 1, facts: ModelFacts | None = FACTS, **model: Any) -> LaunchRequest:
    kv_tokens = model.pop("kv_tokens", None)
    spec = replace(ModelSpec("org/llama", ("a", "b"), EngineName(engine)), **model)
    return LaunchRequest(
        component="a-1",
        model=spec,
        facts=facts,
        host="127.0.0.1",
        port=21002,
        controller_url="http://127.0.0.1:21001",
        devices=tuple(DeviceClaim(f"GPU-{i}", i, (80 - i) * GiB, 20 * GiB) for i in range(gpus)),
        python="/venv/bin/python",
        kv_tokens=kv_tokens,
    )


def argv(engine: str, **changes: Any) -> list[str]:
    wanted = request(engine, **changes)
    assert registry.get(engine).problems(wanted.model) == ()
    return list(registry.get(engine).launch(wanted).argv)


def value(words: list[str], flag: str) -> str:
    assert words.count(flag) == 1, f"{flag} in {words}"
    return words[words.index(flag) + 1]


def test_every_engine_of_the_manifest_is_here() -> None:
    for name in EngineName:
        engine = registry.get(name)
        # Until the rules have chosen, a model is held to what the built-in engine can do.
        assert engine.name == (EngineName.TRANSFORMERS if name is EngineName.AUTO else name)
        assert registry.get(name.value) is engine
    with pytest.raises(ValueError):
        registry.get("ollama")


def test_the_built_in_worker() -> None:
    assert argv("transformers") == [
        "/venv/bin/python", "-m", "llmlaunch", "worker",
        "--model-path", "/models/llama", "--model-names", "a,b", "--host", "127.0.0.1", "--port", "21002",
        "--controller-address", "http://127.0.0.1:21001", "--component", "a-1", "--device", "cuda", "--dtype", "auto",
        "--stop-grace", "10", "--vram-bytes", str(20 * GiB),
    ]  # fmt: skip
    launch = registry.get("transformers").launch(request("transformers"))
    assert (launch.ready_path, launch.live_path, launch.self_registering) == ("/ready", "/health", True)


def test_the_built_in_worker_gets_every_setting() -> None:
    words = argv(
        "transformers",
        gpus=0,
        max_concurrency=4,
        max_model_len=2048,
        revision="main",
        source=Source.MODELSCOPE,
        trust_remote_code=True,
        dtype="float32",
        engine_args={"threads": 2, "prefix_reuse": True},
    )
    assert value(words, "--device") == "cpu"
    assert value(words, "--limit-worker-concurrency") == "4"
    assert value(words, "--max-model-len") == "2048"
    assert value(words, "--revision") == "main"
    assert value(words, "--source") == "modelscope"
    assert value(words, "--dtype") == "float32"
    assert "--trust-remote-code" in words
    assert "--vram-bytes" not in words
    assert words[-3:] == ["--threads", "2", "--prefix-reuse"]


def test_every_engine_with_a_parser_of_tool_calls_gets_its_name() -> None:
    assert value(argv("transformers", tool_parser="hermes"), "--tool-parser") == "hermes"
    words = argv("vllm", tool_parser="hermes")
    assert value(words, "--tool-call-parser") == "hermes"
    assert words.count("--enable-auto-tool-choice") == 1
    words = argv("vllm", tool_parser="hermes", engine_args={"enable_auto_tool_choice": True})
    assert words.count("--enable-auto-tool-choice") == 1
    assert value(argv("sglang", tool_parser="qwen"), "--tool-call-parser") == "qwen"


def test_a_parser_of_tool_calls_that_an_engine_does_not_have() -> None:
    def problems(engine: str, name: str, **engine_args: object) -> tuple[str, ...]:
        return registry.get(engine).problems(request(engine, tool_parser=name, engine_args=engine_args).model)

    assert problems("transformers", "hermse") == (
        "tool_parser: 'hermse' is not one of its formats; did you mean hermes?",
    )
    assert problems("llamacpp", "hermes") == ("tool_parser applies to transformers, vllm and sglang only",)
    assert problems("vllm", "anything-it-may-know") == ()
    assert "tool_call_parser is given twice" in problems("vllm", "a", tool_call_parser="b")[0]


def test_vllm_takes_its_claim_as_a_fraction_rounded_down() -> None:
    words = argv("vllm", gpus=2)
    assert words[:3] == ["vllm", "serve", "/models/llama"]
    assert words[3:6] == ["--served-model-name", "a", "b"]
    assert value(words, "--tensor-parallel-size") == "2"
    # The smallest of 20/80 and 20/79.
    assert value(words, "--gpu-memory-utilization") == "0.25"
    assert value(words, "--max-model-len") == "auto"
    assert value(words, "--max-num-seqs") == "64"
    third = replace(request("vllm"), devices=(DeviceClaim("GPU-0", 0, 3 * GiB, GiB),))
    assert value(list(registry.get("vllm").launch(third).argv), "--gpu-memory-utilization") == "0.3333"


def test_vllm_settings_from_the_model_and_from_engine_args() -> None:
    words = argv(
        "vllm", max_model_len=4096, max_concurrency=7, dtype="float16", revision="r", trust_remote_code=True
    )
    assert (value(words, "--max-model-len"), value(words, "--max-num-seqs")) == ("4096", "7")
    assert (value(words, "--dtype"), value(words, "--revision")) == ("float16", "r")
    assert "--trust-remote-code" in words
    words = argv("vllm", engine_args={"max_model_len": "8k", "max_num_seqs": 9, "kv_cache_dtype": "fp8"})
    assert (value(words, "--max-model-len"), value(words, "--max-num-seqs")) == ("8k", "9")
    assert value(words, "--kv-cache-dtype") == "fp8"
    cpu = argv("vllm", gpus=0)
    assert "--gpu-memory-utilization" not in cpu
    assert "--max-model-len" not in cpu
    assert registry.get("vllm").launch(request("vllm", source=Source.MODELSCOPE)).env == {
        "VLLM_USE_MODELSCOPE": "True"
    }


def test_sglang() -> None:
    words = argv("sglang", gpus=2, kv_tokens=40_000, max_model_len=4096)
    assert words[:3] == ["/venv/bin/python", "-m", "sglang.launch_server"]
    assert value(words, "--model-path") == "/models/llama"
    assert value(words, "--served-model-name") == "a"
    assert value(words, "--tp-size") == "2"
    assert value(words, "--max-total-tokens") == "40000"
    assert value(words, "--context-length") == "4096"
    assert value(words, "--max-running-requests") == "64"
    assert "--enable-metrics" in words
    assert value(argv("sglang", gpus=0), "--device") == "cpu"
    assert "--is-embedding" in argv("sglang", facts=replace(FACTS, kind=ModelKind.EMBED))


def test_how_long_the_answer_to_a_probe_may_take() -> None:
    """As the servers were seen: SGLang allows itself 20 s for its own, llama-server took 3 s under forty requests."""
    for engine in EngineName:
        made = (
            request(engine, facts=None, command=("serve",))
            if engine is EngineName.COMMAND
            else request(engine)
        )
        launch = registry.get(engine).launch(made)
        assert launch.probe_timeout_s >= (20 if engine is EngineName.SGLANG else 10)
        assert launch.probe_timeout_s * launch.probe_failures <= 60, (
            "one that hangs is noticed within a minute or so"
        )


def test_probes_are_kept_out_of_the_logs_unless_the_manifest_says_something_of_it() -> None:
    assert value(argv("vllm"), "--disable-access-log-for-endpoints") == "/health,/metrics"
    words = argv("sglang")
    at = words.index("--uvicorn-access-log-exclude-prefixes")
    assert words[at + 1 : at + 3] == ["/health", "/metrics"]
    for engine, flag in (
        ("vllm", "disable_access_log_for_endpoints"),
        ("sglang", "uvicorn_access_log_exclude"),
    ):
        # null: for a version that does not have the flag.
        assert not [word for word in argv(engine, engine_args={flag: None}) if "access-log" in word]
    words = argv("vllm", engine_args={"disable_access_log_for_endpoints": "/x"})
    assert value(words, "--disable-access-log-for-endpoints") == "/x"


def test_llama_server() -> None:
    words = argv("llamacpp", facts=GGUF, gpus=2, max_concurrency=3, max_model_len=2048)
    assert words[:3] == ["llama-server", "-m", "/models/llama.gguf"]
    assert value(words, "--alias") == "a,b"
    assert (value(words, "--parallel"), value(words, "--ctx-size")) == ("3", str(3 * 2048))
    assert (value(words, "--gpu-layers"), value(words, "--split-mode")) == ("999", "layer")
    assert value(argv("llamacpp", facts=GGUF, gpus=0), "--gpu-layers") == "0"
    assert argv("llamacpp", facts=GGUF, engine_args={"ngl": 20})[-2:] == ["-ngl", "20"]
    assert "--gpu-layers" not in argv("llamacpp", facts=GGUF, engine_args={"ngl": 20})
    assert value(words, "--verbosity") == "4"
    for given in ({"lv": 2}, {"log_verbosity": 2}, {"v": True}):
        assert "4" not in argv("llamacpp", facts=GGUF, engine_args=given)[-3:]
    assert value(argv("llamacpp", facts=None), "-hf") == "org/llama"


def test_llama_server_downloads_the_very_file_that_was_planned() -> None:
    hub = replace(
        GGUF, local=False, hub="huggingface", path="org/llama-gguf", files=("Q4/a-00001-of-00002.gguf", "b")
    )
    words = argv("llamacpp", facts=hub)
    assert (value(words, "--hf-repo"), value(words, "--hf-file")) == ("org/llama-gguf", hub.files[0])
    engine = registry.get("llamacpp")
    assert engine.unsupported(hub, 0) == ""
    assert "Hugging Face only" in engine.unsupported(replace(hub, hub="modelscope"), 0)
    assert "newest revision only" in engine.unsupported(replace(hub, revision="v2"), 0)
    assert engine.unsupported(replace(GGUF, hub="modelscope", revision="v2"), 0) == ""


def test_the_built_in_worker_finds_a_file_on_a_hub_by_the_manifests_words() -> None:
    hub = replace(GGUF, local=False, path="org/llama")
    assert (
        value(argv("transformers", facts=hub, model="org/llama:Q4_K_M"), "--model-path") == "org/llama:Q4_K_M"
    )


def test_llama_cpp_without_llama_server_is_ours_with_the_same_flags() -> None:
    for changes in ({"gpus": 0}, {"gpus": 1}, {"gpus": 2, "engine_args": {"cache-type-k": "q8_0"}}):
        wanted = request("llamacpp", facts=GGUF, **changes)
        engine = registry.get("llamacpp")
        assert engine.optional_program == "llama-server"
        theirs = engine.launch(wanted)
        ours = engine.launch(replace(wanted, absent=frozenset({"llama-server"})))
        assert theirs.argv[0] == "llama-server"
        assert ours.argv == ("/venv/bin/python", "-m", "llmlaunch.llamacpp", *theirs.argv[1:])
        assert replace(ours, argv=(), why="") == replace(theirs, argv=())
        assert ours.why == "no llama-server on PATH: the one in the packages of /venv/bin/python"


def test_llama_cpp_computes_on_the_cores_there_are_without_spinning() -> None:
    def launch(gpus: int = 0, **engine_args: Any) -> tuple[list[str], dict[str, str]]:
        found = registry.get("llamacpp").launch(
            replace(request("llamacpp", facts=GGUF, gpus=gpus, engine_args=engine_args), cores=6)
        )
        return list(found.argv), dict(found.env)

    words, env = launch()
    assert (value(words, "--threads"), value(words, "--poll")) == ("6", "0")
    assert env == {"OMP_WAIT_POLICY": "passive"}
    for name in ("threads", "t", "--threads"):
        words, _ = launch(**{name: 3})
        assert (words.count("--threads") + words.count("-t"), words[-1]) == (1, "3")
    words, _ = launch(poll=50)
    assert value(words, "--poll") == "50"
    words, env = launch(gpus=1)
    assert not {"--threads", "--poll"} & set(words)
    assert env == {}


@pytest.mark.parametrize(
    ("kind", "engine_args", "there", "not_there"),
    [
        (ModelKind.GENERATE, {}, ["--jinja"], ["--embedding", "--ubatch-size"]),
        (ModelKind.GENERATE, {"no_jinja": True}, ["--no-jinja"], ["--jinja"]),
        (ModelKind.GENERATE, {"jinja": True}, ["--jinja"], []),
        (ModelKind.EMBED, {}, ["--embedding", "--batch-size 8192", "--ubatch-size 8192"], ["--jinja"]),
        (ModelKind.EMBED, {"embeddings": True, "pooling": "last"}, ["--embeddings", "--pooling last"], ["--embedding "]),
        (ModelKind.EMBED, {"ub": 512}, ["-ub 512", "--batch-size 8192"], ["--ubatch-size"]),
        (ModelKind.RERANK, {}, ["--rerank", "--ubatch-size 8192"], ["--jinja", "--embedding"]),
        (ModelKind.RERANK, {"reranking": True}, ["--reranking"], ["--rerank "]),
    ],
)  # fmt: skip
def test_llama_cpp_by_what_the_model_is_for(
    kind: ModelKind, engine_args: dict[str, Any], there: list[str], not_there: list[str]
) -> None:
    line = " ".join((*argv("llamacpp", facts=replace(GGUF, kind=kind), engine_args=engine_args), ""))
    assert [text for text in there if line.count(f" {text} ") != 1] == []
    assert [text for text in not_there if f" {text}" in line] == []


def test_llama_cpp_gets_the_projector_beside_the_model() -> None:
    sees = replace(GGUF, projector="mmproj-f16.gguf")
    assert value(argv("llamacpp", facts=sees), "--mmproj") == "/models/mmproj-f16.gguf"
    assert "--mmproj" not in argv("llamacpp", facts=GGUF)
    for args in ({"mmproj": "other.gguf"}, {"mm": "other.gguf"}, {"no_mmproj": True}):
        words = argv("llamacpp", facts=sees, engine_args=args)
        assert "/models/mmproj-f16.gguf" not in words


def test_llama_cpp_wants_a_gguf_file() -> None:
    assert registry.get("llamacpp").unsupported(GGUF, 1) == ""
    assert "GGUF" in registry.get("llamacpp").unsupported(FACTS, 1)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_tensor_parallelism_divides_the_heads(engine: str) -> None:
    assert registry.get(engine).unsupported(FACTS, 2) == ""
    assert "32 attention heads" in registry.get(engine).unsupported(FACTS, 3)
    assert registry.get("transformers").unsupported(FACTS, 3) == ""


def test_a_command_is_filled_in() -> None:
    command = (
        "python", "s.py", "--at={host}:{port}", "{model}", "{name}", "{names}", '{"a": {"b": 1}}', "{{name}}", "{}",
    )  # fmt: skip
    assert argv("command", facts=None, command=command) == [
        "python", "s.py", "--at=127.0.0.1:21002", "org/llama", "a", "a,b", '{"a": {"b": 1}}', "{name}", "{}",
    ]  # fmt: skip
    launch = registry.get("command").launch(request("command", facts=None, command=("x",)))
    assert not launch.self_registering
    assert (launch.ready_path, launch.live_path) == ("/health", "/health")


def test_a_command_learns_what_the_plan_decided() -> None:
    command = ("{path}", "{gpus}", "{gpu_count}", "{vram_fraction}", "{max_model_len}", "{{gpus}}")
    known: dict[str, Any] = {"command": command, "max_model_len": 4096, "vram_bytes": 20 * GiB}
    wanted = request("command", gpus=2, facts=None, path="/models/llama", **known)
    wanted = replace(wanted, mask="2,3")
    launch = registry.get("command").launch(wanted)
    assert launch.argv == ("/models/llama", "2,3", "2", "0.25", "4096", "{gpus}")
    assert argv("command", gpus=0, facts=None, **known) == ["org/llama", "", "0", "0", "4096", "{gpus}"]
    on_the_cpu = ModelSpec("m", ("m",), EngineName.COMMAND, gpus=GpuCpu(), command=("{vram_fraction}",))
    assert registry.get("command").problems(on_the_cpu) == ()


VENV = {"python": "/opt/a b/bin/python", "venv": "/opt/a b"}


@pytest.mark.parametrize(
    ("engine", "changes", "words"),
    [
        ("vllm", {}, ("vllm", "serve", "/models/llama")),
        ("vllm", VENV, (VENV["python"], "-m", "vllm.entrypoints.cli.main", "serve", "/models/llama")),
        ("vllm", {"executable": "/opt/vllm"}, ("/opt/vllm", "serve", "/models/llama")),
        ("sglang", VENV, (VENV["python"], "-m", "sglang.launch_server", "--model-path")),
        ("sglang", VENV | {"env": {"PATH": "/x"}}, (VENV["python"], "-m", "sglang.launch_server")),
        ("sglang", {"executable": "/opt/sglang"}, ("/opt/sglang", "serve", "--model-path")),
        ("llamacpp", {"facts": GGUF, "executable": "/opt/llama-server"}, ("/opt/llama-server", "-m")),
        ("llamacpp", {"facts": GGUF, **VENV}, (VENV["python"], "-m", "llmlaunch.llamacpp", "-m")),
        ("transformers", VENV, (VENV["python"], "-m", "llmlaunch", "worker")),
        ("command", {"facts": None, "command": ("serve",), **VENV}, ("serve",)),
    ],
    ids=str,
)
def test_an_engine_is_run_from_where_it_lives(
    engine: str, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    wanted = request(engine, **changes)
    wanted = replace(wanted, python=wanted.model.python or wanted.python)
    assert registry.get(engine).problems(wanted.model) == ()
    launch = registry.get(engine).launch(wanted)
    assert launch.argv[: len(words)] == words
    assert launch.why == "", "the manifest says where"


def test_sglang_says_which_python_it_was_given() -> None:
    ours = registry.get("sglang").launch(request("sglang"))
    assert ours.argv[0] == "/venv/bin/python"
    assert ours.why == "sglang of /venv/bin/python, which runs llmlaunch; python: names another"
    first = registry.get("sglang").launch(request("sglang", env={"PATH": "/opt/sglang/bin"}))
    assert (first.argv[0], first.why) == ("python3", "sglang of the first python3 on the PATH under env:")


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (ModelSpec("m", ("m",), EngineName.COMMAND), "requires command:"),
        (ModelSpec("m", ("m",), EngineName.COMMAND, command=("x", "{prot}")), "did you mean {port}?"),
        (ModelSpec("m", ("m",), EngineName.COMMAND, command=("{zzz}",)), "write {{zzz}} for a literal one"),
        (ModelSpec("m", ("m",), EngineName.COMMAND, command=("{gpu_cuont}",)), "did you mean {gpu_count}?"),
        (ModelSpec("m", ("m",), EngineName.COMMAND, command=("{max_model_len}",)), "needs max_model_len:"),
        (ModelSpec("m", ("m",), EngineName.COMMAND, command=("{vram_fraction}",)), "needs vram:"),
        (
            ModelSpec("m", ("m",), EngineName.COMMAND, command=("x",), executable="/opt/x"),
            "bin does not apply to engine: command; write it as the first word of command",
        ),
        (ModelSpec("m", ("m",), executable="/opt/x"), "bin does not apply to engine: transformers; python:"),
        (
            ModelSpec("m", ("m",), EngineName.COMMAND, command=("x",), engine_args={"a": 1}),
            "engine_args does not apply",
        ),
        (ModelSpec("m", ("m",), EngineName.VLLM, engine_args={"port": 1}), "port is set by the plan"),
        (ModelSpec("m", ("m",), EngineName.VLLM, engine_args={"api-key": "x"}), "api_keys_file"),
        (ModelSpec("m", ("m",), EngineName.VLLM, engine_args={"gpu_memory_utilization": 0.5}), "write vram:"),
        (ModelSpec("m", ("m",), EngineName.VLLM, engine_args={"max_num_seqs": 0}), "above 0"),
        (
            ModelSpec("m", ("m",), EngineName.VLLM, max_model_len=1, engine_args={"max_model_len": 2}),
            "given twice",
        ),
        (ModelSpec("m", ("m",), EngineName.SGLANG, engine_args={"tp": 2}), "gpu_count"),
        (ModelSpec("m", ("m",), EngineName.LLAMACPP, engine_args={"c": 2}), "max_model_len"),
        (ModelSpec("m", ("m",), EngineName.LLAMACPP, engine_args={"ngl": 2, "gpu_layers": 3}), "same flag"),
        (ModelSpec("m", ("m",), engine_args={"device": "cuda"}), "write gpus:"),
        (ModelSpec("m", ("m",), engine_args={"no_register": True}), "always register"),
    ],
)
def test_what_an_engine_cannot_do_is_said(model: ModelSpec, says: str) -> None:
    (problem,) = registry.get(model.engine).problems(model)
    assert says in problem


@pytest.mark.parametrize("engine", list(EngineName))
def test_no_secret_flag_and_no_host_but_loopback(engine: EngineName) -> None:
    words = argv(engine, facts=GGUF, command=("x", "--host", "{host}"))
    assert "127.0.0.1" in words
    assert not any("api-key" in word for word in words)


def test_mistrals_own_format_is_for_vllm() -> None:
    facts = replace(FACTS, format="mistral")
    assert registry.get("vllm").unsupported(facts, 1) == ""
    assert "needs engine: vllm" in registry.get("transformers").unsupported(facts, 1)
    assert "GGUF" in registry.get("llamacpp").unsupported(facts, 1)
