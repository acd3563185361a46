"""Measure the gateway, and nginx where it is installed, on one pinned core in front of the same mock upstream.

CPU per request is the number to trust: it is what the kernel charged the process, whoever else used the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gateway import load
from benchmarks.report import record, table
from llmlaunch.serve import bind

KEY = "sk-of-the-benchmark"
TOKEN = "token-of-the-benchmark"
NGINX = """
daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log; worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000; client_max_body_size 32m; client_body_buffer_size 128k;
  client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  upstream mock {{ server 127.0.0.1:{mock}; keepalive 128; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port}; tcp_nodelay on;
    location / {{ proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
  }}
}}
"""


@dataclass
class Proxy:
    name: str
    port: int
    pid: int
    start_s: float


def free_port() -> int:
    with contextlib.closing(bind("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def cpu_s(pid: int) -> float:
    """CPU seconds the kernel charged the process so far (its main thread, which does all the work)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def post(url: str, value: object) -> None:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
    asked = urllib.request.Request(url, json.dumps(value).encode(), headers)
    urllib.request.urlopen(asked, timeout=5).close()


def wait_for(url: str, key: str = "", text: str = "", deadline_s: float = 20) -> None:
    end = time.monotonic() + deadline_s
    while True:
        with contextlib.suppress(OSError):
            asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
            with urllib.request.urlopen(asked, timeout=2) as answer:
                if text in answer.read().decode():
                    return
        if time.monotonic() > end:
            raise SystemExit(f"{url} does not answer")
        time.sleep(0.005)


@contextlib.contextmanager
def child(*command: str, cores: set[int], **env: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command, env={**os.environ, **env}, stderr=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, cores)
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.wait(15)


@contextlib.contextmanager
def mock(folder: Path, cores: set[int]) -> Iterator[int]:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise SystemExit("the mock upstream needs a C compiler (gcc)")
    binary = folder / "mock"
    subprocess.run([compiler, "-O2", "-o", str(binary), str(Path(__file__).with_name("mock.c"))], check=True)
    port = free_port()
    with child(str(binary), str(port), cores=cores):
        yield port


@contextlib.contextmanager
def llmlaunch(folder: Path, upstream: int, core: int, others: set[int]) -> Iterator[Proxy]:
    """With its controller, its token and an API key, as ``up`` runs it."""
    control, port = free_port(), free_port()
    (folder / "keys").write_text(f"bench: {KEY}\n")
    (folder / "keys").chmod(0o600)
    run = (sys.executable, "-m", "llmlaunch")
    with child(*run, "controller", "--port", str(control), cores=others, LLMLAUNCH_TOKEN=TOKEN):
        wait_for(f"http://127.0.0.1:{control}/health")
        began = time.monotonic()
        options = (
            "--port", str(port), "--controller-address", f"http://127.0.0.1:{control}", "--api-keys-file", str(folder / "keys"),
        )  # fmt: skip
        with child(*run, "api", *options, cores={core}, LLMLAUNCH_TOKEN=TOKEN) as process:
            wait_for(f"http://127.0.0.1:{port}/health")
            start_s = time.monotonic() - began
            status = {"model_names": ["m"], "speed": 1, "queue_length": 0}
            address = f"http://127.0.0.1:{upstream}"
            post(
                f"http://127.0.0.1:{control}/register_worker",
                {
                    "worker_name": address,
                    "check_heart_beat": False,
                    "worker_status": status,
                    "verified": True,
                },
            )
            wait_for(f"http://127.0.0.1:{port}/v1/models", KEY, '"m"')
            yield Proxy("llmlaunch", port, process.pid, start_s)


@contextlib.contextmanager
def nginx(binary: str, folder: Path, upstream: int, core: int) -> Iterator[Proxy]:
    port = free_port()
    (folder / "nginx.conf").write_text(NGINX.format(dir=folder, mock=upstream, port=port))
    began = time.monotonic()
    with child(binary, "-p", str(folder), "-c", str(folder / "nginx.conf"), cores={core}) as process:
        end = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(
                    urllib.request.Request(f"http://127.0.0.1:{port}/", b"{}"), timeout=2
                ).close()
                break
            if time.monotonic() > end:
                raise SystemExit(f"nginx does not start: {(folder / 'error.log').read_text()[-500:]}")
            time.sleep(0.005)
        yield Proxy("nginx", port, process.pid, time.monotonic() - began)


def bodies() -> dict[str, tuple[bytes, bool]]:
    def body(size: int, **more: object) -> bytes:
        text = ("The quick brown fox jumps over the lazy dog.\n" * (size // 44 + 1))[:size]
        value = {"messages": [{"role": "user", "content": text}], "model": "m", **more}
        return json.dumps(value, separators=(",", ":")).encode()

    return {
        "small chat": (body(60), False),
        "64-event stream": (body(60, stream=True), True),
        "64 KB prompt": (body(64 << 10), False),
    }


def measure(proxy: Proxy, upstream: int, seconds: float) -> list[object]:
    """One row: CPU µs per request of each kind at 32 connections, added median ms at one connection, memory, start."""
    row: list[object] = [proxy.name]
    for body, stream in bodies().values():
        message = load.request(proxy.port, body, KEY)
        asyncio.run(load.run(proxy.port, message, stream, 32, 0.5))
        before = cpu_s(proxy.pid)
        times = asyncio.run(load.run(proxy.port, message, stream, 32, seconds))
        row.append(f"{(cpu_s(proxy.pid) - before) / len(times) * 1e6:.0f}")
    for stream in (False, True):
        body = bodies()["64-event stream" if stream else "small chat"][0]
        through = asyncio.run(
            load.run(proxy.port, load.request(proxy.port, body, KEY), stream, 1, seconds / 2)
        )
        direct = asyncio.run(load.run(upstream, load.request(upstream, body, KEY), stream, 1, seconds / 2))
        row.append(f"{load.median_ms(through) - load.median_ms(direct):.3f}")
    return [*row, f"{rss_mib(proxy.pid):.0f}", f"{proxy.start_s:.2f}"]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=4.0, help="of load per cell")
    options.add_argument(
        "--nginx", default=shutil.which("nginx"), help="path of nginx; its row is left out without"
    )
    options.add_argument("--record", action="store_true", help="put the table into RESULTS.md")
    asked = options.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    mine, others = cores[0], set(cores[1:]) or {cores[0]}
    os.sched_setaffinity(0, others)
    rows = []
    with tempfile.TemporaryDirectory() as name, mock(Path(name), others) as upstream:
        with llmlaunch(Path(name), upstream, mine, others) as proxy:
            rows.append(measure(proxy, upstream, asked.seconds))
        if asked.nginx:
            with nginx(asked.nginx, Path(name), upstream, mine) as proxy:
                rows.append(measure(proxy, upstream, asked.seconds))
        else:
            print("nginx is not installed: its row is left out", file=sys.stderr)
    header = [
        "", *(f"CPU µs, {kind}" for kind in bodies()), "added p50 ms, chat", "added p50 ms, stream", "RSS MiB", "start s",
    ]  # fmt: skip
    text = (
        table(header, rows) + "\n\n32 connections, proxy pinned to one core; mock upstream in C; API keys on."
    )
    if asked.record:
        record("Gateway", text, "uvloop", "httptools")
    else:
        print(text)


if __name__ == "__main__":
    main()
