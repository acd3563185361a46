"""How much memory the KV cache may take, and how many rows and columns that makes."""

from __future__ import annotations

from typing import Any

import psutil
import torch

from llmlaunch.models.reading.layers import layer_caches
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.errors import StartupError
from llmlaunch.worker.kv.types import Capacity

CPU_SHARE = 0.25
"""Maximum fraction of the available memory for the KV cache, unless configured."""
GPU_SHARE = 0.9
"""Fraction of the memory left after loading, if the plan made no claim."""
GPU_RESERVE = 720 << 20
"""Bytes per GPU for the CUDA context and libraries, which PyTorch does not count: 612 MiB once CUDA has started and about
700 MiB under load, measured on an H200 with CUDA 13. The plan reserves the same (``engines.transformers``)."""
GRAPH_BYTES = 128 << 20
"""Bytes per GPU for CUDA graphs; the plan reserves the same (``engines.transformers``)."""
PROMPT_TOKENS = 2048
"""Maximum number of prompt tokens in one step; the plan assumes the same (``engines.types.MemoryRule``)."""
SHARING_ROWS = 8
SHARING_COLUMNS = 4096
"""Without a configured length, rows on a GPU are as long as memory allows for this many of them, but at least this long.
The plan assumes the same if the manifest sets neither (``engines.types.MemoryRule``)."""
MASK_ELEMENTS = 64 << 20
"""Maximum size of the attention mask of a prompt chunk on a GPU: its tokens times all tokens before them."""


def token_bytes(model: Any) -> int:
    """Bytes of KV cache per token, over all layers: rows keep every column also in layers with a window."""
    text = model.config.get_text_config()
    layers = layer_caches(text.to_dict() if hasattr(text, "to_dict") else vars(text))
    elements = sum(layer.count * layer.kv_heads * (layer.key_dim + layer.value_dim) for layer in layers)
    return max(1, elements * int(model.dtype.itemsize))


def prompt_tokens(device: str, context: int) -> int:
    """Maximum number of prompt tokens in one step."""
    return PROMPT_TOKENS if device == "cpu" else max(128, min(PROMPT_TOKENS, MASK_ELEMENTS // context))


def working_bytes(model: Any, rows: int, prompt: int, context: int) -> int:
    """Bytes that a step with ``prompt`` prompt tokens takes on one GPU, in addition to weights and KV cache.

    Activations and logits as the plan estimates them (``planning.estimate``), and the mask.
    """
    text = model.config.get_text_config()
    inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    size = model.dtype.itemsize
    activations = prompt * (4 * text.hidden_size + 2 * inner) * size
    return int(1.2 * (activations + rows * text.vocab_size * 12) + prompt * context * size)


def capacity(model: Any, config: WorkerConfig, device: str, context: int) -> tuple[Capacity, str]:
    """Rows and columns of the KV cache, and a description. Raises StartupError if not even one token fits."""
    each = token_bytes(model)
    working = working_bytes(model, config.max_concurrency, prompt_tokens(device, context), context)
    if config.cuda_graphs:
        working += GRAPH_BYTES
    room = config.kv_cache_bytes or (_cpu_room() if device == "cpu" else _gpu_room(config, working))
    tokens = room // each
    columns = min(context, tokens)
    rows = config.max_concurrency
    if device != "cpu":  # GPU memory is allocated up front, for every row
        if config.max_model_len is None:
            columns = _shared(tokens, columns, min(rows, SHARING_ROWS))
        rows = max(1, min(rows, tokens // max(1, columns)))
        tokens = rows * columns
    if columns < 1:
        raise StartupError(
            f"no memory is left for the KV cache: {room >> 20} MiB are free, one token takes {each} bytes",
            hint="give the worker more memory (vram in the manifest), or use a smaller model",
        )
    words = f"KV cache: {rows} rows of up to {columns} tokens, at most {tokens} in total ({tokens * each >> 20} MiB)"
    if columns < context:
        words += (
            f"; the model supports {context} tokens, memory allows {columns} "
            "(--max-model-len trades fewer rows for longer ones)"
        )
    return Capacity(rows=rows, columns=columns, tokens=min(tokens, rows * columns)), words


def _shared(tokens: int, columns: int, rows: int) -> int:
    """Columns of a row if no length is configured: as many as leave ``rows`` rows, but not too few."""
    return min(columns, max(tokens // rows, SHARING_COLUMNS))


def _cpu_room() -> int:
    return int(psutil.virtual_memory().available * CPU_SHARE)


def _gpu_room(config: WorkerConfig, working: int) -> int:
    """Bytes for the KV cache over all GPUs, limited by the plan's claim and by the fullest GPU."""
    count = torch.cuda.device_count()
    claim = config.vram_bytes // count if config.vram_bytes else None
    rooms = (
        room_within(free_on(index), torch.cuda.memory_reserved(index), claim, working)
        for index in range(count)
    )
    return min(rooms) * count


def integrated(index: int) -> bool:
    """Whether a GPU has no memory of its own and uses main memory (DGX Spark, Jetson)."""
    return bool(getattr(torch.cuda.get_device_properties(index), "is_integrated", False))


def free_on(index: int) -> int:
    """Bytes that can be allocated on a GPU now.

    Of main memory CUDA counts only what holds nothing. Pages of files, such as those of the weights that were just
    read, are given up for an allocation: MemAvailable counts them as well.
    """
    free, _ = torch.cuda.mem_get_info(index)
    return max(free, psutil.virtual_memory().available) if integrated(index) else free


def room_within(free: int, taken: int, claim: int | None, working: int) -> int:
    """Bytes for the KV cache on a GPU with ``free`` bytes, of which the loaded weights took ``taken``.

    ``claim``: what the plan reserves for this worker on the GPU; None: there is no plan. ``working``: what a step takes.
    """
    if claim is None:
        # The CUDA context exists already.
        return max(0, int((free - working) * GPU_SHARE))
    return max(0, min(free - working, claim - taken - GPU_RESERVE - working))
