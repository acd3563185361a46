"""What to write instead of addresses and of other programs' names."""

from __future__ import annotations

import pytest

from llmlaunch.models.sources.misspelt import meant


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        ("https://huggingface.co/Qwen/Qwen2.5-0.5B-Instruct", "write Qwen/Qwen2.5-0.5B-Instruct"),
        ("https://huggingface.co/Qwen/Qwen2.5-0.5B-Instruct/tree/main", "write Qwen/Qwen2.5-0.5B-Instruct"),
        ("https://huggingface.co/o/m-GGUF/resolve/main/q4/m.gguf?download=true", "write o/m-GGUF/q4/m.gguf"),
        ("http://hf.co/o/m", "write o/m"),
        ("huggingface.co/o/m", "write o/m"),
        ("hf.co/o/m-GGUF:Q4_K_M", "write o/m-GGUF:Q4_K_M"),
        ("hf://o/m", "write o/m"),
        ("https://modelscope.cn/models/o/m", "write o/m and source: modelscope"),
        (
            "https://example.com/models/x.gguf",
            "write a hub id (org/name), or download it and name its folder or .gguf file",
        ),
        ("s3://bucket/model", "write a hub id (org/name), or download it and name its folder or .gguf file"),
        (
            "https://huggingface.co",
            "write a hub id (org/name), or download it and name its folder or .gguf file",
        ),
        ("file:///models/my%20model", "write /models/my model"),
        ("o/m", ""),
        ("./models/x", ""),
        ("m", ""),
        ("/a/b:c", ""),
    ],
)
def test_what_to_write(model: str, hint: str) -> None:
    assert meant(model)[1] == hint


@pytest.mark.parametrize("model", ["qwen2.5:0.5b", "llama3:latest"])
def test_names_of_ollama(model: str) -> None:
    what, hint = meant(model)
    assert what == "a name of Ollama's"
    assert "ollama show --modelfile" in hint
