"""The servers under load, each as a process of its own that listens on loopback."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.worker.load import NEW_TOKENS, SAMPLING, Target
from llmlaunch.engines import registry
from llmlaunch.engines.types import LaunchRequest
from llmlaunch.hardware.cores import usable_cores
from llmlaunch.manifest.types import EngineName, ModelSpec
from llmlaunch.models.inspect import inspect
from tests.support.ports import free_port

READY_S = 120.0
OFFLINE = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}


def prepared(model: str) -> str:
    """The folder that ``model`` is loaded from, converted where that is needed."""
    command = [sys.executable, "-m", "llmlaunch", "worker", "--prepare", "--model-path", model]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip().rsplit(": ", 1)[1]


def status(port: int, path: str) -> int:
    """Of a GET; 0 when nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


@contextlib.contextmanager
def process(command: list[str], port: int, ready: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """``command`` from the moment that ``ready`` is answered with 200. Exits with its output when it does not come up."""
    with tempfile.NamedTemporaryFile(prefix="bench-", suffix=".log") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | OFFLINE | env,
        )
        try:
            end = time.monotonic() + READY_S
            while status(port, ready) != 200:
                if child.poll() is not None or time.monotonic() > end:
                    raise SystemExit(
                        f"{command[0]} does not serve:\n{Path(log.name).read_text(errors='replace')[-2000:]}"
                    )
                time.sleep(0.01)
            yield child
        finally:
            child.terminate()
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait(15)


@contextlib.contextmanager
def worker(model: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Our worker, which serves ``model`` as "m"; its process and port."""
    port = free_port()
    command = [
        sys.executable, "-m", "llmlaunch", "worker", "--model-path", model, "--model-names", "m", "--port", str(port),
    ]  # fmt: skip
    with process([*command, *arguments], port, "/ready") as child:
        yield child, port


@contextlib.contextmanager
def ours(folder: str) -> Iterator[Target]:
    """The built-in worker, which chooses the type itself."""
    with worker(folder) as (_, port):
        yield Target("llmlaunch worker", port, "m", vllm_fields())


@contextlib.contextmanager
def transformers_serve(folder: str, dtype: str) -> Iterator[Target]:
    """transformers' own server. It takes top_k, and to go on after an end token, only as a generation_config.

    Left to itself its cache takes most of the memory on a CPU, and minutes to fill: so it gets 128 pages of 256 tokens.
    """
    port = free_port()
    settings = SAMPLING | {"do_sample": True, "max_new_tokens": NEW_TOKENS, "eos_token_id": None}
    command = [
        str(Path(sys.executable).with_name("transformers")), "serve", folder, "--continuous-batching",
        "--cb-num-blocks", "128", "--cb-max-batch-tokens", "2048", "--device", "cpu", "--dtype", dtype,
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    with process(command, port, "/health"):
        yield Target(
            "transformers serve, continuous batching",
            port,
            folder,
            {"generation_config": json.dumps(settings)},
        )


@contextlib.contextmanager
def vllm(folder: str, dtype: str, binary: str) -> Iterator[Target]:
    """vLLM for CPUs, from an environment of its own."""
    port = free_port()
    command = [
        binary, "serve", folder, "--dtype", dtype, "--max-model-len", "4096", "--max-num-seqs", "64", "--enforce-eager",
        "--host", "127.0.0.1", "--port", str(port), "--served-model-name", "m",
    ]  # fmt: skip
    env = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
        "VLLM_NO_USAGE_STATS": "1",
        "PATH": f"{Path(binary).parent}:{os.environ['PATH']}",
    }
    with process(command, port, "/health", **env):
        yield Target("vLLM for CPUs", port, "m", vllm_fields())


@contextlib.contextmanager
def llamacpp(model: str) -> Iterator[Target]:
    """llama.cpp out of its package, as a deployment would start it, with a slot for each of 32 streams."""
    port = free_port()
    spec = ModelSpec(model, ("m",), EngineName.LLAMACPP, max_model_len=4096, max_concurrency=32)
    launch = registry.get("llamacpp").launch(
        LaunchRequest(
            component="m-1",
            model=spec,
            facts=inspect(model),
            host="127.0.0.1",
            port=port,
            controller_url="",
            devices=(),
            python=sys.executable,
            absent=frozenset({"llama-server"}),
            cores=usable_cores(),
        )
    )
    with process(list(launch.argv), port, "/health", **launch.env):
        yield Target("llama.cpp, Q4_1", port, "m", vllm_fields())


def vllm_fields() -> dict[str, object]:
    """What a body says beside its messages, in the fields that vLLM and the built-in worker share."""
    return {**SAMPLING, "ignore_eos": True, "stream_options": {"include_usage": True}}
