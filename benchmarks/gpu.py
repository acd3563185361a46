"""The built-in worker on one NVIDIA GPU: tokens with and without CUDA graphs, beside ``generate``, and memory against the plan.

``python -m benchmarks.gpu --record`` writes the "GPU" section of RESULTS.md. Models have random weights in the shapes of
published ones, so nothing is downloaded: speed and memory do not depend on what the weights say.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from benchmarks.report import record, table
from benchmarks.worker.load import NEW_TOKENS, Target, burst, cell
from benchmarks.worker.servers import vllm_fields, worker
from llmlaunch.engines import registry
from llmlaunch.manifest.types import EngineName, ModelSpec
from llmlaunch.models.inspect import inspect
from llmlaunch.planning.estimate import estimate

COUNTS = (1, 8, 32)
CONTEXT = 2048
STREAMS = max(COUNTS)
VOCABULARY = 49152
SHAPES: dict[str, dict[str, int]] = {
    "135M": {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
             "intermediate_size": 1536},
    "1B": {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
           "intermediate_size": 8192},
    "8B": {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
           "intermediate_size": 14336},
}  # fmt: skip
"""Of SmolLM2-135M, Llama-3.2-1B and Llama-3.1-8B, with one vocabulary."""


@dataclass
class Row:
    name: str
    rates: list[float]
    """Tokens/s for each of :data:`COUNTS`."""
    first_s: float = 0.0
    """First token of a burst of 32: p95."""
    cold_s: float = 0.0
    """Slowest first token of the 32 requests that the worker gets as its first."""


def make(folder: Path, shape: dict[str, int]) -> None:
    """A Llama with random weights in bfloat16, and a tokenizer with a token for each byte."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<s>", "</s>", *letters]
    words += [f"Ġw{at}" for at in range(VOCABULARY - len(words))]
    tokenizer = Tokenizer(models.BPE(vocab={word: at for at, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"
    )
    wrapped.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    wrapped.save_pretrained(folder)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, dtype="bfloat16",
        bos_token_id=0, eos_token_id=1, **shape,
    )  # fmt: skip
    with torch.device("cuda"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()


def driver_bytes(pid: int) -> int:
    """GPU memory of one process as the driver counts it. Raises SystemExit where it does not tell by process."""
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    told = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    rows = [line.split(",") for line in told.splitlines() if line.count(",") == 1]
    own = sum(int(used) << 20 for owner, used in rows if owner.strip() == str(pid) and used.strip().isdigit())
    if not own:
        raise SystemExit(f"nvidia-smi does not tell what process {pid} holds: {told!r}")
    return own


async def _rates(target: Target, rounds: int) -> Row:
    _, cold = await burst(target, STREAMS)
    row = Row(target.name, [], cold_s=max(stream.first_s for stream in cold))
    for count in COUNTS:
        await burst(target, count)  # shapes that come often are recorded in here
        found = await cell(target, count, rounds)
        row.rates.append(found.rate)
        row.first_s = found.first(0.95)
    return row


def served(folder: Path, name: str, rounds: int, *flags: str) -> tuple[Row, int, int]:
    """Rates over HTTP; bytes of GPU memory once ready, and after the load."""
    flags = ("--device", "cuda", "--dtype", "bfloat16", *flags)
    with worker(str(folder), *flags) as (process, port):
        ready = driver_bytes(process.pid)
        row = asyncio.run(_rates(Target(name, port, "m", vllm_fields()), rounds))
        return row, ready, driver_bytes(process.pid)


@torch.inference_mode()
def generated(folder: Path, rounds: int) -> Row:
    """transformers' own ``generate`` in its process: a batch that begins and ends together, with the same sampling."""
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, device_map={"": 0}
    )
    row = Row("transformers `generate`, in its process", [])
    for count in COUNTS:
        prompts = torch.randint(2, 258, (count, 110), device="cuda")
        rates = []
        for _ in range(rounds + 1):
            torch.cuda.synchronize()
            began = time.perf_counter()
            model.generate(
                prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS,
                do_sample=True, temperature=0.8, top_p=0.95, top_k=50, pad_token_id=0,
            )  # fmt: skip
            torch.cuda.synchronize()
            rates.append(count * NEW_TOKENS / (time.perf_counter() - began))
        row.rates.append(statistics.median(rates[1:]))
    del model
    torch.cuda.empty_cache()
    return row


def copied_bytes_per_s() -> float:
    """Bytes read and written in a second by a large copy on the device: what no decode can beat."""
    source = torch.randint(0, 255, (2 << 30,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    event: Any = torch.cuda.Event  # torch leaves it untyped
    seconds = []
    for _ in range(12):
        begin, end = event(enable_timing=True), event(enable_timing=True)
        begin.record()
        target.copy_(source)
        end.record()
        torch.cuda.synchronize()
        seconds.append(float(begin.elapsed_time(end)) / 1e3)
    del source, target
    torch.cuda.empty_cache()
    return 2 * (2 << 30) / statistics.median(seconds)


def planned(folder: Path) -> tuple[int, int]:
    """Bytes that the plan would give a replica, and those of its weights."""
    spec = ModelSpec(
        model=str(folder),
        names=("m",),
        engine=EngineName.TRANSFORMERS,
        max_concurrency=STREAMS,
        max_model_len=CONTEXT,
    )
    facts = inspect(str(folder))
    need = estimate(spec, facts, registry.get(spec.engine), 1)
    assert need is not None
    assert facts.weight_bytes is not None
    return need.total, facts.weight_bytes


def one(
    name: str, shape: dict[str, int], rounds: int, bandwidth: float
) -> tuple[list[list[object]], list[object]]:
    """Rows of the table of speed, and the row of the table of memory."""
    parent = "/dev/shm" if Path("/dev/shm").is_dir() else None  # gigabytes that need not reach a disk
    folder = Path(tempfile.mkdtemp(prefix="bench-gpu-", dir=parent))
    try:
        make(folder, shape)
        claim, weights = planned(folder)
        beside = generated(folder, rounds)
        limits = ["--vram-bytes", str(claim), "--max-model-len", str(CONTEXT)]
        limits += ["--limit-worker-concurrency", str(STREAMS)]
        graphs, ready, after = served(
            folder, "llmlaunch worker, CUDA graphs", rounds, "--cuda-graphs", *limits
        )
        plain, _, _ = served(folder, "llmlaunch worker, no CUDA graphs", rounds, "--no-cuda-graphs", *limits)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    limit = bandwidth / weights
    rows: list[list[object]] = []
    for row in (graphs, plain, beside):
        pairs = zip(row.rates, beside.rates, strict=True)
        rates = [f"{rate:.0f} ({rate / other:.2f} ×)" for rate, other in pairs]
        firsts = [f"{seconds:.2f}" if seconds else "" for seconds in (row.first_s, row.cold_s)]
        rows.append([name, row.name, *rates, f"{row.rates[0] / limit:.2f}", *firsts])
    gib = 1 << 30
    memory = [f"{size / gib:.2f}" for size in (claim, ready, after)]
    return rows, [name, *memory, f"{after / claim:.2f}"]


def tables(speed: list[list[object]], memory: list[list[object]], bandwidth: float) -> str:
    at_once = [f"{count} at once" for count in COUNTS]
    header = [
        "model",
        "tokens/s at",
        *at_once,
        "of the limit at 1",
        "first token of 32: p95, s",
        "slowest, cold",
    ]
    notes = (
        f"Random weights in bfloat16, streamed chats of {NEW_TOKENS} new tokens over HTTP on {torch.cuda.get_device_name()}, "
        "temperature 0.8, top_p 0.95, top_k 50; in brackets the ratio to `generate`, which is given the whole batch at once. "
        f"Limit at 1: the weights read once a token at the {bandwidth / 1e12:.2f} TB/s that a copy reaches."
    )
    columns = [
        "model",
        "planned, GiB",
        "measured when ready",
        "measured after the load",
        "measured / planned",
    ]
    return "\n\n".join(
        [
            table(header, speed),
            notes,
            table(columns, memory),
            "Memory of the worker with CUDA graphs, as the driver counts it; planned as `llmlaunch plan` does.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="of each number of streams")
    parser.add_argument("--only", choices=SHAPES, action="append", help="one shape; may be repeated")
    parser.add_argument(
        "--record", nargs="?", const="", metavar="FILE", help="put the tables into RESULTS.md, or FILE"
    )
    asked = parser.parse_args()
    bandwidth = copied_bytes_per_s()
    speed: list[list[object]] = []
    memory: list[list[object]] = []
    for name in asked.only or SHAPES:
        rows, row = one(name, SHAPES[name], asked.rounds, bandwidth)
        speed += rows
        memory.append(row)
        text = tables(speed, memory, bandwidth)
        if asked.record is not None:  # after each model: time on a GPU may end before the last
            record("GPU", text, "torch", "transformers", path=Path(asked.record) if asked.record else None)
    if asked.record is None:
        print(text)


if __name__ == "__main__":
    main()
