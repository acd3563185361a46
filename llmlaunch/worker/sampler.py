"""From logits to tokens: each row by its own rules and its own random numbers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from llmlaunch.worker.values import Sampling, TokenLogprob

CANDIDATES = 256
"""The nucleus is looked for among this many likeliest tokens first; only where it is larger is everything sorted."""


class Form(Protocol):
    """What an answer may say next; see ``guide``."""

    def restrict(self, logits: Tensor) -> None: ...

    def take(self, token: int) -> None: ...


@dataclass(slots=True)
class Voice:
    """How one request speaks: its rules, its random numbers, and what it has said as far as its rules ask."""

    rules: Sampling
    chance: random.Random
    prompt: tuple[int, ...] = ()
    said: list[int] = field(default_factory=list)
    banned: tuple[int, ...] = ()
    """Tokens that may not come yet: the end, before min_tokens."""
    guide: Form | None = None

    @classmethod
    def of(cls, rules: Sampling, prompt: Sequence[int], guide: Form | None = None) -> Voice:
        # Mersenne Twister, so that a seed means the same on every device and machine.
        kept = tuple(prompt) if rules.repetition_penalty != 1 else ()
        return cls(rules, random.Random(rules.seed), kept, guide=guide)


def sample(logits: Tensor, voices: Sequence[Voice]) -> tuple[list[int], list[TokenLogprob | None]]:
    """The next token of every row of ``logits`` ``[rows, vocabulary]``, and its logprob where it was asked for.

    Logprobs are the model's own, before temperature and penalties, as vLLM gives them.
    """
    raw = logits.float()
    shaped = _reshape(raw, voices)
    tokens = [0] * len(voices)
    greedy = [row for row, voice in enumerate(voices) if voice.rules.greedy]
    if greedy:
        picked = (shaped if len(greedy) == len(voices) else shaped[greedy]).argmax(-1).tolist()
        for row, token in zip(greedy, picked, strict=True):
            tokens[row] = token
    drawn = [row for row, voice in enumerate(voices) if not voice.rules.greedy]
    if drawn:
        rows = shaped if len(drawn) == len(voices) else shaped[drawn]
        for row, token in zip(drawn, _draw(rows, [voices[row] for row in drawn]), strict=True):
            tokens[row] = token
    for voice, token in zip(voices, tokens, strict=True):
        voice.said.append(token)
        if voice.guide is not None:
            voice.guide.take(token)
    return tokens, logprobs(raw, tokens, [voice.rules.logprobs for voice in voices])


def _reshape(raw: Tensor, voices: Sequence[Voice]) -> Tensor:
    """Biases, penalties and bans. Rows without any are left as they are."""
    shaped = raw
    for row, voice in enumerate(voices):
        if not (voice.rules.reshapes or voice.banned or voice.guide):
            continue
        if shaped is raw:
            shaped = raw.clone()
        _reshape_row(shaped[row], voice)
    return shaped


def _reshape_row(logits: Tensor, voice: Voice) -> None:
    rules = voice.rules
    if rules.repetition_penalty != 1:
        seen = torch.tensor(sorted({*voice.prompt, *voice.said}), device=logits.device)
        seen = seen[seen < len(logits)]
        values = logits[seen]
        penalised = torch.where(
            values > 0, values / rules.repetition_penalty, values * rules.repetition_penalty
        )
        most = torch.finfo(logits.dtype).max  # infinite logits have no softmax
        logits[seen] = torch.where(values.isfinite(), penalised.clamp(-most, most), values)
    if voice.said and (rules.presence_penalty or rules.frequency_penalty):
        said, counts = torch.tensor(voice.said, device=logits.device).unique(return_counts=True)  # type: ignore[no-untyped-call]
        logits[said] -= rules.presence_penalty + rules.frequency_penalty * counts
    for token, bias in rules.logit_bias:
        if 0 <= token < len(logits):
            logits[token] += bias
    if voice.banned:
        logits[list(voice.banned)] = float("-inf")
    if voice.guide is not None:
        voice.guide.restrict(logits)


def _draw(logits: Tensor, voices: Sequence[Voice]) -> list[int]:
    """One uniform number a row, put through the inverse of the row's cumulative distribution."""
    rules = [voice.rules for voice in voices]
    temperatures = torch.tensor([r.temperature for r in rules], device=logits.device)
    chances = torch.tensor([[v.chance.random()] for v in voices], dtype=torch.float64, device=logits.device)
    scaled = (logits - logits.amax(-1, keepdim=True)) / temperatures[:, None]
    tokens = [0] * len(voices)
    whole = [row for row, r in enumerate(rules) if r.top_p >= 1 and not r.top_k and not r.min_p]
    cut = [row for row in range(len(rules)) if row not in whole]
    if whole:
        mass = scaled[whole].softmax(-1).to(torch.float64).cumsum(-1)
        for row, token in zip(whole, _invert(mass, chances[whole]).tolist(), strict=True):
            tokens[row] = token
    if cut:
        picked = _draw_cut(scaled[cut], [rules[row] for row in cut], chances[cut])
        for row, token in zip(cut, picked, strict=True):
            tokens[row] = token
    return tokens


def _draw_cut(scaled: Tensor, rules: Sequence[Sampling], chances: Tensor) -> list[int]:
    """Draw where top_k, min_p or top_p leave only the likeliest tokens; in this order, as vLLM applies them."""
    vocabulary = scaled.shape[-1]
    most = min(vocabulary, max([CANDIDATES, *(r.top_k for r in rules)]))
    values, tokens = scaled.topk(most, -1)
    device = scaled.device
    limits = torch.tensor([[min(r.top_k, vocabulary) or vocabulary] for r in rules], device=device)
    nucleus = torch.tensor([[r.top_p] for r in rules], device=device)
    floors = torch.tensor([[r.min_p] for r in rules], device=device)
    inside = torch.arange(most, device=device)[None] < limits
    # What all tokens that top_k leaves weigh together: the whole vocabulary for rows without it.
    total = torch.where(
        limits < vocabulary,
        values.masked_fill(~inside, float("-inf")).logsumexp(-1, keepdim=True),
        scaled.logsumexp(-1, keepdim=True),
    )
    weights = (values - total).exp() * inside
    before = weights.cumsum(-1) - weights
    kept = weights * (before < nucleus) * (weights >= floors * weights[:, :1])
    # A nucleus (or floor) that reaches beyond the candidates: that row looks at everything, which is rare and slow.
    beyond = (limits > most) & (kept[:, -1:] > 0)
    if most < vocabulary and bool(beyond.any()):
        return _draw_cut_slowly(scaled, rules, chances, beyond, kept, tokens)
    return tokens.gather(1, _invert(kept.to(torch.float64).cumsum(-1), chances)[:, None])[:, 0].tolist()


def _draw_cut_slowly(
    scaled: Tensor, rules: Sequence[Sampling], chances: Tensor, beyond: Tensor, kept: Tensor, tokens: Tensor
) -> list[int]:
    picked: list[int] = tokens.gather(1, _invert(kept.to(torch.float64).cumsum(-1), chances)[:, None])[
        :, 0
    ].tolist()
    for row in beyond[:, 0].nonzero()[:, 0].tolist():
        values, order = scaled[row].sort(descending=True)
        weights = values.softmax(-1)
        weights *= (weights.cumsum(-1) - weights) < rules[row].top_p
        weights *= weights >= rules[row].min_p * weights[0]
        mass = weights.to(torch.float64).cumsum(-1)[None]
        picked[row] = int(order[_invert(mass, chances[row : row + 1])[0]])
    return picked


def _invert(mass: Tensor, chances: Tensor) -> Tensor:
    """Index of the first place where the cumulated ``mass`` exceeds the row's share of its total."""
    place = torch.searchsorted(mass, chances * mass[:, -1:], right=True)[:, 0]
    # Where rounding leaves nothing above, the last place that weighs anything.
    last = torch.searchsorted(mass, mass[:, -1:].contiguous(), right=False)[:, 0]
    return torch.minimum(place, last).clamp_(max=mass.shape[1] - 1)


def logprobs(raw: Tensor, tokens: Sequence[int], wanted: Sequence[int | None]) -> list[TokenLogprob | None]:
    """Logprobs of ``tokens`` under ``raw`` logits, for the rows that want them."""
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
