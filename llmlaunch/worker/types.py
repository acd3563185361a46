"""A generation request and its output: plain values shared by the API and the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from llmlaunch.worker.errors import ApiError

if TYPE_CHECKING:
    from torch import Tensor

GREEDY_BELOW = 1e-5
"""Temperatures below this mean greedy decoding: dividing by them would overflow."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters. Defaults are OpenAI's; parameters beyond OpenAI's have vLLM's names and meanings."""

    temperature: float = 1.0
    """0: greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0: no limit."""
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    """Over prompt and answer, as defined by CTRL (arXiv:1909.05858)."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    """Both over the answer alone, as defined by OpenAI."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    logprobs: int | None = None
    """None: no logprobs. n: of the sampled token and of the n likeliest."""

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken every time."""
        return self.temperature < GREEDY_BELOW

    @property
    def changes_logits(self) -> bool:
        """Whether logits are changed before sampling."""
        return bool(
            self.logit_bias
            or self.presence_penalty
            or self.frequency_penalty
            or self.repetition_penalty != 1.0
        )


@dataclass(frozen=True, slots=True)
class StoppingCriteria:
    """When an answer ends. Counts in tokens."""

    max_tokens: int
    """0: only the prompt is computed."""
    open_ended: bool = False
    """Whether the client set no ``max_tokens``: it is then the rest of the context, and rarely reached."""
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    """In addition to the model's own end tokens."""
    middle_ends: frozenset[int] = frozenset()
    """The end tokens of a text between two others, if that is wanted. ``ignore_eos`` ignores them, too."""
    ignore_eos: bool = False
    include_stop: bool = False
    """Whether the stop string stays in the text."""


class DecodingConstraint(Protocol):
    """Which tokens may come next in one answer (``engine.structured_output`` makes them)."""

    ignored: tuple[str, ...]
    """What the request asks for, but is not enforced: in words, for the client."""

    def mask_logits(self, logits: Tensor) -> None:
        """Set the ``logits`` ``[vocabulary]`` of disallowed tokens to -inf."""

    def accept_token(self, token: int) -> None:
        """Advance by ``token``, which was sampled."""


@dataclass(frozen=True, slots=True)
class FunctionSchema:
    """What a call of one function must match."""

    name: str
    parameters: dict[str, Any] | None
    """The schema of its arguments; None: it has no parameters."""
    strict: bool = False
    """Whether words that the grammar cannot express are refused."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What the engine is to generate. Prompt and answer are known to fit the context when this exists."""

    request_id: str
    prompt: tuple[int, ...]
    sampling: Sampling
    stopping: StoppingCriteria
    skip_special_tokens: bool = True
    priority: int = 0
    """Lower runs earlier."""
    after: str = ""
    """The id of a request with the same prompt: waiting for that one saves the prefill."""
    prompt_logprobs: int | None = None
    """None: no logprobs. n: of every prompt token but the first, and of the n likeliest in its place."""
    constraint: DecodingConstraint | None = None
    """Constrains the answer (``engine.structured_output``). Not shared: it advances with the answer."""


class FinishReason(StrEnum):
    """Why an answer ended; OpenAI's names."""

    STOP = "stop"
    """At a stop string or an end token."""
    LENGTH = "length"
    """At its maximum number of tokens."""
    CANCELLED = "cancelled"
    """Because the client left. Clients never see this one."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token with its logprob."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens with their logprobs, best first."""


@dataclass(frozen=True, slots=True)
class GenerationOutput:
    """What a request has generated since its previous output: text and its tokens. The last one has a finish reason or error."""

    text: str = ""
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    """In the first output, if requested: from the prompt's second token on."""
    finish: FinishReason | None = None
    stop_reason: str | int | None = None
    """The stop string or token that ended it."""
    error: ApiError | None = None
    completion_tokens: int = 0
    """Total so far."""
    cached_tokens: int = 0
    """Prompt tokens that were not computed again."""

    @property
    def last(self) -> bool:
        """Whether the request has ended."""
        return self.finish is not None or self.error is not None


Sink = Callable[[GenerationOutput], None]
"""Receives the outputs of one request. Called in the engine's thread, so it must only hand them over."""


@dataclass(slots=True)
class EngineLoad:
    """How busy an engine is."""

    running: int = 0
    waiting: int = 0
    kv_used: float = 0.0
    """0 to 1."""
    preempted: int = 0
    """Preemptions so far."""
    extra: dict[str, float] = field(default_factory=dict)
