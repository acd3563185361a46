"""Tiny models with random weights, of many architectures, made in milliseconds and without a download."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers

from llmlaunch.worker.engine.batching import ContinuousBatching
from llmlaunch.worker.errors import DeviceLostError
from llmlaunch.worker.kv.cache import ATTENTION
from llmlaunch.worker.kv.types import Capacity
from llmlaunch.worker.output.answer import AnswerBuilder
from llmlaunch.worker.types import (
    FinishReason,
    GenerationOutput,
    GenerationRequest,
    Sampling,
    StoppingCriteria,
)

VOCABULARY = 97
END = 1

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "bos_token_id": 0, "eos_token_id": END, "pad_token_id": 2, "tie_word_embeddings": False,
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Qwen2": {},
    "Qwen3": {"head_dim": 8},
    "Mistral": {"sliding_window": 12, "head_dim": 8},
    "Gemma": {"head_dim": 8},
    "Gemma3": {"head_dim": 8, "sliding_window": 12, "query_pre_attn_scalar": 8},
    "Phi": {},
    "Phi3": {},
    "Mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Olmo2": {},
    "SmolLM3": {},
    "GPT2": {
        "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256, "vocab_size": VOCABULARY,
        "bos_token_id": 0, "eos_token_id": END,
    },
    "OPT": {"ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.0},
}  # fmt: skip
NAMES = {"Gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM"), "GPT2": ("GPT2Config", "GPT2LMHeadModel")}


def fresh(kind: str, seed: int = 0, **settings: Any) -> Any:
    """A model of architecture ``kind`` in float32."""
    config_name, model_name = NAMES.get(kind, (f"{kind}Config", f"{kind}ForCausalLM"))
    own = SETTINGS.get(kind, {})
    values = (own if kind == "GPT2" else _COMMON | own) | settings
    config = getattr(transformers, config_name)(**values)
    torch.manual_seed(seed)
    model = getattr(transformers, model_name)(config).eval()
    with torch.no_grad():  # as initialised, logits are so near each other that rounding decides
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model


@cache
def model(kind: str) -> Any:
    """One that is shared by tests: attention may be switched, weights not."""
    return fresh(kind)


def reference(model: Any, prompt: Sequence[int], new: int) -> list[int]:
    """What transformers' own greedy ``generate`` answers: ``new`` tokens."""
    model.set_attn_implementation("eager")
    out = model.generate(
        torch.tensor([list(prompt)], device=model.device),
        max_new_tokens=new, eos_token_id=[-1], do_sample=False, pad_token_id=2,
    )  # fmt: skip
    return [int(token) for token in out[0, len(prompt) :]]


def batching(
    model: Any, rows: int = 4, columns: int = 128, tokens: int | None = None, **arguments: Any
) -> ContinuousBatching:
    model.set_attn_implementation(ATTENTION)
    return ContinuousBatching(model, Capacity(rows, columns, tokens or rows * columns), **arguments)


def request(
    name: str, prompt: Sequence[int], new: int = 8, *, ends: bool = False, after: str = "", **sampling: Any
) -> GenerationRequest:
    rules = Sampling(**({"temperature": 0.0} | sampling))
    ending = StoppingCriteria(max_tokens=new, ignore_eos=not ends)
    return GenerationRequest(name, tuple(prompt), rules, ending, after=after)


def answer(asked: GenerationRequest) -> AnswerBuilder:
    return AnswerBuilder(asked, decode, frozenset({END}))


def decode(tokens: Sequence[int]) -> str:
    return "".join(chr(48 + token) for token in tokens)


def never_lost(error: DeviceLostError) -> None:
    raise AssertionError(error.message)


class Run:
    """Steps a strategy by hand, and keeps what it says of each request."""

    def __init__(self, strategy: Any) -> None:
        self.strategy = strategy
        self.tokens: dict[str, list[int]] = {}
        self.last: dict[str, GenerationOutput] = {}

    def add(self, asked: GenerationRequest) -> None:
        self.tokens[asked.request_id] = []
        self.strategy.add(answer(asked))

    def cancel(self, name: str) -> None:
        self.strategy.remove(name)
        self.last[name] = GenerationOutput(finish=FinishReason.CANCELLED)

    def step(self) -> list[tuple[str, GenerationOutput]]:
        news: list[tuple[str, GenerationOutput]] = self.strategy.step()
        for name, output in news:
            assert name not in self.last, f"news of {name} after its end"
            self.tokens[name] += output.tokens
            if output.last:
                self.last[name] = output
        return news

    def finish(self, most: int = 2000) -> None:
        for _ in range(most):
            if not self.strategy.busy:
                return
            self.step()
        raise AssertionError("does not end")


MARKS = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<fim_pad>")
"""StarCoder's."""


def tokenizer(marks: Sequence[str] = ()) -> Any:
    """A byte-level tokenizer of few tokens, with a chat template. ``marks``: further special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<s>", "</s>", "<pad>", *letters]
    vocabulary = {name: at for at, name in enumerate(names)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    wrapped.add_tokens(list(marks), special_tokens=True)
    wrapped.chat_template = (
        "{% for message in messages %}{{ message.role[0] }}:{{ message.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}a:{% endif %}"
    )
    return wrapped


def save(model: Any, folder: Path, *, template: bool = True, marks: Sequence[str] = ()) -> Path:
    """A folder as from the hub: the model, and a byte-level tokenizer of its vocabulary."""
    wrapped = tokenizer(marks)
    if not template:
        wrapped.chat_template = None
    model.save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder
