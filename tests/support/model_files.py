"""Tiny model files, written by hand: safetensors and GGUF headers with zeros behind them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I32": 4, "U8": 1, "I8": 1, "F8_E4M3": 1}
LLAMA_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16, "intermediate_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 64,
    "max_position_embeddings": 128, "torch_dtype": "bfloat16",
}  # fmt: skip
Tensors = Mapping[str, tuple[str, Sequence[int]]]
"""Name: (safetensors dtype, shape)."""


def safetensors(tensors: Tensors) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, (dtype, shape) in tensors.items():
        size = BYTES[dtype]
        for n in shape:
            size *= n
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(position)


def llama_folder(folder: Path, **config: Any) -> Path:
    """A folder that looks like a model of 2 layers: 64·16 embeddings in bfloat16, a norm in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**LLAMA_CONFIG, **config}))
    (folder / "tokenizer.json").write_text("{}")
    weights = safetensors({"embed.weight": ("BF16", (64, 16)), "norm.weight": ("F32", (16,))})
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def sharded_folder(folder: Path, **config: Any) -> Path:
    """The same, with its two tensors in two files and an index."""
    llama_folder(folder, **config)
    (folder / "model.safetensors").unlink()
    parts: dict[str, Tensors] = {
        "model-00001-of-00002.safetensors": {"embed.weight": ("BF16", (64, 16))},
        "model-00002-of-00002.safetensors": {"norm.weight": ("F32", (16,))},
    }
    weight_map = {}
    for name, tensors in parts.items():
        (folder / name).write_bytes(safetensors(tensors))
        weight_map.update(dict.fromkeys(tensors, name))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def _gguf_value(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _gguf_string(value)
    kind = _gguf_value(value[0])[:4]
    return (
        struct.pack("<I", 9)
        + kind
        + struct.pack("<Q", len(value))
        + b"".join(_gguf_value(v)[4:] for v in value)
    )


def _gguf_string(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf(
    metadata: Mapping[str, Any], tensors: Mapping[str, tuple[int, Sequence[int], int]] | None = None
) -> bytes:
    """A GGUF file; tensors are name: (ggml type, shape, bytes)."""
    tensors = tensors if tensors is not None else {"token_embd.weight": (3, (32, 64), 64 * 20)}
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        head += _gguf_string(key) + _gguf_value(value)
    position = 0
    for name, (kind, shape, size) in tensors.items():
        head += _gguf_string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", kind, position)
        position += -(-size // 32) * 32
    return head + bytes(-len(head) % 32) + bytes(position)


GGUF_LLAMA: dict[str, Any] = {
    "general.architecture": "llama", "general.file_type": 3, "llama.block_count": 2, "llama.embedding_length": 32,
    "llama.feed_forward_length": 64, "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2,
    "llama.context_length": 256, "tokenizer.ggml.tokens": ["a", "b", "c"], "general.name": "tiny",
}  # fmt: skip
