"""From logits to tokens: each row with its own sampling parameters and random numbers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from llmlaunch.worker.types import DecodingConstraint, Sampling, TokenLogprob

CANDIDATES = 256
"""top_p is tried on this many likeliest tokens first; all are sorted only if these are not enough."""
FEW_CANDIDATES = 64
"""The same if no row's top_k is larger than this."""
GROUP = 32
"""Number of neighbouring tokens of which only the likeliest is looked at first."""


@dataclass(slots=True)
class SamplingState:
    """Sampling state of one request: its parameters, its random numbers, and the tokens that its penalties depend on."""

    params: Sampling
    generator: random.Random
    prompt: tuple[int, ...] = ()
    output: list[int] = field(default_factory=list)
    banned: tuple[int, ...] = ()
    """Tokens that are not allowed yet: the end tokens, before min_tokens."""
    constraint: DecodingConstraint | None = None

    @classmethod
    def of(
        cls, params: Sampling, prompt: Sequence[int], constraint: DecodingConstraint | None = None
    ) -> SamplingState:
        """The state before the first token. Without a seed its random numbers differ each time."""
        # Mersenne Twister, so that a seed means the same on every device and machine.
        kept = tuple(prompt) if params.repetition_penalty != 1 else ()
        return cls(params, random.Random(params.seed), kept, constraint=constraint)


def sample(logits: Tensor, states: Sequence[SamplingState]) -> tuple[list[int], list[TokenLogprob | None]]:
    """The next token of every row of ``logits`` ``[rows, vocabulary]``, and its logprob if requested.

    Logprobs are from before temperature and penalties, as in vLLM.
    """
    raw = logits.float()
    processed = _process_logits(raw, states)
    tokens = [0] * len(states)
    greedy = [row for row, state in enumerate(states) if state.params.greedy]
    if greedy:
        picked = fast_argmax(processed if len(greedy) == len(states) else processed[greedy]).tolist()
        for row, token in zip(greedy, picked, strict=True):
            tokens[row] = token
    drawn = [row for row, state in enumerate(states) if not state.params.greedy]
    if drawn:
        rows = processed if len(drawn) == len(states) else processed[drawn]
        for row, token in zip(drawn, _draw(rows, [states[row] for row in drawn]), strict=True):
            tokens[row] = token
    for state, token in zip(states, tokens, strict=True):
        state.output.append(token)
        if state.constraint is not None:
            state.constraint.accept_token(token)
    return tokens, logprobs(raw, tokens, [state.params.logprobs for state in states])


def _process_logits(raw: Tensor, states: Sequence[SamplingState]) -> Tensor:
    """Apply biases, penalties and bans. Rows without any are left unchanged."""
    processed = raw
    for row, state in enumerate(states):
        if not (state.params.changes_logits or state.banned or state.constraint):
            continue
        if processed is raw:
            processed = raw.clone()
        _process_row(processed[row], state)
    return processed


def _process_row(logits: Tensor, state: SamplingState) -> None:
    params = state.params
    if params.repetition_penalty != 1:
        seen = torch.tensor(sorted({*state.prompt, *state.output}), device=logits.device)
        seen = seen[seen < len(logits)]
        values = logits[seen]
        penalised = torch.where(
            values > 0, values / params.repetition_penalty, values * params.repetition_penalty
        )
        most = torch.finfo(logits.dtype).max  # softmax needs finite logits
        logits[seen] = torch.where(values.isfinite(), penalised.clamp(-most, most), values)
    if state.output and (params.presence_penalty or params.frequency_penalty):
        used, counts = torch.tensor(state.output, device=logits.device).unique(return_counts=True)  # type: ignore[no-untyped-call]
        logits[used] -= params.presence_penalty + params.frequency_penalty * counts
    for token, bias in params.logit_bias:
        if 0 <= token < len(logits):
            logits[token] += bias
    if state.banned:
        logits[list(state.banned)] = float("-inf")
    if state.constraint is not None:
        state.constraint.mask_logits(logits)


def _draw(logits: Tensor, states: Sequence[SamplingState]) -> list[int]:
    """Sample with one uniform number per row, by inverting the row's cumulative distribution."""
    params = [state.params for state in states]
    chances = torch.tensor(
        [[v.generator.random()] for v in states], dtype=torch.float64, device=logits.device
    )
    tokens = [0] * len(states)
    unrestricted = [row for row, r in enumerate(params) if r.top_p >= 1 and not r.top_k and not r.min_p]
    restricted = [row for row in range(len(params)) if row not in unrestricted]
    for rows, draw in ((unrestricted, _draw_unrestricted), (restricted, _draw_restricted)):
        if not rows:
            continue
        if len(rows) == len(params):
            return draw(logits, params, chances)
        picked = draw(logits[rows], [params[row] for row in rows], chances[rows])
        for row, token in zip(rows, picked, strict=True):
            tokens[row] = token
    return tokens


def _draw_unrestricted(logits: Tensor, params: Sequence[Sampling], chances: Tensor) -> list[int]:
    """Sample from all tokens."""
    scaled = _scaled(logits, logits.amax(-1, keepdim=True), _column([r.temperature for r in params], logits))
    picked: list[int] = _inverse_cdf(scaled.softmax(-1).to(torch.float64).cumsum(-1), chances).tolist()
    return picked


def _draw_restricted(logits: Tensor, params: Sequence[Sampling], chances: Tensor) -> list[int]:
    """Sample where top_k, min_p or top_p restrict the tokens; applied in this order, as in vLLM."""
    vocabulary = logits.shape[-1]
    top_k = [min(r.top_k, vocabulary) or vocabulary for r in params]
    few = max(top_k) <= FEW_CANDIDATES
    most = min(vocabulary, FEW_CANDIDATES if few else max([CANDIDATES, *(r.top_k for r in params)]))
    values, tokens = fast_topk(logits, most)
    temperatures = _column([r.temperature for r in params], logits)
    scaled = _scaled(values, values[:, :1], temperatures)
    limits, nucleus = _column(top_k, logits), _column([r.top_p for r in params], logits)
    floors = _column([r.min_p for r in params], logits)
    inside = torch.arange(most, device=logits.device)[None] < limits
    # The normalizer over all tokens within top_k: over the whole vocabulary for rows without it.
    total = scaled.masked_fill(~inside, float("-inf")).logsumexp(-1, keepdim=True)
    open_rows = [row for row, limit in enumerate(top_k) if limit == vocabulary]
    if open_rows:
        everything = _scaled(logits[open_rows], values[open_rows, :1], temperatures[open_rows])
        total[open_rows] = everything.logsumexp(-1, keepdim=True)
    weights = (scaled - total).exp() * inside
    before = weights.cumsum(-1) - weights
    kept = weights * (before < nucleus) * (weights >= floors * weights[:, :1])
    picked: list[int] = tokens.gather(1, _inverse_cdf(kept.to(torch.float64).cumsum(-1), chances)[:, None])[
        :, 0
    ].tolist()
    if open_rows and most < vocabulary:
        # A nucleus (or min_p) that reaches beyond the candidates needs all tokens, which is rare and slow.
        for row in ((limits > most) & (kept[:, -1:] > 0))[:, 0].nonzero()[:, 0].tolist():
            picked[row] = _draw_sorted(logits[row], params[row], chances[row : row + 1])
    return picked


def _draw_sorted(logits: Tensor, params: Sampling, chance: Tensor) -> int:
    """Sample one row with all its tokens sorted."""
    values, order = logits.sort(descending=True)
    weights = _scaled(values, values[:1], params.temperature).softmax(-1)
    weights *= (weights.cumsum(-1) - weights) < params.top_p
    weights *= weights >= params.min_p * weights[0]
    return int(order[_inverse_cdf(weights.to(torch.float64).cumsum(-1)[None], chance)[0]])


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device)[:, None]


def _scaled(logits: Tensor, highest: Tensor, temperature: Tensor | float) -> Tensor:
    """Logits divided by temperature, with maximum 0: dividing by a low temperature would overflow otherwise."""
    return (logits - highest) / temperature


def fast_argmax(logits: Tensor) -> Tensor:
    """Like ``argmax`` (the first of equal maxima), but several times as fast for a large vocabulary."""
    rows, vocabulary = logits.shape
    if vocabulary % GROUP:
        return logits.argmax(-1)
    grouped = logits.reshape(rows, -1, GROUP)
    best = grouped.amax(-1).argmax(-1)
    return best * GROUP + grouped[torch.arange(rows, device=logits.device), best].argmax(-1)


def fast_topk(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Like ``topk``, but several times as fast for a few of a large vocabulary.

    The highest ``count`` lie within the ``count`` groups with the highest maxima: only these are examined.
    """
    rows, vocabulary = logits.shape
    groups = vocabulary // GROUP
    if count > FEW_CANDIDATES or count * GROUP * 4 > vocabulary or vocabulary % GROUP:
        values, tokens = logits.topk(count, -1)
        return values, tokens
    grouped = logits.reshape(rows, groups, GROUP)
    best = grouped.amax(-1).topk(count, -1).indices
    values, at = grouped.gather(1, best[:, :, None].expand(-1, -1, GROUP)).view(rows, -1).topk(count, -1)
    return values, best.gather(1, at // GROUP) * GROUP + at % GROUP


def _inverse_cdf(mass: Tensor, chances: Tensor) -> Tensor:
    """Index where the cumulative ``mass`` exceeds the row's random number times its total."""
    place = torch.searchsorted(mass, chances * mass[:, -1:], right=True)[:, 0]
    # If rounding leaves nothing above, take the last index with any mass.
    last = torch.searchsorted(mass, mass[:, -1:].contiguous(), right=False)[:, 0]
    return torch.minimum(place, last).clamp_(max=mass.shape[1] - 1)


def logprobs(raw: Tensor, tokens: Sequence[int], wanted: Sequence[int | None]) -> list[TokenLogprob | None]:
    """Logprobs of ``tokens`` under the ``raw`` logits, for the rows that want them."""
    found: list[TokenLogprob | None] = [None] * len(tokens)
    rows = [row for row, want in enumerate(wanted) if want is not None]
    if not rows:
        return found
    normal = raw[rows].log_softmax(-1)
    own = normal.gather(1, torch.tensor([[tokens[row]] for row in rows], device=raw.device))[:, 0].tolist()
    most = min(max(wanted[row] or 0 for row in rows), raw.shape[-1])
    best, ids = normal.topk(most, -1) if most else (normal[:, :0], normal[:, :0].long())
    for at, row in enumerate(rows):
        count = wanted[row] or 0
        top = tuple(zip(ids[at, :count].tolist(), best[at, :count].tolist(), strict=True))
        found[row] = TokenLogprob(tokens[row], own[at], top)
    return found
