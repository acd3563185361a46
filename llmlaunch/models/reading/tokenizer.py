"""Whether a model's folder has a tokenizer, as far as file names tell."""

from __future__ import annotations

from pathlib import Path

_PATTERNS = ("*token*", "vocab*", "*.model", "*.spm", "*.bpe.*", "*.tiktoken", "merges.txt", "tekken.json")
"""What tokenizers of transformers, sentencepiece, tiktoken and mistral-common are called, custom code included."""


def has_tokenizer(folder: Path) -> bool:
    """False only for a folder in which nothing looks like one. Raises OSError for one that cannot be read."""
    return any(any(folder.glob(pattern)) for pattern in _PATTERNS)
