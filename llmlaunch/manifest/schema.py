"""The manifest's shape, as pydantic models: they check values, and the JSON Schema for editors comes from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from llmlaunch.manifest.types import DEFAULT_HOST
from llmlaunch.manifest.values import (
    DeploymentName,
    Duration,
    Environment,
    Flag,
    Gpus,
    Host,
    Names,
    Patience,
    Port,
    ProbePath,
    Size,
    Text,
    Texts,
    Variable,
    Whole,
)

SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"
_FILLED_IN = {"type": "string", "pattern": r"\$\{[A-Za-z_]"}
"""What an editor sees where the loader will see a variable's value."""


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class ControllerPart(Part):
    host: Host = DEFAULT_HOST
    """Where the controller listens."""
    port: Port | None = None
    """Its port. Left out: 21001, or the next free one."""
    dispatch: Literal["shortest_queue", "lottery"] = "shortest_queue"
    """How a replica is chosen: shortest_queue takes the least busy one, lottery draws by speed."""
    open_registration: Flag = False
    """Let workers register that do not have this deployment's token (ones that you start by hand)."""


class ApiPart(Part):
    host: Host = DEFAULT_HOST
    """Where the endpoint listens; 0.0.0.0 or :: for every address of this machine."""
    port: Port | None = None
    """Its port. Left out: 8000, or the next free one."""
    api_keys_file: Text | None = None
    """A file with one key a line, `name: key` or the bare key. Clients must then send one. It is read again when it changes."""
    api_keys_env: Variable | None = None
    """Name of an environment variable that holds keys, separated by commas."""
    max_body: Size = 32 << 20
    """The largest request body that is accepted."""
    cors_origins: Texts = Field(default_factory=list)
    """Web origins whose pages may call the endpoint, such as https://chat.example.org, or "*"."""


class Settings(Part):
    """What may stand under `defaults` and in every model."""

    engine: Literal["transformers", "vllm", "sglang", "llamacpp", "command"] = "transformers"
    """What serves it: transformers (built in), vllm, sglang, llamacpp (when installed), or command (any server)."""
    host: Host = DEFAULT_HOST
    """The machine and address its replicas listen on."""
    gpus: Gpus = "auto"
    """auto (by free VRAM), cpu, or devices by index or UUID: 0, [0, 1], GPU-…, MIG-…. A number of devices is gpu_count."""
    gpu_count: Annotated[Whole, Field(ge=1, le=64)] | None = None
    """With gpus: auto, how many GPUs one replica needs (tensor parallel)."""
    replicas: Annotated[Whole, Field(ge=1, le=1024)] = 1
    """How many processes serve it."""
    vram: Size | None = None
    """A replica's total over its GPUs, split evenly. Left out: estimated from the model's files, then measured."""
    engine_args: dict[str, Any] = Field(default_factory=dict)
    """Handed to the engine as its own flags: max_num_seqs: 64 becomes --max-num-seqs 64. Added to those under `defaults`."""
    env: Environment = Field(default_factory=dict)
    """Environment variables of its processes, as text. They are added to those under `defaults`. A value from ${VAR} is never shown."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """The type of the weights in memory."""
    revision: Text | None = None
    """Branch, tag or commit of a model from a hub."""
    source: Literal["auto", "huggingface", "modelscope"] = "auto"
    """The hub a model id is looked up on."""
    trust_remote_code: Flag = False
    """Run code that comes with the model. Only for models you trust."""
    max_concurrency: Annotated[Whole, Field(ge=1, le=100_000)] | None = None
    """Requests that one replica works on at a time; more wait, then get 429."""
    max_model_len: Annotated[Whole, Field(ge=1, le=1 << 31)] | None = None
    """Tokens of context. Left out: the model's own, as far as memory allows."""
    probe: ProbePath | None = None
    """Path that answers 200 when a replica is ready. Left out: the engine's own; /health for command."""
    start_timeout: Patience | None = None
    """Time without any progress after which a start has failed."""
    stop_grace: Duration = 10.0
    """Time from asking a replica to end until it is killed."""


class ModelPart(Settings):
    """One model. A line of text is the short form: model[@host[@port[@gpus]]]."""

    model: Text
    """Local folder, GGUF file, package://MODULE[/path] inside an installed package, or a hub's id. For engine: command just a label."""
    names: Names | None = None
    """What clients ask for. Left out: the last part of `model`."""
    port: Port | None = None
    """Port of the first replica; the others take the ones after it, as far as they are free. Left out: the next free one from 21002 up."""
    command: Annotated[list[str], Field(min_length=1)] | None = None
    """With engine: command, the words to run; {host}, {port}, {model}, {name} and {names} are filled in."""


class DefaultsPart(Settings):
    """Values for every model that does not say otherwise."""


class ManifestPart(Part):
    """A llmlaunch manifest: what to serve, and where."""

    models: list[ModelPart | str] = Field(min_length=1)
    """What to serve, at least one. A line of text is the short form."""
    name: DeploymentName | None = None
    """The deployment's name. Left out: the file's name without its ending."""
    runtime: Literal["local"] = "local"
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
    """``shape`` with ``${VAR}`` as an alternative, unless it is a mapping or takes any text anyhow."""
    about = {key: shape[key] for key in ("description", "default", "examples") if key in shape}
    checks = {key: value for key, value in shape.items() if key not in about}
    choices = checks["anyOf"] if list(checks) == ["anyOf"] else [checks]
    if any(_takes_it(choice) for choice in choices):
        return shape
    return {"anyOf": [*choices, _FILLED_IN]} | about


def _takes_it(choice: dict[str, Any]) -> bool:
    kind = choice.get("type")
    any_text = "string" in kind if isinstance(kind, list) else choice == {"type": "string"}
    return any_text or "$ref" in choice or kind == "object"
