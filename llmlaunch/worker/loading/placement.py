"""Which device a worker computes on, with how many threads, and how much memory it may take for keys and values."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import psutil
import torch

from llmlaunch.worker.compute.thread_count import Share
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.engine.scheduler import Capacity
from llmlaunch.worker.errors import CanNotGoOn, CanNotServe, first_line

log = logging.getLogger(__name__)

CPU_SHARE = 0.25
"""Of the memory that is available: the most that keys and values may take, unless told otherwise."""
GPU_SHARE = 0.9
"""Of the memory that is left after loading, when no claim was planned."""
OFFLOAD_SHARE = 0.7
"""Of a GPU that shares a model with main memory: for weights. The rest is for keys, values and activations."""
GPU_RESERVE = 720 << 20
"""Bytes per GPU for the context of CUDA and its libraries, which PyTorch does not count: 612 MiB once CUDA is started and about
700 MiB under load, measured on an H200 with CUDA 13. The plan counts with as many (``engines.transformers``)."""
GRAPH_BYTES = 128 << 20
"""For CUDA graphs, on each GPU; the plan counts with as many (``engines.transformers``)."""
PROMPT_TOKENS = 2048
"""That one step computes of prompts, at most; the plan counts with as many (``engines.types.MemoryRule``)."""
SHARING_ROWS = 8
SHARING_COLUMNS = 4096
"""On a GPU memory goes to so many rows before it goes to longer ones, and to rows of such length before more of them: what
the plan counts with where the manifest gives neither (``engines.types.MemoryRule``)."""
MASK_ELEMENTS = 64 << 20
"""Of the mask of one piece of a prompt on a GPU: tokens times all that stand before them."""


def choose(config: WorkerConfig) -> str:
    """The device's kind, "cpu" or "cuda". Raises CanNotServe when CUDA was asked for and is not there."""
    if config.device == "cpu":
        return "cpu"
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        mask = os.environ.get("CUDA_VISIBLE_DEVICES")
        if torch.version.cuda is None:
            why = "this PyTorch was built without CUDA"
        elif mask is not None:
            why = f"PyTorch sees no GPU with CUDA_VISIBLE_DEVICES={mask!r}"
        else:
            why = "PyTorch sees no GPU"
        raise CanNotServe(
            f"--device cuda, but {why}", hint="look at `llmlaunch gpus`, or run with --device cpu"
        )
    return "cuda" if available else "cpu"


def settle(device: str) -> None:
    """Set what PyTorch leaves open about ``device``, for the whole process."""
    if device == "cuda":
        # On Hopper PyTorch prefers cuDNN's attention, which builds a plan for each new shape: tens of milliseconds a layer.
        # Here nearly every step has a new one. The other kernels take any shape as it comes.
        torch.backends.cuda.enable_cudnn_sdp(False)


def set_threads(threads: int | None) -> None:
    """``threads`` for PyTorch; by default what this process may use of the machine, OMP_NUM_THREADS first."""
    if threads is None and os.environ.get("OMP_NUM_THREADS", "").isdigit():
        return
    torch.set_num_threads(threads or usable_cores())


def sharing(config: WorkerConfig, device: str) -> Share | None:
    """For the thread that computes, so that it leaves the cores that others use to them.

    None where the number of threads was told, or must stay the same for the sake of seeds.
    """
    told = config.threads is not None or os.environ.get("OMP_NUM_THREADS", "").isdigit()
    if device != "cpu" or told or config.strict_seeds:
        return None
    return Share(torch.get_num_threads())


def check_alive(model: Any) -> None:
    """Raises CanNotGoOn where ``model``'s device computes no more, as after most errors of CUDA: for the whole process."""
    device = model.get_input_embeddings().weight.device
    if device.type != "cuda":
        return
    try:
        torch.zeros(1, device=device).item()
    except torch.OutOfMemoryError:
        return
    except Exception as error:
        raise CanNotGoOn(
            f"{device} computes no more: {first_line(error)}",
            hint="only a new process can use it; the kernel's log (dmesg, Xid) may say what happened to the GPU",
        ) from error


def usable_cores() -> int:
    """Physical cores that the affinity mask and the cgroup's quota leave to this process."""
    allowed = len(os.sched_getaffinity(0))
    physical = psutil.cpu_count(logical=False) or allowed
    logical = psutil.cpu_count() or allowed
    # Two threads of one core share its vector units: more threads than cores only get in each other's way.
    cores = max(1, allowed * physical // logical)
    quota = _cgroup_quota()
    return max(1, min(cores, quota)) if quota else cores


def _cgroup_quota() -> int | None:
    try:
        most, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()[:2]
        return max(1, round(int(most) / int(period)))
    except (OSError, ValueError):
        return None


def device_map(device: str, config: WorkerConfig) -> dict[str, Any]:
    """Arguments for ``from_pretrained``: one GPU takes all; several share the layers evenly.

    With ``cpu_offload`` what the GPUs do not hold stays in main memory. Raises CanNotServe for settings of GPUs
    without one.
    """
    if device == "cpu":
        given = {"--max-gpu-memory": config.max_gpu_memory, "--cpu-offload": config.cpu_offload}
        for flag, value in given.items():
            if value:
                raise CanNotServe(f"{flag} is for GPUs, and this worker runs on the CPU", hint="leave it out")
        return {}
    count = torch.cuda.device_count()
    if config.cpu_offload:
        rooms: dict[int | str, int] = {index: _weights_room(index, count, config) for index in range(count)}
        return {"device_map": "auto", "max_memory": rooms | {"cpu": psutil.virtual_memory().available}}
    if count == 1:
        return {"device_map": {"": 0}}
    if config.max_gpu_memory:
        return {"device_map": "balanced", "max_memory": dict.fromkeys(range(count), config.max_gpu_memory)}
    arguments: dict[str, Any] = {"device_map": "balanced"}
    if config.vram_bytes:
        arguments["max_memory"] = {
            index: max(config.vram_bytes // count - GPU_RESERVE, 1) for index in range(count)
        }
    return arguments


def _weights_room(index: int, count: int, config: WorkerConfig) -> int:
    if config.max_gpu_memory:
        return config.max_gpu_memory
    free, _ = torch.cuda.mem_get_info(index)
    claim = config.vram_bytes // count if config.vram_bytes else free
    return max(1, int((min(free, claim) - GPU_RESERVE) * OFFLOAD_SHARE))


def check_limit(weights: int | None, config: WorkerConfig) -> None:
    """Raises CanNotServe where ``weights`` bytes can not be kept within --max-gpu-memory."""
    if not (weights and config.max_gpu_memory) or config.cpu_offload or config.load_in:
        return
    count = max(1, torch.cuda.device_count())
    if weights > config.max_gpu_memory * count:
        raise CanNotServe(
            f"the weights take {weights / 2**30:.1f} GiB, and --max-gpu-memory leaves "
            f"{config.max_gpu_memory / 2**30:.1f} GiB on each of {count} GPU{'s' if count > 1 else ''}",
            hint="allow more, add GPUs, or keep the rest in main memory with --cpu-offload",
        )


def token_bytes(model: Any) -> int:
    """Bytes of keys and values that one token takes in all layers."""
    text = model.config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    if getattr(text, "kv_lora_rank", None):  # MLA: transformers keeps the expanded heads
        heads = text.num_attention_heads
        dim = (text.qk_nope_head_dim + text.qk_rope_head_dim + text.v_head_dim + 1) // 2
    return int(2 * text.num_hidden_layers * heads * dim * model.dtype.itemsize)


def prompt_tokens(device: str, context: int) -> int:
    """How many tokens of prompts one step computes at most."""
    return PROMPT_TOKENS if device == "cpu" else max(128, min(PROMPT_TOKENS, MASK_ELEMENTS // context))


def working_bytes(model: Any, rows: int, prompt: int, context: int) -> int:
    """What a step with ``prompt`` tokens of prompts takes beside weights and cache, on one GPU.

    Activations and logits as the plan estimates them (``planning.estimate``), and the mask.
    """
    text = model.config.get_text_config()
    inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    size = model.dtype.itemsize
    activations = prompt * (4 * text.hidden_size + 2 * inner) * size
    return int(1.2 * (activations + rows * text.vocab_size * 12) + prompt * context * size)


def capacity(model: Any, config: WorkerConfig, device: str, context: int) -> tuple[Capacity, str]:
    """How many rows and columns the cache gets, and why in words. Raises CanNotServe when not one token fits."""
    each = token_bytes(model)
    working = working_bytes(model, config.max_concurrency, prompt_tokens(device, context), context)
    if config.cuda_graphs:
        working += GRAPH_BYTES
    room = config.kv_cache_bytes or (_cpu_room() if device == "cpu" else _gpu_room(config, working))
    tokens = room // each
    columns = min(context, tokens)
    rows = config.max_concurrency
    if device != "cpu":  # there every row is really there, all of it
        if config.max_model_len is None:
            columns = _shared(tokens, columns, min(rows, SHARING_ROWS))
        rows = max(1, min(rows, tokens // max(1, columns)))
        tokens = rows * columns
    if columns < 1:
        raise CanNotServe(
            f"no memory is left for the KV cache: {room >> 20} MiB, one token takes {each} bytes",
            hint="give it more memory (vram in the manifest), or a smaller model",
        )
    words = f"KV cache: {rows} rows of up to {columns} tokens, at most {tokens} in all ({tokens * each >> 20} MiB)"
    if columns < context:
        words += f"; the model could take {context} tokens, memory allows {columns} (--max-model-len: more, in fewer rows)"
    return Capacity(rows=rows, columns=columns, tokens=min(tokens, rows * columns)), words


def _shared(tokens: int, columns: int, rows: int) -> int:
    """Columns of each row, where nobody asked for a length: as many as leave ``rows`` of them, but not too few."""
    return min(columns, max(tokens // rows, SHARING_COLUMNS))


def _cpu_room() -> int:
    return int(psutil.virtual_memory().available * CPU_SHARE)


def _gpu_room(config: WorkerConfig, working: int) -> int:
    """Bytes for keys and values over all GPUs: bounded by the plan's claim, and by the fullest GPU."""
    count = torch.cuda.device_count()
    claim = config.vram_bytes // count if config.vram_bytes else None
    rooms = []
    for index in range(count):
        free, _ = torch.cuda.mem_get_info(index)
        rooms.append(room_within(free, torch.cuda.memory_reserved(index), claim, working))
    return min(rooms) * count


def room_within(free: int, taken: int, claim: int | None, working: int) -> int:
    """Bytes for keys and values on a GPU with ``free`` bytes where the loaded weights took ``taken``.

    ``claim``: what the plan gives this worker there, all in all; None: nobody planned. ``working``: what a step takes.
    """
    if claim is None:
        # The context is there already.
        return max(0, int((free - working) * GPU_SHARE))
    return max(0, min(free - working, claim - taken - GPU_RESERVE - working))
