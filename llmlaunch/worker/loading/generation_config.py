"""What a model's own generation config says: default sampling parameters and end tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmlaunch.worker.tokenization.tokenizer import Tokenizer
from llmlaunch.worker.types import Sampling


def default_sampling(model: Any, seed: int | None) -> Sampling:
    """Defaults from generation_config.json. The temperature is 0 if it does not enable sampling."""
    given = getattr(model, "generation_config", None)

    def value(name: str, default: float) -> float:
        found = getattr(given, name, None)
        return default if found is None else found

    return Sampling(
        temperature=value("temperature", 1.0 if getattr(given, "do_sample", False) else 0.0),
        top_p=value("top_p", 1.0),
        top_k=int(value("top_k", 0)),
        min_p=value("min_p", 0.0),
        repetition_penalty=value("repetition_penalty", 1.0),
        seed=seed,
    )


def end_tokens(model: Any, tokenizer: Tokenizer) -> frozenset[int]:
    """The tokens that end an answer, from the generation config, the config and the tokenizer."""
    found: set[int] = set()
    sources: Sequence[Any] = (getattr(model, "generation_config", None), model.config)
    for source in sources:
        value = getattr(source, "eos_token_id", None)
        if value is not None:
            found.update([value] if isinstance(value, int) else value)
    if tokenizer.end_token is not None:
        found.add(tokenizer.end_token)
    return frozenset(int(token) for token in found)
