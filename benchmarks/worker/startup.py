"""Ready, and memory: a worker against a plain script that imports, loads and generates one token."""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import time

import psutil

from benchmarks.worker.servers import OFFLINE, worker

PLAIN = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
print("loaded", flush=True)
ids = tokenizer("Hello", return_tensors="pt").input_ids
with torch.inference_mode():
    model.generate(ids, max_new_tokens=1, do_sample=False)
print("done", flush=True)
sys.stdin.readline()
"""


def plain(folder: str) -> tuple[float, int]:
    """Seconds until the model is loaded, and bytes resident after one token."""
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", PLAIN, folder],
        env=os.environ | OFFLINE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        if child.stdout.readline() != b"loaded\n":
            raise SystemExit("the plain script failed")
        loaded = time.perf_counter() - began
        child.stdout.readline()
        resident = psutil.Process(child.pid).memory_info().rss
        child.stdin.close()
        return loaded, resident


def ours(folder: str) -> tuple[float, int]:
    """Seconds until the worker is ready, and bytes resident after one token."""
    began = time.perf_counter()
    with worker(folder, "--dtype", "bfloat16") as (process, port):
        ready = time.perf_counter() - began
        body = {"model": "m", "prompt": "Hello", "max_tokens": 1, "temperature": 0}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        if connection.getresponse().status != 200:
            raise SystemExit("the worker does not answer")
        connection.close()
        return ready, psutil.Process(process.pid).memory_info().rss


def measure(folder: str, rounds: int) -> list[list[object]]:
    """Rows of a table: what, worker, plain script, ratio. In turns; the first pair only warms the file cache."""
    pairs = [(ours(folder), plain(folder)) for _ in range(rounds + 1)][1:]
    ready = [statistics.median(pair[side][0] for pair in pairs) for side in (0, 1)]
    resident = [statistics.median(pair[side][1] for pair in pairs) / 2**20 for side in (0, 1)]
    return [
        ["ready / import + load, s", *(f"{value:.2f}" for value in ready), f"{ready[0] / ready[1]:.2f}"],
        [
            "RSS after a token, MiB",
            *(f"{value:.0f}" for value in resident),
            f"{resident[0] / resident[1]:.2f}",
        ],
    ]
