"""The reference, the JSON Schema and the examples say what the code does."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
import yaml

from llmlaunch.errors import ManifestError
from llmlaunch.manifest.load import load, loads
from llmlaunch.manifest.schema import ApiPart, ControllerPart, ManifestPart, ModelPart, json_schema

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "deploy.yaml.example"
FILES = [EXAMPLE, *sorted((ROOT / "examples").glob("*.yaml"))]
VALIDATOR = jsonschema.Draft202012Validator(json_schema())


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_manifest", ROOT / "docs" / "make_manifest.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_and_the_schema_are_current(maker: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "docs" / "reference").mkdir(parents=True)
    maker.write(tmp_path)
    for name in (maker.REFERENCE, maker.SCHEMA):
        assert (ROOT / name).read_text() == (tmp_path / name).read_text(), f"{name} is old: make docs"


def test_the_reference_has_every_key() -> None:
    text = (ROOT / "docs" / "reference" / "manifest.md").read_text()
    for part in (ManifestPart, ModelPart, ApiPart, ControllerPart):
        for key in part.model_fields:
            assert f"| `{key}` |" in text


def test_the_manifests_in_the_reference_hold() -> None:
    text = (ROOT / "docs" / "reference" / "manifest.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    right = [block for block in blocks if "models:" in block and "vlm" not in block]
    assert right
    for block in right:
        loads(block, env={})
    rows = re.findall(r"^\| `([^`]*)`(?: or `([^`]*)`)? \| `(\{model: [^`]*\})` \|$", text, re.MULTILINE)
    assert len(rows) == 4
    for short, other, long in rows:
        specs = [
            loads(f"models: [{entry}]", env={}).models[0]
            for entry in (json.dumps(short), json.dumps(other or short), long)
        ]
        assert specs[0].position == specs[2].position
        assert specs[0] == specs[1] == specs[2]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_examples_hold(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    found = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert found, "the editor modeline comes first"
    assert (path.parent / found[1]).resolve() == ROOT / "docs" / "manifest.schema.json"
    assert load(path, {}).models
    VALIDATOR.validate(yaml.safe_load(path.read_text()))


def test_the_example_file_mentions_every_key() -> None:
    data = yaml.safe_load(EXAMPLE.read_text())
    models = [model for model in data["models"] if isinstance(model, dict)]
    assert set(data) == set(ManifestPart.model_fields)
    assert set(data["api"]) == set(ApiPart.model_fields)
    assert set(data["controller"]) == set(ControllerPart.model_fields)
    assert set().union(*models) == set(ModelPart.model_fields)
    assert len(models) < len(data["models"]), "one in the short form"


# --- the JSON Schema, as an editor uses it


def properties(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for shape in (schema, *schema["$defs"].values()):
        yield from shape["properties"].items()


def test_the_schema_is_one_and_describes_every_key() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for key, value in properties(schema):
        assert value.get("description"), key
        if "$ref" not in value and key != "models":
            assert value.get("examples"), key
        for example in value.get("examples", []):
            VALIDATOR.evolve(schema=value | {"$defs": schema["$defs"]}).validate(example)
    for shape in (schema, *schema["$defs"].values()):
        assert shape["additionalProperties"] is False


@pytest.mark.parametrize(
    "text",
    [
        "models: [a, 'b@h@1@cpu']",
        "models: [{model: '${M}', port: '${PORT}', replicas: '${N:-2}', trust_remote_code: '${T}', engine: '${E}', gpus: '${G}'}]",
        "models: [a]\napi: {port: '${PORT}', max_body: '${B}'}\nname: '${NAME}'\ncontroller: {dispatch: '${D}'}",
        "models: [{model: a, names: b, gpus: [0, GPU-x], vram: 3, stop_grace: 1.5, env: {A: 1, B: true, C: x, D: null}}]",
    ],
)
def test_an_editor_takes(text: str) -> None:
    VALIDATOR.validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "models: []",
        "models: a",
        "models: [3]",
        "models: [{names: a}]",
        "models: [{model: a, nonsense: 1}]",
        "models: [{model: a, port: 0}]",
        "models: [{model: a, port: '8000'}]",
        "models: [{model: a, replicas: 1.5}]",
        "models: [{model: a, engine: vlm}]",
        "models: [{model: a, trust_remote_code: 'yes'}]",
        "models: [{model: a, gpus: []}]",
        "models: [{model: a, gpu_count: 0}]",
        "models: [{model: a, env: {1x: a}}]",
        "models: [a]\ndefaults: {names: b}",
        "models: [a]\napi: {prot: 1}",
        "models: [a]\nruntime: ray",
        "models: [a]\nname: My Lab",
    ],
)
def test_an_editor_and_the_loader_refuse(text: str) -> None:
    assert not VALIDATOR.is_valid(yaml.safe_load(text))
    with pytest.raises(ManifestError):
        loads(text, env={})
