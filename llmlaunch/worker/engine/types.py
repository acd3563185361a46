"""One generation request and what comes back of it: plain values, shared by the front and the engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from llmlaunch.worker.errors import ApiError

COLDEST = 1e-5
"""A lower temperature means the likeliest token: dividing by it would leave the range of floats."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn. Defaults are OpenAI's, those beyond OpenAI are vLLM's names and meanings."""

    temperature: float = 1.0
    """0: the likeliest token."""
    top_p: float = 1.0
    top_k: int = 0
    """0: no limit."""
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    """Over prompt and answer, as CTRL (arXiv:1909.05858) defines it."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    """Both over the answer alone, as OpenAI defines them."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    logprobs: int | None = None
    """None: none. n: the token's own, and of the n likeliest."""

    @property
    def greedy(self) -> bool:
        return self.temperature < COLDEST

    @property
    def reshapes(self) -> bool:
        """Whether logits change before they are drawn from."""
        return bool(
            self.logit_bias
            or self.presence_penalty
            or self.frequency_penalty
            or self.repetition_penalty != 1.0
        )


@dataclass(frozen=True, slots=True)
class Ending:
    """When an answer is over. Counts in tokens."""

    max_tokens: int
    """0: only the prompt is computed."""
    open: bool = False
    """Nobody asked for ``max_tokens``: it is what the context leaves, and hardly ever needed."""
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    """Beside the model's own end tokens."""
    ignore_eos: bool = False
    include_stop: bool = False
    """Whether the stop string stays in the text."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """``prompt`` and the answer together are checked against the context before this exists."""

    request_id: str
    prompt: tuple[int, ...]
    sampling: Sampling
    ending: Ending
    skip_special_tokens: bool = True
    priority: int = 0
    """Lower runs earlier."""
    after: str = ""
    """A request with the same prompt: waiting for it saves the prefill."""
    prompt_logprobs: int | None = None
    """None: none. n: of every token of the prompt but the first, and of the n likeliest in its place."""
    guide: Any = None
    """What the answer's form allows next (``guide.Guide``); its own, as it moves on with the answer."""


class Finish(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens with their logprobs, best first."""


@dataclass(frozen=True, slots=True)
class Piece:
    """News of one request: text that is certain, the tokens behind it, and the end when it is there."""

    text: str = ""
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    """In the first piece, where asked for: of the prompt from its second token on."""
    finish: Finish | None = None
    stop_reason: str | int | None = None
    """The stop string or token that ended it."""
    error: ApiError | None = None
    completion_tokens: int = 0
    """All so far."""
    cached_tokens: int = 0
    """Of the prompt, those that were not computed again."""

    @property
    def last(self) -> bool:
        return self.finish is not None or self.error is not None


Sink = Callable[[Piece], None]
"""Takes the pieces of one request. Called in the engine's thread: must only hand over."""


@dataclass(slots=True)
class Load:
    """How busy an engine is."""

    running: int = 0
    waiting: int = 0
    kv_used: float = 0.0
    """0 to 1."""
    sent_back: int = 0
    """Requests that had to make room and wait again, so far."""
    extra: dict[str, float] = field(default_factory=dict)
