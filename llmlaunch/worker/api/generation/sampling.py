"""Sampling parameters: what the request asks for, else the model's own, else OpenAI's defaults. Errors name the parameter."""

from __future__ import annotations

from typing import TypeVar

from llmlaunch.worker.api.protocol import GenerationBody
from llmlaunch.worker.errors import BadRequest
from llmlaunch.worker.loading.types import LoadedGenerator
from llmlaunch.worker.tokenization.tokenizer import Tokenizer
from llmlaunch.worker.types import Sampling

Value = TypeVar("Value")


def sampling_parameters(
    body: GenerationBody, loaded: LoadedGenerator, *, logprobs: int | None, choice: int = 0
) -> Sampling:
    """Return the parameters of the ``choice``-th answer. Answers to one seeded request differ, each reproducibly."""
    own = loaded.defaults
    top_k = max(0, _or(body.top_k, own.top_k))
    top_p = _or(body.top_p, own.top_p)
    if top_p == 0:
        top_p, top_k = 1.0, 1
    seed = _or(body.seed, own.seed)
    return Sampling(
        temperature=_temperature(body, own),
        top_p=top_p,
        top_k=top_k,
        min_p=_or(body.min_p, own.min_p),
        repetition_penalty=_or(body.repetition_penalty, own.repetition_penalty),
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        logit_bias=_logit_bias(body.logit_bias or {}, loaded.tokenizer),
        seed=None if seed is None else seed + choice,
        logprobs=logprobs,
    )


def _temperature(body: GenerationBody, own: Sampling) -> float:
    """The request's temperature, else the model's; 0 if neither asks for sampling, as in transformers' ``generate``.

    A request that asks for sampling in another way (top_p, a seed, several answers) gets OpenAI's default of 1.
    """
    if body.temperature is not None:
        return body.temperature
    if own.temperature > 0:
        return own.temperature
    parameters = (body.top_p, body.top_k, body.min_p, body.seed)
    several = (body.n or 1) > 1 or (getattr(body, "best_of", None) or 1) > 1
    return 1.0 if several or any(value is not None for value in parameters) else 0.0


def _or(given: Value | None, default: Value) -> Value:
    return default if given is None else given


def _logit_bias(given: dict[str, float], tokenizer: Tokenizer) -> tuple[tuple[int, float], ...]:
    bias: list[tuple[int, float]] = []
    for key, value in given.items():
        if not (key.isascii() and key.isdigit() and int(key) < tokenizer.vocabulary):
            raise BadRequest(
                f"logit_bias: {key!r} is not a token id of this model, which has {tokenizer.vocabulary} tokens",
                param="logit_bias",
            )
        bias.append((int(key), value))
    return tuple(bias)
