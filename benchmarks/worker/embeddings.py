"""Sentences per second: a worker over HTTP against sentence-transformers' own encode, with the same MiniLM."""

from __future__ import annotations

import base64
import http.client
import json
import os
import subprocess
import time
from array import array
from collections.abc import Sequence
from contextlib import closing

from benchmarks.worker.servers import OFFLINE, worker

BATCHES = (1, 32, 256)
WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "seven",
    "engineers",
    "measure",
    "how",
    "long",
    "every",
    "sentence",
    "takes",
    "on",
    "the",
    "machine",
    "that",
    "was",
    "given",
    "to",
    "them",
    "for",
    "the",
    "day",
    "and",
    "nobody",
    "counts",
    "the",
    "words",
]
ENCODE = """
import json, sys, time
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu")
print("ready", flush=True)
for line in sys.stdin:
    texts, seconds = json.loads(line)
    vectors = model.encode(texts, batch_size=len(texts), show_progress_bar=False)
    began, done = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < seconds:
        model.encode(texts, batch_size=len(texts), show_progress_bar=False)
        done += len(texts)
    print(json.dumps([done / spent, vectors[0].tolist()]), flush=True)
"""


def sentences(count: int) -> list[str]:
    """Of 6 to 29 words."""
    return [" ".join(WORDS[(at * 7 + i) % len(WORDS)] for i in range(6 + at * 5 % 24)) for at in range(count)]


def encode(python: str, folder: str, seconds: float) -> list[tuple[float, list[float]]]:
    """Of sentence-transformers in the environment of ``python``: sentences/s and the first vector, for each batch."""
    found = []
    with subprocess.Popen(
        [python, "-c", ENCODE, folder],
        env=os.environ | OFFLINE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        if child.stdout.readline() != "ready\n":
            raise SystemExit(f"sentence-transformers does not run in {python}")
        for batch in BATCHES:
            child.stdin.write(json.dumps([sentences(batch), seconds]) + "\n")
            child.stdin.flush()
            rate, vector = json.loads(child.stdout.readline())
            found.append((rate, vector))
        child.stdin.close()
    return found


def ask(port: int, texts: Sequence[str]) -> list[list[float]]:
    """The vectors of one call, in base64 as the openai client asks for them, and read as it reads them."""
    body = json.dumps({"model": "m", "input": texts, "encoding_format": "base64"})
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        data = answer.read()
    if answer.status != 200:
        raise SystemExit(f"the worker answers {data[:300]!r}")
    return [list(array("f", base64.b64decode(item["embedding"]))) for item in json.loads(data)["data"]]


def serve(folder: str, seconds: float) -> list[tuple[float, list[float]]]:
    """The same over HTTP of our worker, one call after another."""
    found = []
    with worker(folder) as (_, port):
        for batch in BATCHES:
            texts = sentences(batch)
            vector = ask(port, texts)[0]
            began, done = time.perf_counter(), 0
            while (spent := time.perf_counter() - began) < seconds:
                ask(port, texts)
                done += batch
            found.append((done / spent, vector))
    return found


def measure(folder: str, python: str, seconds: float) -> list[list[object]]:
    """Rows of a table: batch, ours, theirs, ratio. Exits when the vectors are not the same."""
    rows: list[list[object]] = []
    pairs = zip(BATCHES, serve(folder, seconds), encode(python, folder, seconds), strict=True)
    for batch, (rate, vector), (other, wanted) in pairs:
        if max(abs(a - b) for a, b in zip(vector, wanted, strict=True)) > 1e-3:
            raise SystemExit("the worker's vectors are not those of sentence-transformers")
        rows.append([f"{batch}", f"{rate:.0f}", f"{other:.0f}", f"{rate / other:.2f}"])
    return rows


def available(python: str) -> bool:
    probe = "import importlib.util as u, sys; sys.exit(u.find_spec('sentence_transformers') is None)"
    return subprocess.run([python, "-c", probe]).returncode == 0
