"""The kinds of value a manifest holds: how each is checked, and what an editor is told about it."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from llmlaunch.common.deployment_name import PATTERN, RULE, is_deployment_name
from llmlaunch.manifest import devices, resolve, sizes
from llmlaunch.manifest.types import Restarts
from llmlaunch.manifest.yaml_scalars import FilledText, typed

_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?")
_PATH = re.compile(r"/\S*")
_RESTART_EXPECTED = "never, or {max: 3, delay: 60s}, or one of the two"
_MOST_RESTARTS = 1000
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ENV_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*?|\*")


def wrong(
    predicate: str, expected: str = "", *, choices: tuple[str, ...] = (), index: int | None = None
) -> PydanticCustomError:
    """An error that ``error_messages`` completes to a sentence: "KEY is VALUE, which" + ``predicate``.

    ``choices`` may hold the nearest spelling; ``index`` is the place in a list of the item that is wrong.
    """
    # The text goes in as context: pydantic would read braces in it as its own placeholders.
    context = {"predicate": predicate, "expected": expected, "choices": choices, "index": index}
    return PydanticCustomError("manifest", "{predicate}", context)


def _retyped(value: object) -> object:
    """``"${PORT}"`` is a number where a number belongs: inside [ ] and { } YAML forces the quotes."""
    return typed(str(value)) if isinstance(value, FilledText) else value


def _size(value: object) -> int:
    try:
        return sizes.parse_size(value)
    except ValueError as error:
        raise wrong("is not a valid size", str(error)) from None


def _vram(value: object) -> int:
    size = _size(value)
    if size < 1 << 20:
        # Most likely the unit was forgotten: 18 is meant as 18GiB, and would be 18 bytes.
        raise wrong(
            "is less than any model needs: a bare number is bytes", "a size with its unit, such as 18GiB"
        )
    return size


def _log_size(value: object) -> int:
    size = _size(value)
    if size < 4 << 10:
        raise wrong("is too small for a log: a bare number is bytes", "a size with its unit, such as 50MiB")
    return size


def _duration(value: object) -> float:
    try:
        return sizes.parse_duration(value)
    except ValueError as error:
        raise wrong("is not a valid duration", str(error)) from None


def _patience(value: object) -> float:
    seconds = _duration(value)
    if seconds <= 0:
        raise wrong("is not longer than 0", sizes.DURATION_EXPECTED)
    return seconds


def _probe(value: object) -> object:
    """The path; empty for ``none``."""
    if value == "none":
        return ""
    if isinstance(value, str) and not _PATH.fullmatch(value):
        raise wrong(
            "is not valid here", "a path that starts with / and has no spaces, or none", choices=("none",)
        )
    return value


def _restart(value: object) -> Restarts:
    if value == "never":
        return Restarts(max=0)
    if not isinstance(value, dict):
        raise wrong("is not known", _RESTART_EXPECTED, choices=("never",))
    if unknown := [str(key) for key in value if key not in ("max", "delay")]:
        raise wrong(f"has the unknown key {unknown[0]!r}", _RESTART_EXPECTED)
    most, delay = _retyped(value.get("max")), value.get("delay")
    if most is not None and (
        isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= _MOST_RESTARTS
    ):
        raise wrong("needs max to be a whole number from 1 to 1000", "max: 3, or restart: never")
    try:
        return Restarts(most, None if delay is None else _patience(delay))
    except PydanticCustomError:
        raise wrong("needs delay to be a duration longer than 0", sizes.DURATION_EXPECTED) from None


def _gpus(value: object) -> object:
    value = _retyped(value)
    try:
        devices.parse_gpus(value)
    except devices.DeviceError as error:
        raise wrong(str(error), devices.EXPECTED, choices=("auto", "cpu"), index=error.index) from None
    return value


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _host(value: object) -> object:
    if not isinstance(value, str):
        return value
    bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        if re.fullmatch(r"(\[.*\]|[^:]+):[0-9]+", value):
            raise wrong("contains a port", "the host alone; port is a key of its own") from None
        if not _HOST.fullmatch(value) or re.fullmatch(r"[0-9.]+", value):
            raise wrong(
                "is not a valid host", "a host name, or an address such as 127.0.0.1 or ::1"
            ) from None
    return bare


def _network(value: object) -> object:
    if isinstance(value, str):
        try:
            ipaddress.ip_network(value, strict=False)
        except ValueError:
            raise wrong("is not an address or a network", "10.0.0.7, 10.0.0.0/8 or fd00::/8") from None
    return value


def _known_host(value: object) -> object:
    return value if value == "*" else _host(value)


def _served(value: object) -> object:
    if isinstance(value, str) and not resolve.is_served_name(value):
        raise wrong("is not a valid model name", "text without commas or line breaks, not empty")
    return value


def _deployment(value: object) -> object:
    if isinstance(value, str) and not is_deployment_name(value):
        raise wrong("is not a valid deployment name", RULE)
    return value


def _env_name(value: object) -> object:
    if isinstance(value, str) and not _ENV_NAME.fullmatch(value):
        raise wrong(
            "is not a valid environment variable name", "letters, digits and _, not starting with a digit"
        )
    return value


def _env_pattern(value: object) -> object:
    if isinstance(value, str) and not _ENV_PATTERN.fullmatch(value):
        raise wrong(
            "is not a valid name or prefix of environment variables",
            "a name, or the beginning of one and *, such as AWS_*",
        )
    return value


def _env_value(value: object) -> object:
    if isinstance(value, dict | list):
        raise wrong("cannot be the value of an environment variable", "one value")
    return value


_TEXT = {"type": "string"}
Text = Annotated[str, Field(min_length=1)]
RETYPED = BeforeValidator(_retyped)
"""After the bounds in an annotation: pydantic leaves bounds on a validator out of the JSON Schema."""
Flag = Annotated[bool, RETYPED]
Port = Annotated[int, Field(ge=1, le=65535), RETYPED]
Replicas = Annotated[int, Field(ge=1, le=1024), RETYPED]
GpuCount = Annotated[int, Field(ge=1, le=64), RETYPED]
Concurrency = Annotated[int, Field(ge=1, le=100_000), RETYPED]
Processes = Annotated[int, Field(ge=1, le=64), RETYPED]
Tokens = Annotated[int, Field(ge=1, le=1 << 30), RETYPED]
Size = Annotated[
    int, BeforeValidator(_size), WithJsonSchema({"type": ["string", "integer"], "format": "size"})
]
Vram = Annotated[
    int, BeforeValidator(_vram), WithJsonSchema({"type": ["string", "integer"], "format": "size"})
]
LogSize = Annotated[
    int, BeforeValidator(_log_size), WithJsonSchema({"type": ["string", "integer"], "format": "size"})
]
LogFiles = Annotated[int, Field(ge=1, le=1000), RETYPED]
_DURATION_SCHEMA = WithJsonSchema({"type": ["string", "number"], "format": "duration"})
Duration = Annotated[float, BeforeValidator(_duration), _DURATION_SCHEMA]
Patience = Annotated[float, BeforeValidator(_patience), _DURATION_SCHEMA]
Host = Annotated[str, BeforeValidator(_host)]
DeploymentName = Annotated[
    str, BeforeValidator(_deployment), WithJsonSchema(_TEXT | {"pattern": f"^{PATTERN}$"})
]
Variable = Annotated[str, Field(pattern=rf"^{_ENV_NAME.pattern}$")]
"""The name of an environment variable."""
Probe = Annotated[
    str,
    BeforeValidator(_probe),
    WithJsonSchema({"anyOf": [{"const": "none"}, _TEXT | {"pattern": r"^/\S*$"}]}),
]
ProbeFailures = Annotated[int, Field(ge=1, le=1000), RETYPED]
Restart = Annotated[
    Restarts,
    BeforeValidator(_restart),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": "never"},
                {
                    "type": "object",
                    "properties": {
                        "max": {"type": "integer", "minimum": 1, "maximum": 1000},
                        "delay": {"type": ["string", "number"], "format": "duration"},
                    },
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
Gpus = Annotated[
    Any,
    BeforeValidator(_gpus),
    WithJsonSchema(
        {
            "anyOf": [
                _TEXT,
                {"type": "integer", "minimum": 0},
                {"type": "array", "minItems": 1, "items": {"type": ["integer", "string"]}},
            ]
        }
    ),
]
Names = Annotated[
    list[Annotated[str, BeforeValidator(_served)]],
    BeforeValidator(_one_or_many),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]}),
]
Texts = Annotated[
    list[Text],
    BeforeValidator(_one_or_many),
    WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}),
]
Networks = Annotated[
    list[Annotated[str, BeforeValidator(_network)]],
    BeforeValidator(_one_or_many),
    WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}),
]
"""IP addresses, and networks in CIDR notation."""
Hosts = Annotated[
    list[Annotated[str, BeforeValidator(_known_host)]],
    BeforeValidator(_one_or_many),
    WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}),
]
"""Names or addresses, or * for any."""
EnvPatterns = Annotated[
    list[Annotated[str, BeforeValidator(_env_pattern)]],
    BeforeValidator(_one_or_many),
    WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}),
]
"""Names of environment variables, or how they begin."""
Environment = Annotated[
    dict[Annotated[str, BeforeValidator(_env_name)], Annotated[Any, BeforeValidator(_env_value)]],
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"pattern": f"^{_ENV_NAME.pattern}$"},
            "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
        }
    ),
]
