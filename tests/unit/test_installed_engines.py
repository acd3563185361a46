"""What can be run for ``engine: auto``, with packages that hold nothing but what is read."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from llmlaunch.installed_engines import find_engines
from llmlaunch.manifest.types import EngineName, Manifest, ModelSpec
from llmlaunch.models.facts import ModelFacts, ModelKind

FACTS = ModelFacts("m", "/m", True, "safetensors", architecture="LlamaForCausalLM")
GGUF = ModelFacts("m", "/m.gguf", True, "gguf")
REGISTRY = """
_TEXT_GENERATION_MODELS = {
    # [Decoder-only]
    "LlamaForCausalLM": ("llama", "LlamaForCausalLM"),
    "InternVLChatModel": (
        "internvl",
        "InternVLChatModel",
    ),
}
ERRORS = {"NotOne": "text"}
raise RuntimeError("this module is read, not run")
"""


def venv(folder: Path, *packages: str) -> Path:
    """An environment whose packages hold what is looked for, and fail when they are imported."""
    place = folder / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    for name in packages:
        (place / name).mkdir(parents=True)
        (place / name / "__init__.py").write_text("raise RuntimeError('imported')")
        (place / f"{name}-1.2.dist-info").mkdir()
        (place / f"{name}-1.2.dist-info/METADATA").write_text(f"Name: {name}\nVersion: 1.2\n")
    models = place / "vllm/model_executor/models"
    if "vllm" in packages:
        models.mkdir(parents=True)
        (models / "registry.py").write_text(REGISTRY)
    if "sglang" in packages:
        (place / "sglang/srt/models").mkdir(parents=True)
        (place / "sglang/srt/models/llama.py").write_text(
            "EntryClass = [\n    LlamaForCausalLM,  # and\n    Phi3ForCausalLM,\n]\n"
        )
        (place / "sglang/srt/models/qwen3.py").write_text("EntryClass = Qwen3ForCausalLM\n")
    program = os.path.realpath(sys.executable)
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    (folder / "bin/python").symlink_to(program)
    (folder / "bin/python3").symlink_to(program)
    (folder / "pyvenv.cfg").write_text(f"home = {Path(program).parent}\n")
    return folder


def script(place: Path, first: str = "#!/bin/sh") -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"{first}\n")
    place.chmod(0o755)
    return place


def found(
    facts: ModelFacts = FACTS, path: str = "/nowhere", gpus: bool = True, **changes: Any
) -> dict[str, tuple[str, list[str] | None]]:
    model = ModelSpec("m", ("m",), EngineName.AUTO, **changes)
    engines = find_engines(Manifest("lab", (model,)), {"m": facts}, {"PATH": path}, gpus=gpus)["m"]
    return {
        name.value: (engine.where, None if engine.architectures is None else sorted(engine.architectures))
        for name, engine in engines.items()
    }


def test_the_environment_that_the_manifest_names(tmp_path: Path) -> None:
    python = str(venv(tmp_path / "a venv", "vllm", "sglang") / "bin/python")
    assert found(python=python) == {
        "vllm": (f"vLLM 1.2 in {python}", ["InternVLChatModel", "LlamaForCausalLM"]),
        "sglang": (f"SGLang 1.2 in {python}", ["LlamaForCausalLM", "Phi3ForCausalLM", "Qwen3ForCausalLM"]),
    }
    with_ours = str(venv(tmp_path / "ours", "llmlaunch", "xllamacpp") / "bin/python")
    assert found(python=with_ours) == {"transformers": ("the built-in engine", None)}
    assert found(GGUF, python=with_ours)["llamacpp"] == (f"xllamacpp 1.2 in {with_ours}", None)
    assert found(python=str(tmp_path / "gone/bin/python")) == {}


@pytest.mark.parametrize("first", ["#!{python}", '#!/bin/sh\n\'\'\'exec\' "{python}" "$0" "$@"'])
def test_vllm_on_path_is_the_one_of_its_script(tmp_path: Path, first: str) -> None:
    home = venv(tmp_path / "v", "vllm")
    script(home / "bin/vllm", first.format(python=home / "bin/python"))
    for place in ({"path": f"{home}/bin"}, {"env": {"PATH": f"/x:{home}/bin"}}):
        assert found(**place)["vllm"][0] == f"vLLM 1.2 in {home}/bin/python"


def test_a_vllm_whose_architectures_cannot_be_read_is_none(tmp_path: Path) -> None:
    script(tmp_path / "vllm", "#!/bin/bash\nexec docker run vllm")
    assert found(path=str(tmp_path)) == {}


def test_sglang_of_a_path_under_env(tmp_path: Path) -> None:
    home = venv(tmp_path / "s", "sglang")
    assert found(env={"PATH": f"{home}/bin"})["sglang"][0] == f"SGLang 1.2 in {home}/bin/python3"
    assert found(path=f"{home}/bin") == {}, "the shell's PATH does not name SGLang's Python"


def test_llama_server(tmp_path: Path) -> None:
    server = str(script(tmp_path / "llama-server"))
    assert found(GGUF, str(tmp_path)) == {"llamacpp": (server, None)}
    assert found(GGUF, str(tmp_path), gpus=False) == {"llamacpp": (server, None)}


def test_nothing_is_looked_for_that_the_rules_would_not_take(tmp_path: Path) -> None:
    home = venv(tmp_path / "v", "vllm")
    script(home / "bin/vllm", f"#!{home}/bin/python")
    path = f"{home}/bin"
    assert "vllm" in found(path=path)
    assert found(path=path, gpus=False) == {}
    assert found(ModelFacts("m", "/m", True, "safetensors", kind=ModelKind.EMBED), path) == {}
    named = Manifest("lab", (ModelSpec("m", ("m",), EngineName.VLLM),))
    assert find_engines(named, {"m": FACTS}, {"PATH": path}, gpus=True) == {}
