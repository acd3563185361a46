"""Models that cannot share a cache are answered one at a time, by the same rules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from llmlaunch.worker.engine import batching_support
from llmlaunch.worker.engine.sequential import SequentialGeneration
from tests.unit.worker import tiny

T5 = {
    "vocab_size": tiny.VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
    "decoder_start_token_id": 0, "eos_token_id": tiny.END, "pad_token_id": 2,
}  # fmt: skip
MAMBA = {"vocab_size": tiny.VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
GEMMA2 = tiny._COMMON | {"head_dim": 8, "sliding_window": 12, "query_pre_attn_scalar": 8}
UNFIT: dict[str, tuple[str, str, dict[str, Any]]] = {
    "T5": ("T5Config", "T5ForConditionalGeneration", T5),
    "Mamba": ("MambaConfig", "MambaForCausalLM", MAMBA),
    "Gemma2": ("Gemma2Config", "Gemma2ForCausalLM", GEMMA2),
    "Bloom": (
        "BloomConfig",
        "BloomForCausalLM",
        {"vocab_size": tiny.VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    ),
}


def unfit(kind: str, **settings: Any) -> Any:
    config, model, values = UNFIT[kind]
    torch.manual_seed(0)
    return getattr(transformers, model)(getattr(transformers, config)(**values | settings)).eval()


@pytest.mark.parametrize("kind", sorted(UNFIT))
def test_it_is_seen_from_the_configuration(kind: str) -> None:
    assert batching_support.why_unsupported(unfit(kind))


@pytest.mark.parametrize("kind", sorted(UNFIT))
def test_greedy_answers_equal_generate(kind: str) -> None:
    model = unfit(kind)
    run = tiny.Run(SequentialGeneration(model))
    asked = {"a": [5, 6, 7], "b": [8, 9, 10, 11], "c": [12]}
    for name, prompt in asked.items():
        run.add(tiny.request(name, prompt, 6))
    run.step()
    assert run.strategy.load().running == 1
    assert run.strategy.load().waiting == 2
    run.finish()
    for name, prompt in asked.items():
        out = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=6, eos_token_id=[-1], do_sample=False, pad_token_id=2,
        )[0].tolist()  # fmt: skip
        assert run.tokens[name] == out[-6:]


def test_one_that_is_cancelled_makes_room_for_the_next() -> None:
    run = tiny.Run(SequentialGeneration(unfit("Mamba")))
    run.add(tiny.request("a", [5, 6, 7], 500))
    run.add(tiny.request("b", [5, 6, 7], 500))
    run.add(tiny.request("c", [5, 6, 7], 3))
    run.step()
    run.cancel("b")
    run.cancel("a")
    run.finish()
    assert len(run.tokens["c"]) == 3
    assert not run.strategy.busy


def test_a_fault_in_the_model_comes_out_and_the_next_request_is_answered() -> None:
    model = unfit("Mamba")
    strategy = SequentialGeneration(model)
    run = tiny.Run(strategy)
    run.add(tiny.request("bad", [tiny.VOCABULARY + 5], 3))
    with pytest.raises(IndexError):
        run.step()
    strategy.recover()
    run.add(tiny.request("good", [5], 3))
    run.finish()
    assert len(run.tokens["good"]) == 3
