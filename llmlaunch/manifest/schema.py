"""The manifest's shape, as pydantic models: they check values, and the JSON Schema for editors comes from them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from llmlaunch.manifest import devices, sizes
from llmlaunch.manifest.types import DEFAULT_HOST

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"


def _custom(message: str, expected: str = "") -> PydanticCustomError:
    # The text goes in as context: pydantic would read braces in it as its own placeholders.
    return PydanticCustomError("manifest", "{message}", {"message": message, "expected": expected})


def _size(value: object) -> int:
    try:
        return sizes.parse_size(value)
    except ValueError as error:
        raise _custom("is no size", str(error)) from None


def _duration(value: object) -> float:
    try:
        return sizes.parse_duration(value)
    except ValueError as error:
        raise _custom("is no duration", str(error)) from None


def _gpus(value: object) -> object:
    try:
        devices.parse_gpus(value)
    except ValueError as error:
        raise _custom(f": {error}", devices.EXPECTED) from None
    return value


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _word(value: object) -> object:
    if isinstance(value, str) and (not value or re.search(r"\s|[\x00-\x1f]", value)):
        raise _custom("is empty or has spaces in it", "a host name or an address")
    return value[1:-1] if isinstance(value, str) and value.startswith("[") and value.endswith("]") else value


def _served(value: object) -> object:
    if isinstance(value, str) and (not value.strip() or any(c in value for c in ",\n\r\t\x00")):
        raise _custom("is no name for a model", "text without commas or line breaks, not empty")
    return value


def _name(value: object) -> object:
    if isinstance(value, str) and not NAME.fullmatch(value):
        raise _custom(
            "is no name for a deployment",
            "small letters, digits, '.', '_' and '-', at most 63, a letter or digit first",
        )
    return value


def _environment(value: object) -> object:
    if isinstance(value, dict):
        for key in value:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
                raise _custom(f"has the key {key!r}", "names of environment variables: letters, digits and _")
    return value


_SIZE_SCHEMA = WithJsonSchema({"type": ["string", "integer"], "examples": ["18GiB", "512MB"]})
_DURATION_SCHEMA = WithJsonSchema({"type": ["string", "number"], "examples": ["90s", "5m"]})
Size = Annotated[int, BeforeValidator(_size), _SIZE_SCHEMA]
Duration = Annotated[float, BeforeValidator(_duration), _DURATION_SCHEMA]
Port = Annotated[int, Field(ge=1, le=65535)]
Host = Annotated[str, BeforeValidator(_word)]
Text = Annotated[str, Field(min_length=1)]
Gpus = Annotated[
    Any,
    BeforeValidator(_gpus),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "examples": ["auto", "cpu", "GPU-…", "0,1"]},
                {"type": "integer", "minimum": 0},
                {"type": "array", "minItems": 1, "items": {"type": ["integer", "string"]}},
            ]
        }
    ),
]
ServedName = Annotated[str, BeforeValidator(_served)]
Names = Annotated[
    list[ServedName],
    BeforeValidator(_one_or_many),
    Field(min_length=1),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    ),
]
Environment = Annotated[dict[str, str | int | float | bool | None], BeforeValidator(_environment)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class ControllerPart(Part):
    host: Host = DEFAULT_HOST
    """Where the controller listens."""
    port: Port | None = None
    """Its port. Left out: 21001, or the next free one."""
    dispatch: Literal["shortest_queue", "lottery"] = "shortest_queue"
    """How a replica is chosen: shortest_queue takes the least busy one, lottery draws by speed."""
    open_registration: bool = False
    """Let workers register that do not have this deployment's token (ones that you start by hand)."""


class ApiPart(Part):
    host: Host = DEFAULT_HOST
    """Where the endpoint listens; 0.0.0.0 or :: for every address of this machine."""
    port: Port | None = None
    """Its port. Left out: 8000, or the next free one."""
    api_keys_file: Text | None = None
    """A file with one key a line, `name: key` or the bare key. Clients must then send one. It is read again when it changes."""
    api_keys_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """Name of an environment variable that holds keys, separated by commas."""
    max_body: Size = 32 << 20
    """The largest request body that is accepted."""
    cors_origins: Annotated[list[Text], BeforeValidator(_one_or_many)] = Field(default_factory=list)
    """Web origins whose pages may call the endpoint, such as https://chat.example.org, or "*"."""


class Settings(Part):
    """What may stand under `defaults` and in every model."""

    engine: Literal["transformers", "vllm", "sglang", "llamacpp", "command"] = "transformers"
    """What serves it: transformers (built in), vllm, sglang, llamacpp (when installed), or command (any server)."""
    host: Host = DEFAULT_HOST
    """The machine and address its replicas listen on."""
    gpus: Gpus = "auto"
    """auto (by free VRAM), cpu, or devices by index or UUID: 0, [0, 1], GPU-…, MIG-…. A number of devices is gpu_count."""
    gpu_count: Annotated[int, Field(ge=1, le=64)] | None = None
    """With gpus: auto, how many GPUs one replica needs (tensor parallel)."""
    replicas: Annotated[int, Field(ge=1, le=1024)] = 1
    """How many processes serve it."""
    vram: Size | None = None
    """A replica's total over its GPUs, split evenly. Left out: estimated from the model's files, then measured."""
    engine_args: dict[str, Any] = Field(default_factory=dict)
    """Handed to the engine as its own flags: max_num_seqs: 64 becomes --max-num-seqs 64."""
    env: Environment = Field(default_factory=dict)
    """Environment variables of its processes. A value from ${VAR} is never shown."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """The type of the weights in memory."""
    revision: Text | None = None
    """Branch, tag or commit of a model from a hub."""
    source: Literal["auto", "huggingface", "modelscope"] = "auto"
    """The hub a model id is looked up on."""
    trust_remote_code: bool = False
    """Run code that comes with the model. Only for models you trust."""
    max_concurrency: Annotated[int, Field(ge=1)] | None = None
    """Requests that one replica works on at a time; more wait, then get 429."""
    max_model_len: Annotated[int, Field(ge=1)] | None = None
    """Tokens of context. Left out: the model's own, as far as memory allows."""
    probe: Annotated[str, Field(pattern="^/")] | None = None
    """Path that answers 200 when a replica is ready. Left out: the engine's own; /health for command."""
    start_timeout: Duration | None = None
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
    """Port of the first replica; the others take the ones after it. Left out: the next free one from 21002 up."""
    command: Annotated[list[str], Field(min_length=1)] | None = None
    """With engine: command, the words to run; {host}, {port}, {model}, {name} and {names} are filled in."""


class DefaultsPart(Settings):
    """Values for every model that does not say otherwise."""


class ManifestPart(Part):
    """A llmlaunch manifest: what to serve, and where."""

    models: list[ModelPart | str] = Field(min_length=1)
    """What to serve, at least one. A line of text is the short form."""
    name: Annotated[str, BeforeValidator(_name)] | None = None
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
    """The manifest's JSON Schema (draft 2020-12), for editors."""
    schema = ManifestPart.model_json_schema()
    _drop_titles(schema)
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
