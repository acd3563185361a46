"""From nothing to ready: a worker against the same work by a plain script (import, load, one token), and their memory.

python benchmarks/worker/startup.py [ROUNDS]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.e2e.worker.server import SMOLLM2, started

PLAIN = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto")
ids = tokenizer("Hello", return_tensors="pt").input_ids
model.generate(ids, max_new_tokens=1, do_sample=False)
print(int(open("/proc/self/statm").read().split()[1]) * 4096)
"""


def plain(folder: str) -> tuple[float, int]:
    began = time.perf_counter()
    environment = os.environ | {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, folder], env=environment, capture_output=True, text=True, check=True
    )
    return time.perf_counter() - began, int(done.stdout)


def ours() -> tuple[float, float, int]:
    """Seconds until /health answers, until /ready does, and bytes resident after one token."""
    began = time.perf_counter()
    healthy = 0.0
    with started(SMOLLM2, "--model-names", "m", ready=False) as worker:
        with worker.client() as client:
            while True:
                try:
                    answer = client.get("/ready")
                except httpx.TransportError:
                    time.sleep(0.005)
                    continue
                healthy = healthy or time.perf_counter() - began
                if answer.status_code == 200:
                    break
                time.sleep(0.02)
        ready = time.perf_counter() - began
        worker.chat("Hello", model="m", max_tokens=1)
        return healthy, ready, psutil.Process(worker.process.pid).memory_info().rss


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    prepared = subprocess.run(
        [sys.executable, "-m", "llmlaunch", "worker", "--prepare", "--model-path", SMOLLM2],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    folder = prepared.stdout.strip().rsplit(": ", 1)[1]
    scripts, workers = [], []
    for _ in range(rounds):
        scripts.append(plain(folder))
        workers.append(ours())
    seconds, size = (statistics.median(column) for column in zip(*scripts, strict=True))
    healthy, ready, resident = (statistics.median(column) for column in zip(*workers, strict=True))
    print(f"plain script   {seconds:5.2f} s to one token   {int(size) >> 20} MiB")
    print(f"worker         {ready:5.2f} s to ready ({healthy:.2f} s to /health)   {int(resident) >> 20} MiB")


if __name__ == "__main__":
    main()
