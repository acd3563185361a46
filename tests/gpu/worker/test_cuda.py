"""The built-in worker on real GPUs. Not run without one: ``pytest -m gpu tests/gpu``."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.kv import cuda_recorder, graphs
from llmlaunch.worker.loading import placement
from tests.e2e.worker.server import SMOLLM2, started
from tests.unit.worker import tiny

pytestmark = pytest.mark.gpu

FRANCE = "Name the capital of France."
ASKED = {f"r{at}": [5 + (at * 7 + step) % 80 for step in range(3 + 9 * at)] for at in range(4)}


def used_bytes(pid: int) -> int:
    """GPU memory of one process, by the driver's own account."""
    command = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.split(",") for line in done.stdout.splitlines()]
    return sum(int(used) << 20 for owner, used in rows if int(owner) == pid)


@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "GPT2", "Mistral"])
def test_greedy_answers_equal_generate_in_float32(kind: str) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    model = tiny.fresh(kind).to("cuda")
    expected = {name: tiny.reference(model, prompt, 12) for name, prompt in ASKED.items()}
    run = tiny.Run(tiny.batching(model, rows=3, prompt_tokens=8))
    for name, prompt in ASKED.items():
        run.add(tiny.request(name, prompt, 12))
        run.step()
    run.finish()
    assert run.tokens == expected


@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "GPT2", "Mistral"])
def test_replayed_decodes_equal_generate(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    monkeypatch.setattr(graphs, "USES_BEFORE_RECORDING", 2)
    monkeypatch.setattr(graphs, "MIN_COLUMNS", 16)
    model = tiny.fresh(kind).to("cuda")
    expected = {name: tiny.reference(model, prompt, 40) for name, prompt in ASKED.items()}
    recorder = cuda_recorder.recorder(model)
    assert recorder is not None
    before = torch.cuda.current_stream()
    for _ in range(2):  # anew after a fault
        run = tiny.Run(tiny.batching(model, rows=4, prompt_tokens=8, recorder=recorder))
        for name, prompt in ASKED.items():
            run.add(tiny.request(name, prompt, 40))
            run.step()
        run.finish()
        assert run.tokens == expected
        assert run.strategy._graphs is not None
        assert not run.strategy._graphs._disabled, "see the warning in the log"
        assert len(run.strategy._graphs._recorded) + len(run.strategy._graphs._uses) >= 3
        run.strategy.recover()
    assert torch.cuda.current_stream() == before


@pytest.mark.parametrize(
    "wait", [lambda: torch.ones(1, device="cuda").item(), torch.cuda.synchronize], ids=["item", "synchronize"]
)
def test_a_pass_that_waits_for_the_device_is_left_as_it_is(
    wait: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording that fails, before it begins or within, must leave the device as it was."""
    monkeypatch.setattr(graphs, "USES_BEFORE_RECORDING", 2)
    model = tiny.fresh("Llama").to("cuda")
    waiting = model.model.layers[1].register_forward_hook(lambda *_: wait() and None)
    before = torch.cuda.current_stream()
    run = tiny.Run(tiny.batching(model, rows=2, recorder=cuda_recorder.recorder(model)))
    for name in ("before", "after"):
        run.add(tiny.request(name, [5, 6, 7], 30))
        run.finish()
        assert len(run.tokens[name]) == 30
        assert run.strategy._graphs is not None
        assert run.strategy._graphs._disabled
        assert torch.cuda.current_stream() == before
        assert torch.cuda.get_sync_debug_mode() == 0
        torch.cuda.empty_cache()
        run.strategy.recover()
    waiting.remove()
    assert run.tokens["before"] == run.tokens["after"]


def test_replays_of_a_real_model_say_what_they_gain() -> None:
    with started(SMOLLM2, "--model-names", "smollm2", "--device", "cuda", "--dtype", "float32") as worker:
        told = [
            worker.chat(FRANCE, model="smollm2", temperature=0, max_tokens=60, ignore_eos=True).json()
            for _ in range(2)
        ]
        texts = {answer["choices"][0]["message"]["content"] for answer in told}
        assert len(texts) == 1
        log = worker.log.read_text()
        assert "ms replayed" in log
        assert "CUDA graphs are off" not in log


@pytest.mark.parametrize("dtype", ["auto", "float16", "float32"])
def test_a_real_model_answers(dtype: str) -> None:
    with started(SMOLLM2, "--model-names", "smollm2", "--device", "cuda", "--dtype", dtype) as worker:
        answer = worker.chat(FRANCE, model="smollm2", temperature=0).json()
        assert answer["choices"][0]["message"]["content"] == "The capital of France is Paris."
        health = worker.get("/health").json()
        assert health["device"] == "cuda"


def test_the_cache_stays_within_the_claim() -> None:
    claim = 4 << 30
    with started(
        SMOLLM2, "--model-names", "smollm2", "--device", "cuda", "--vram-bytes", str(claim)
    ) as worker:
        for _ in range(3):
            assert worker.chat(FRANCE, model="smollm2", max_tokens=50, n=8).status_code == 200
        assert used_bytes(worker.process.pid) <= claim


def test_the_cache_is_taken_before_the_first_request_comes() -> None:
    room = 2 << 30
    with started(
        SMOLLM2, "--model-names", "smollm2", "--device", "cuda", "--kv-cache-bytes", str(room)
    ) as worker:
        before = used_bytes(worker.process.pid)
        assert before > room
        assert worker.chat(FRANCE, model="smollm2", max_tokens=5).status_code == 200
        assert used_bytes(worker.process.pid) < before + (256 << 20)


def test_a_long_prompt_in_pieces_does_not_write_out_its_scores() -> None:
    """With heads that share keys, a mask sends PyTorch to a kernel that needs tokens x columns of every head."""
    model = tiny.fresh("Llama", hidden_size=1024, num_attention_heads=16, num_key_value_heads=2,
                       num_hidden_layers=1, max_position_embeddings=16384).to("cuda", torch.bfloat16)  # fmt: skip
    run = tiny.Run(tiny.batching(model, rows=1, columns=16384, prompt_tokens=2048))
    run.strategy.reserve()
    run.add(tiny.request("long", [5 + at % 80 for at in range(16000)], 2))
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run.finish()
    scores = 16 * 2048 * 16000 * 2
    assert torch.cuda.max_memory_allocated() - before < scores / 2


def test_out_of_memory_is_an_answer_and_the_worker_lives() -> None:
    """Somebody else takes the GPU's memory after the worker has loaded."""
    with started(
        SMOLLM2, "--model-names", "smollm2", "--device", "cuda", "--kv-cache-bytes", str(1 << 30)
    ) as worker:
        free, _ = torch.cuda.mem_get_info()
        hog = torch.empty(free - (64 << 20), dtype=torch.uint8, device="cuda")
        answer = worker.post("/v1/completions", model="smollm2", prompt=[5] * 5000, max_tokens=5)
        assert answer.status_code in (200, 503)
        if answer.status_code == 503:
            assert answer.json()["error"]["code"] == "out_of_memory"
        del hog
        torch.cuda.empty_cache()
        assert worker.chat(FRANCE, model="smollm2", max_tokens=5).status_code == 200


ASSERTING = """
import torch
from llmlaunch.cli import main
from llmlaunch.worker.engine import batching

whole = batching.ContinuousBatching._forward


def passed(self, spans):
    if spans[0].prompt:
        torch.zeros(1, device="cuda")[torch.tensor([5], device="cuda")]  # an assertion on the device
    return whole(self, spans)


batching.ContinuousBatching._forward = passed
main()
"""


def test_a_device_that_is_lost_ends_the_worker(tmp_path: Path) -> None:
    script = tmp_path / "asserting.py"
    script.write_text(ASSERTING)
    with started(SMOLLM2, "--model-names", "smollm2", "--device", "cuda", program=(str(script),)) as worker:
        assert worker.chat(FRANCE, model="smollm2", max_tokens=5).status_code == 500
        assert worker.process.wait(60) == 1
        assert "cuda:0 has failed" in worker.log.read_text()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_one_model_over_two_gpus() -> None:
    with started(
        SMOLLM2, "--model-names", "smollm2", "--device", "cuda", CUDA_VISIBLE_DEVICES="0,1"
    ) as worker:
        answer = worker.chat(FRANCE, model="smollm2", temperature=0).json()
        assert answer["choices"][0]["message"]["content"] == "The capital of France is Paris."


def test_the_device_map_is_even_and_within_the_claim() -> None:
    config = WorkerConfig(model="m", names=("m",), vram_bytes=8 << 30)
    if torch.cuda.device_count() == 1:
        assert placement.device_map("cuda", config) == {"device_map": {"": 0}}
    else:
        assert placement.device_map("cuda", config)["device_map"] == "balanced"


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors", "fp8"])
def test_a_quantised_checkpoint_answers(method: str) -> None:
    """``LLMLAUNCH_GPTQ=/models/some-gptq pytest -m gpu …``: there is no small one that could be made here."""
    name = "LLMLAUNCH_" + method.upper().replace("-", "_")
    if name not in os.environ:
        pytest.skip(f"{name} names no checkpoint")
    with started(os.environ[name], "--model-names", "packed", "--device", "cuda") as worker:
        answer = worker.chat(FRANCE, model="packed", temperature=0, max_tokens=30).json()
        assert "Paris" in answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_weights_are_packed_while_loading(bits: str) -> None:
    pytest.importorskip("bitsandbytes")
    with started(SMOLLM2, "--model-names", "smollm2", "--device", "cuda", "--load-in", bits) as worker:
        answer = worker.chat(FRANCE, model="smollm2", temperature=0, max_tokens=20).json()
        assert "Paris" in answer["choices"][0]["message"]["content"]


def test_layers_that_do_not_fit_stay_in_main_memory() -> None:
    limit = ("--cpu-offload", "--max-gpu-memory", "150MiB")
    with started(SMOLLM2, "--model-names", "smollm2", "--device", "cuda", *limit) as worker:
        answer = worker.chat(FRANCE, model="smollm2", temperature=0).json()
        assert answer["choices"][0]["message"]["content"] == "The capital of France is Paris."


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_strict_seeds_give_the_same_bits_alone_and_in_a_crowd(dtype: torch.dtype) -> None:
    model = tiny.fresh("Llama").to("cuda", dtype)
    asked = tiny.request("x", [7 + at % 50 for at in range(40)], 30, temperature=1.0, seed=11, logprobs=1)
    told = []
    for crowd in (0, 12):
        run = tiny.Run(tiny.batching(model, rows=8, prompt_tokens=16, strict_seeds=True))
        for at in range(crowd):
            run.add(tiny.request(f"r{at}", [5 + at] * (3 + 5 * at), 20, temperature=1.0))
            run.step()
        run.add(asked)
        found: list[tuple[int, float]] = []
        while run.strategy.busy:
            for name, output in run.step():
                found += [(entry.token, entry.logprob) for entry in output.logprobs if name == "x"]
        told.append(found)
    assert told[0] == told[1]
