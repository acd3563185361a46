"""How the gateway and its peers are started, each pinned to one core in front of the mock upstream."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from llmlaunch.http_server import bind

KEY = "sk-of-the-benchmark"
TOKEN = "token-of-the-benchmark"
FILES = 16384
NGINX = """
daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log; worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
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
LITELLM = """
model_list:
  - model_name: m
    litellm_params: {{model: openai/m, api_base: "http://127.0.0.1:{mock}/v1", api_key: none}}
general_settings: {{master_key: {key}}}
"""


@dataclass(frozen=True, slots=True)
class Place:
    """What a peer is given."""

    folder: Path
    mock: int
    """The port of the upstream."""
    core: int
    others: set[int]


@dataclass(frozen=True, slots=True)
class Proxy:
    name: str
    port: int
    pid: int
    start_s: float

    def cpu_s(self) -> float:
        """CPU seconds that the kernel charged to all its threads so far."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def rss_mib(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


def free_port() -> int:
    with contextlib.closing(bind("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def wait_for(url: str, text: str = "", deadline_s: float = 60) -> None:
    """Until ``url`` answers 200 with ``text`` in it."""
    end = time.monotonic() + deadline_s
    asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {KEY}"})
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(asked, timeout=2) as answer:
            if text in answer.read().decode():
                return
        if time.monotonic() > end:
            raise SystemExit(f"{url} does not answer")
        time.sleep(0.005)


@contextlib.contextmanager
def child(*command: str, cores: set[int], **env: str) -> Iterator[subprocess.Popen[bytes]]:
    def settle() -> None:
        os.sched_setaffinity(0, cores)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        files = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))

    process = subprocess.Popen(
        command,
        env={**os.environ, **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=settle,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def started(
    name: str, place: Place, port: int, path: str, *command: str, **env: str
) -> Iterator[tuple[Proxy, subprocess.Popen[bytes]]]:
    began = time.monotonic()
    with child(*command, cores={place.core}, **env) as process:
        wait_for(f"http://127.0.0.1:{port}{path}")
        yield Proxy(name, port, process.pid, time.monotonic() - began), process


@contextlib.contextmanager
def llmlaunch(place: Place) -> Iterator[Proxy]:
    """With its controller, its token and an API key, as ``up`` runs it."""
    control, port = free_port(), free_port()
    keys = place.folder / "keys"
    keys.write_text(f"bench: {KEY}\n")
    keys.chmod(0o600)
    run = (sys.executable, "-m", "llmlaunch")
    with child(*run, "controller", "--port", str(control), cores=place.others, LLMLAUNCH_TOKEN=TOKEN):
        url = f"http://127.0.0.1:{control}"
        wait_for(f"{url}/health")
        options = ("--port", str(port), "--controller-address", url, "--api-keys-file", str(keys))
        with started("llmlaunch", place, port, "/health", *run, "api", *options, LLMLAUNCH_TOKEN=TOKEN) as (
            proxy,
            _,
        ):
            row = {
                "worker_name": f"http://127.0.0.1:{place.mock}", "check_heart_beat": False, "verified": True,
                "worker_status": {"model_names": ["m"], "speed": 1, "queue_length": 0},
            }  # fmt: skip
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
            asked = urllib.request.Request(f"{url}/register_worker", json.dumps(row).encode(), headers)
            urllib.request.urlopen(asked, timeout=5).close()
            wait_for(f"http://127.0.0.1:{port}/v1/models", '"m"')
            yield proxy


@contextlib.contextmanager
def nginx(binary: str, place: Place) -> Iterator[Proxy]:
    port, file = free_port(), place.folder / "nginx.conf"
    file.write_text(NGINX.format(dir=place.folder, mock=place.mock, port=port))
    with started("nginx", place, port, "/", binary, "-p", str(place.folder), "-c", str(file)) as (proxy, _):
        yield proxy


@contextlib.contextmanager
def router(binary: str, place: Place) -> Iterator[Proxy]:
    """vllm-router and sglang-router, which descend from one another."""
    port = free_port()
    name = Path(binary).name
    words = [
        binary,
        *(["launch"] if name == "sglang-router" else []),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    words += ["--worker-urls", f"http://127.0.0.1:{place.mock}", "--policy", "round_robin"]
    words += ["--prometheus-port", str(free_port()), "--log-level", "error"]
    with started(name, place, port, "/health", *words) as (proxy, _):
        yield proxy


@contextlib.contextmanager
def litellm(binary: str, place: Place) -> Iterator[Proxy]:
    port, file = free_port(), place.folder / "litellm.yaml"
    file.write_text(LITELLM.format(mock=place.mock, key=KEY))
    words = (
        binary,
        "--config",
        str(file),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--telemetry",
        "False",
    )
    with started(
        "litellm", place, port, "/health/liveliness", *words, LITELLM_LOCAL_MODEL_COST_MAP="True"
    ) as (
        proxy,
        _,
    ):
        yield proxy


PEERS: dict[str, Callable[[str, Place], AbstractContextManager[Proxy]]] = {
    "nginx": nginx,
    "vllm-router": router,
    "sglang-router": router,
    "litellm": litellm,
}


def version(binary: str) -> str:
    """What ``binary`` says of itself, or the version of the Python package it belongs to; empty when neither tells."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if Path(binary).name == "nginx":
            told = subprocess.run(
                [binary, "-v"], capture_output=True, text=True, timeout=10, check=True
            ).stderr
        else:
            python = Path(binary).with_name("python")
            code = f"import importlib.metadata as m; print(m.version({Path(binary).name!r}))"
            told = subprocess.run(
                [str(python), "-c", code], capture_output=True, text=True, timeout=30, check=True
            ).stdout
        found = re.search(r"\d+(\.\d+)+", told)
        return found[0] if found else ""
    return ""
